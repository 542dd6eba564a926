"""What Ansible ran on hosts, told from its own log."""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

# Each costs a host 0.2 to 0.4 s of CPU, whatever it does: this is the most for one host in a run that changes nothing.
MOST_MODULE_RUNS = 60
# With pipelining, a module is a Python program that arrives through the connection.
_MODULE = re.compile(r"<(?P<address>[^>]+)> SSH: EXEC .*/python3['\"\s]")


def logged(path: Path) -> dict[str, str]:
    """Return settings that have Ansible write down each command that it runs on a host."""
    return {"ANSIBLE_LOG_PATH": str(path), "ANSIBLE_LOG_VERBOSITY": "3"}


def module_runs(log: str) -> Counter[str]:
    """Return how many modules were run at each address, those of loops, delegations and retries too."""
    return Counter(run["address"] for line in log.splitlines() if (run := _MODULE.search(line)))
