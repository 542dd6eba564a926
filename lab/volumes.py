"""A cloud's volumes: sparse files that a host sees as disks, under the names that Hetzner's have there.

That a host has a volume is told by a link in a folder of the host's, which is its /dev/disk/by-id. So nothing else
need be kept, and the link is there again after each boot.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from lab import loops
from lab.errors import LabError
from lab.process import run

if TYPE_CHECKING:
    from lab.lab import Lab
    from lab.machines import Machine

_PREFIX = "scsi-0HC_Volume_"
_BY_ID = Path("/dev/disk/by-id")
_MAKE = {"ext4": ["mkfs.ext4", "-q", "-F"], "xfs": ["mkfs.xfs", "-q", "-f"]}


class Volumes:
    """The volumes of a lab's cloud, by number."""

    def __init__(self, lab: Lab) -> None:
        self._lab = lab
        self.folder = lab.folder / "cloud/volumes"

    def create(self, number: int, gigabytes: int, filesystem: str | None) -> None:
        """Make a volume where there is none, formatted with ext4 or xfs, or raw.

        Raises:
            LabError: there is no such file system, or no program that makes it.
        """
        if filesystem not in {None, *_MAKE}:
            raise LabError(f"file system {filesystem!r}: use ext4, xfs or none")
        file = self._file(number)
        if file.exists():
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        partial = file.with_suffix(".partial")
        partial.unlink(missing_ok=True)
        run(["truncate", f"--size={gigabytes}G", str(partial)])
        if filesystem:
            run([*_MAKE[filesystem], str(partial)], timeout=300)
        partial.rename(file)

    def resize(self, number: int, gigabytes: int) -> None:
        """Make a volume larger; its file system stays as it is."""
        file = self._file(number)
        if gigabytes << 30 < file.stat().st_size:
            raise LabError(f"volume {number}: a volume cannot be made smaller")
        run(["truncate", f"--size={gigabytes}G", str(file)])
        loops.grow(file)

    def delete(self, number: int) -> None:
        """Take a volume away; one that is not there is gone."""
        self.detach(number)
        self._file(number).unlink(missing_ok=True)

    def attach(self, number: int, machine: Machine) -> str:
        """Show a volume to a host, and return its path there.

        Raises:
            LabError: there is no such volume, another host has it, or one still has it mounted.
        """
        if not self._file(number).exists():
            raise LabError(f"there is no volume {number}")
        if others := [owner for owner in self._links(number) if owner.parent != machine.disks]:
            raise LabError(f"volume {number} is attached to {others[0].parent.parent.name}; detach it first")
        machine.disks.mkdir(exist_ok=True)
        _show(self._file(number), machine.disks / f"{_PREFIX}{number}")
        return str(_BY_ID / f"{_PREFIX}{number}")

    def detach(self, number: int) -> None:
        """Take a volume from its host. A host that has it mounted keeps it until that ends."""
        for link in self._links(number):
            link.unlink(missing_ok=True)
        loops.detach(self._file(number))

    def reattach(self, machine: Machine) -> None:
        """Show a host its volumes again: their devices do not outlive a reboot of the machine."""
        for number, link in _attached(machine):
            _show(self._file(number), link)

    def detach_all(self, machine: Machine) -> None:
        """Take all its volumes from a host; they stay."""
        for number, _ in _attached(machine):
            self.detach(number)

    def _links(self, number: int) -> list[Path]:
        # Not looked for by a pattern of its whole name, which would leave out links that lead nowhere on the machine.
        names = [folder / f"{_PREFIX}{number}" for folder in (self._lab.folder / "hosts").glob("*/by-id")]
        return [link for link in names if link.is_symlink()]

    def _file(self, number: int) -> Path:
        return self.folder / str(number)


def _attached(machine: Machine) -> list[tuple[int, Path]]:
    links = list(machine.disks.glob(f"{_PREFIX}*"))
    return [(int(found[1]), link) for link in links if (found := re.fullmatch(rf"{_PREFIX}(\d+)", link.name))]


def _show(file: Path, link: Path) -> None:
    partial = link.with_name(f".{link.name}")
    partial.unlink(missing_ok=True)
    partial.symlink_to(f"../../{loops.attach(file).name}")
    partial.rename(link)
