"""Programs that tests run to their end."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

from fleet.inventory import PROJECT

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path


def run(
    argv: Sequence[str],
    *,
    cwd: Path = PROJECT,
    environment: Mapping[str, str] | None = None,
    timeout: float | None = None,
    merged: bool = False,
) -> subprocess.CompletedProcess[str]:
    """Run a program, whatever its status will be, without standard input: ssh makes one that it inherits non-blocking.

    Args:
        argv: The program and its arguments.
        cwd: Where it runs.
        environment: All of it; without it, ours.
        timeout: Seconds after which it is killed, and the test fails.
        merged: Whether what it says on standard error is in ``stdout``, among the rest.
    """
    return subprocess.run(
        argv,
        cwd=cwd,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT if merged else subprocess.PIPE,
        text=True,
        timeout=timeout,
        check=False,
    )
