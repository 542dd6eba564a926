"""What a program could leave on a machine: mounts, namespaces, links, rules, loop devices, control groups, processes,
files."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from lab import folders

_PROJECT = Path(__file__).resolve().parents[2]
# Everybody works in these; there, only what the programs that we run call their own files counts.
_SHARED = (Path("/", "tmp"), Path("/", "var", "tmp"))
_TREES = [
    *_SHARED,
    *(Path("/", name) for name in ("etc", "home", "media", "mnt", "opt", "root", "run", "srv", "usr", "var")),
]
# Deep enough for what programs keep in /etc, /var and a home folder; toolchains in a home folder are not walked whole.
_DEPTH = 5
_SCRATCH = ("ansible", "mmdebstrap", "openclaw", "pip-", "ssh-", "tmp")


def take(lab: str, *, ignored: Path) -> set[str]:
    """Return everything of those kinds that is there now, a line each.

    What belongs to other labs, and files, mounts and loop devices below `ignored`, where other tests work meanwhile, do
    not count. Processes count where they are in the lab's control groups or were started with its name in their
    environment.
    """
    skipped = {folders.cache().parent, _PROJECT, ignored}
    seen = {
        *(f"mount {target}" for target in _mounts() if not Path(target).is_relative_to(ignored)),
        *(f"link {line.split(':')[1].strip()}" for line in _lines("ip", "-oneline", "link")),
        *(f"nft {line}" for line in _lines("nft", "list", "tables")),
        *(f"loop device of {file}" for file in _loops() if not Path(file).is_relative_to(ignored)),
        *(f"cgroup {folder}" for folder, _, _ in os.walk("/sys/fs/cgroup") if "openclaw" in folder),
        *(f"file {path}" for tree in _TREES for path in _files(tree, skipped)),
        *(f"process {pid}" for pid in _processes(lab)),
    }
    return {line for line in seen if "openclaw-lab/" not in line or f"openclaw-lab/{lab}" in line}


def named(lab: str, *, ignored: Path) -> set[str]:
    """Return what is there and bears the lab's name: all that can be told while other tests work beside."""
    return {line for line in take(lab, ignored=ignored) if lab in line or line.startswith("process ")}


def _mounts() -> list[str]:
    return [line.split(" ")[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]


def _loops() -> list[str]:
    return _lines("losetup", "--noheadings", "--output=BACK-FILE")


def _processes(lab: str) -> set[str]:
    found: set[str] = set()
    for process in Path("/proc").glob("[0-9]*"):
        try:
            alive = (process / "stat").read_text().rpartition(")")[2].split()[0] != "Z"
            environment = (process / "environ").read_text(errors="replace").split("\0")
            groups = (process / "cgroup").read_text()
            command = (process / "cmdline").read_text().replace("\0", " ")
        except OSError:
            continue
        if alive and (f"OPENCLAW_LAB={lab}" in environment or f"openclaw-lab/{lab}/" in groups):
            found.add(f"{process.name} {command}")
    return found


def _files(tree: Path, skipped: set[Path]) -> set[Path]:
    if tree in _SHARED:
        return {path for path in tree.iterdir() if path.name.startswith(_SCRATCH) and path not in skipped}
    found: set[Path] = set()
    for folder, names, files in os.walk(tree):
        names[:] = [name for name in names if Path(folder, name) not in {*skipped, *_SHARED}]
        found.update(Path(folder, name) for name in (*names, *files))
        if len(Path(folder).parts) >= _DEPTH:
            names.clear()
    return found


def _lines(*argv: str) -> list[str]:
    if shutil.which(argv[0]) is None:
        return []
    return subprocess.run(argv, capture_output=True, text=True, timeout=30, check=True).stdout.splitlines()
