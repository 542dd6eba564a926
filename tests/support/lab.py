"""A lab for tests, used through its command line as a person would."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from lab.lab import Lab, checkout
from tests.support import programs

if TYPE_CHECKING:
    import subprocess

    from lab.machines import Machine

PROJECT = Path(__file__).resolve().parents[2]
# The nodes that inventory/group_vars declares agents for, as (name, image, group): hosts of one's own, not a cloud's.
NODES = (
    ("broker-1", "debian-12", "brokers"),
    ("agents-1", "debian-12", "runners"),
    ("agents-2", "debian-13", "runners"),
)


def missing() -> str | None:
    """Return what this machine lacks for a lab, or None."""
    if sys.platform != "linux":
        return f"the lab needs Linux, this is {sys.platform}"
    if os.geteuid() != 0:
        return "the lab needs root"
    lacking = [program for program in ("systemd-nspawn", "mmdebstrap", "nsenter", "nc") if not shutil.which(program)]
    if lacking:
        return f"the lab needs {', '.join(lacking)}: run scripts/setup"
    if "overlay" not in Path("/proc/filesystems").read_text():
        return "the lab needs overlayfs"
    return None


class TestLab:
    """A lab for one purpose of this checkout's tests: commands on it, and its hosts."""

    __test__ = False

    def __init__(self, purpose: str) -> None:
        self.name = f"{purpose}-{checkout()}"
        self.lab = Lab(self.name)

    def command(self, *arguments: str, timeout: float = 300) -> subprocess.CompletedProcess[str]:
        return programs.run([sys.executable, "-m", "lab", "--lab", self.name, *arguments], timeout=timeout)

    def run(self, *arguments: str, timeout: float = 300) -> str:
        """Run a command that must succeed."""
        done = self.command(*arguments, timeout=timeout)
        assert done.returncode == 0, f"lab {' '.join(arguments)}: {done.stderr}"
        return done.stdout

    def machine(self, name: str) -> Machine:
        return self.lab.machine(name)
