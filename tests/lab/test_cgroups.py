"""What holds the processes of a host."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from lab import cgroups
from lab.process import PROJECT, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

_GROUP = "openclaw-lab-test-cgroups"
# Its first thread ends by exit(2), which ends no other; the process is a zombie by its state, and lives.
_HEADLESS = f"""
import ctypes, platform, threading, time
from lab import cgroups
cgroups.join({_GROUP!r})
threading.Thread(target=time.sleep, args=[600]).start()
ctypes.CDLL(None).syscall({{"x86_64": 60, "aarch64": 93}}[platform.machine()], 0)
"""


@pytest.fixture
def group() -> Iterator[str]:
    yield _GROUP
    cgroups.kill(_GROUP)
    cgroups.remove(_GROUP)


def test_a_process_lives_as_long_as_one_of_its_threads(group: str) -> None:
    """A host was thought dead while it died, and so was not started again."""
    with subprocess.Popen([sys.executable, "-c", _HEADLESS], cwd=PROJECT) as process:
        stat = Path(f"/proc/{process.pid}/stat")
        wait_until(lambda: ") Z " in stat.read_text() or None, what="the end of the first thread", timeout=30)
        alive = cgroups.processes(group)
        cgroups.kill(group)
        left = cgroups.processes(group)
        process.kill()
    assert (alive, left) == ({process.pid}, set())
