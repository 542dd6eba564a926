"""What the modules that look after agents share: sizes, programs, and what a module says at its end."""

from __future__ import annotations

import re
import subprocess
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ansible.module_utils.basic import AnsibleModule


class AgentError(Exception):
    """Something of an agent's cannot be brought into the wanted state; the message names it and the remedy."""


def bytes_of(size: str, *, field: str, whole: int) -> int:
    """Return the bytes that systemd reads from a size, rounded down to a multiple of ``whole``.

    Raises:
        AgentError: The size is not a number with one of the suffixes.
    """
    match = re.fullmatch(r"([1-9]\d*)([KMGT]?)", size)
    if not match:
        raise AgentError(f"{field} '{size}' must be bytes, or a number with K, M, G or T.")
    unit: int = 1024 ** " KMGT".index(match[2] or " ")
    return int(match[1]) * unit // whole * whole


def run(*argv: str, good: int = 0, **how: Any) -> str:
    """Run a program and return what it printed.

    Args:
        *argv: The program and its arguments.
        good: The highest exit status that is no failure.
        **how: Further arguments of subprocess.run.

    Raises:
        AgentError: It failed, or a signal ended it, such as that of the kernel out of memory.
    """
    done: subprocess.CompletedProcess[str] = subprocess.run(argv, capture_output=True, text=True, check=False, **how)
    if not 0 <= done.returncode <= good:
        # cp has a line for every file that finds no room.
        said = (done.stderr or done.stdout).strip().splitlines()
        raise AgentError(f"'{' '.join(argv)}' failed: {' '.join(said[:3])}")
    return done.stdout


@contextmanager
def reporting(module: AnsibleModule, actions: list[str], diffs: list[dict[str, str]]) -> Iterator[None]:
    """End the module with what the work within did or, in check mode, would do.

    Args:
        module: It ends here, with failure where the work raised AgentError or OSError.
        actions: Filled by the work.
        diffs: What the work noted of single files; the actions come after.
    """
    try:
        yield
    except (OSError, AgentError) as error:
        module.fail_json(msg=str(error), changed=bool(actions), actions=actions)
    done = {"before": "", "after": "".join(f"{action}\n" for action in actions)}
    module.exit_json(changed=bool(actions), actions=actions, diff=[*diffs, done])
