"""The official client's own answers of the API: fixtures of its tests, from its source distribution.

Nothing of them is kept here. The archive is fetched once, by the hash in requirements/dev.txt, into the lab's cache.
"""

from __future__ import annotations

import re
import runpy
import subprocess
import sys
import tarfile
import tempfile
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from lab import folders
from lab.process import PROJECT

_SECONDS = 300


@cache
def archive() -> Path | str:
    """Return the source distribution of the installed client, or why it cannot be had."""
    name = f"hcloud-{version('hcloud')}"
    kept = folders.cache() / name / f"{name}.tar.gz"
    if not kept.exists():
        kept.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=kept.parent) as scratch:
            said = _download(Path(scratch))
            found = Path(scratch) / kept.name
            if not found.exists():
                return f"{name}'s source cannot be had from the package registry: {said}"
            found.rename(kept)
    return kept


def _download(folder: Path) -> str:
    """Fetch the source distribution whose hash is locked, and return the last line that pip wrote."""
    lock = (PROJECT / "requirements/dev.txt").read_text()
    entry = re.search(r"^hcloud==(?:.*\\\n)*.*", lock, re.MULTILINE)
    assert entry, "requirements/dev.txt does not lock hcloud"
    wanted = folder / "wanted.txt"
    wanted.write_text(entry[0])
    options = ["--no-deps", "--no-binary=:all:", "--require-hashes", f"--dest={folder}", f"--requirement={wanted}"]
    try:
        done = subprocess.run(
            [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", *options],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return f"no end after {_SECONDS} s"
    return (done.stderr.strip().splitlines() or [""])[-1]


def answer(source: Path, kind: str, fixture: str) -> Any:
    """Return what a fixture of tests/unit/KIND/conftest.py of the source distribution gives."""
    with tarfile.open(source) as opened:
        folder = source.name.removesuffix(".tar.gz")
        member = opened.extractfile(f"{folder}/tests/unit/{kind}/conftest.py")
        assert member
        text = member.read()
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "conftest.py"
        path.write_bytes(text)
        return runpy.run_path(str(path))[fixture].__wrapped__()
