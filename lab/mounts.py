"""Mounts of the lab, found in the kernel's table and not in notes of ours, so that a crash cannot hide one."""

from __future__ import annotations

import re
from pathlib import Path

from lab.process import run


def overlay(target: Path, *, lower: Path, upper: Path, work: Path) -> None:
    """Mount a writable layer over a read-only folder."""
    for folder in (target, upper, work):
        folder.mkdir(parents=True, exist_ok=True)
    layers = f"lowerdir={lower},upperdir={upper},workdir={work}"
    run(["mount", "-t", "overlay", "overlay", "-o", layers, str(target)])


def below(folder: Path) -> list[Path]:
    """Return the mount points in a folder, innermost first."""
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    points = [Path(re.sub(r"\\(\d{3})", lambda code: chr(int(code[1], 8)), line.split(" ")[4])) for line in lines]
    return [point for point in reversed(points) if folder in (point, *point.parents)]


def unmount_below(folder: Path) -> None:
    """Unmount everything at and below a folder."""
    for point in below(folder):
        run(["umount", str(point)])
