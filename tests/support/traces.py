"""What a program could leave on a machine: mounts, namespaces, links, rules, control groups, processes, files."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from lab import folders

_PROJECT = Path(__file__).resolve().parents[2]
_TREES = [Path("/", name) for name in ("etc", "home", "media", "mnt", "opt", "root", "run", "srv", "tmp", "usr", "var")]
# Deep enough for what programs keep in /etc, /var and a home folder; toolchains in a home folder are not walked whole.
_DEPTH = 5


def take(*, ignored: Path) -> set[str]:
    """Return everything of those kinds that is there now, a line each, save below a folder of the test's own."""
    skipped = {folders.cache().parent, _PROJECT, ignored}
    return {
        *(f"mount {line.split(' ')[4]}" for line in Path("/proc/self/mountinfo").read_text().splitlines()),
        *(f"link {line.split(':')[1].strip()}" for line in _lines("ip", "-oneline", "link")),
        *(f"nft {line}" for line in _lines("nft", "list", "tables")),
        *(f"cgroup {folder}" for folder, _, _ in os.walk("/sys/fs/cgroup")),
        *(f"file {path}" for tree in _TREES for path in _files(tree, skipped)),
        *_processes(),
    }


def _processes() -> set[str]:
    """Return processes that are not this one's, its forebears' or dead, and the network namespaces of all."""
    found: set[str] = set()
    for process in Path("/proc").glob("[0-9]*"):
        try:
            state = (process / "stat").read_text().rpartition(")")[2].split()[0]
            command = (process / "cmdline").read_text().replace("\0", " ")
            namespace = (process / "ns/net").readlink()
        except OSError:
            continue
        if state != "Z" and command:
            found |= {f"process {process.name} {command}", f"namespace {namespace}"}
    return found


def _files(tree: Path, skipped: set[Path]) -> set[Path]:
    found: set[Path] = set()
    for folder, names, files in os.walk(tree):
        names[:] = [name for name in names if Path(folder, name) not in skipped]
        found.update(Path(folder, name) for name in (*names, *files))
        if len(Path(folder).parts) >= _DEPTH:
            names.clear()
    return found


def _lines(*argv: str) -> list[str]:
    if shutil.which(argv[0]) is None:
        return []
    return subprocess.run(argv, capture_output=True, text=True, timeout=30, check=True).stdout.splitlines()
