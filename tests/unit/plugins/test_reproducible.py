"""The same commit gives the same archive on another day, in another place, by another person."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[3]
# Python runs this at its start, in the build and in the pip that it calls.
WORLD = """
import os, time
offset, backwards = float(os.environ["DAYS"]) * 86400, os.environ["ORDER"] == "backwards"
now, scandir, listdir = time.time, os.scandir, os.listdir
time.time = lambda: now() + offset
time.time_ns = lambda: int(time.time() * 1e9)

class Scan:
    def __init__(self, path="."):
        with scandir(path) as entries:
            self.entries = iter(sorted(entries, key=lambda entry: os.fsencode(entry.name), reverse=backwards))
    def __iter__(self): return self
    def __next__(self): return next(self.entries)
    def __enter__(self): return self
    def __exit__(self, *_): pass
    def close(self): pass

os.scandir = Scan
os.listdir = lambda path=".": sorted(listdir(path), key=os.fsencode, reverse=backwards)
os.umask(int(os.environ["UMASK"], 8))
"""
BUILD = """
import sys
from pathlib import Path
from plugins.artefact import Target, provide
built = provide(Path(sys.argv[1]), sys.argv[2], Target("3.11", "x86_64"), Path(sys.argv[3]))
print(built.release, built.path)
"""
HERE = {"DAYS": "0", "ORDER": "forwards", "UMASK": "022", "TZ": "UTC", "LC_ALL": "C", "PYTHONHASHSEED": "1"}
ELSEWHERE = {
    "DAYS": "400",
    "ORDER": "backwards",
    "UMASK": "077",
    "TZ": "Pacific/Kiritimati",
    "LC_ALL": "C.UTF-8",
    "PYTHONHASHSEED": "2",
}


def build(app: str, place: Path, world: dict[str, str], changed: float) -> tuple[str, bytes]:
    """Build from a checkout of its own whose files changed at that time; return the release's name and the archive."""
    checkout, start = place / "checkout", place / "start"
    shutil.copytree(PROJECT / f"{app}_app", checkout / f"{app}_app")
    shutil.copytree(PROJECT / "requirements", checkout / "requirements")
    shutil.copytree(PROJECT / "plugins", checkout / "plugins")
    for path in checkout.rglob("*"):
        os.utime(path, (changed, changed))
    start.mkdir()
    (start / "sitecustomize.py").write_text(WORLD)
    environment = {**os.environ, **world, "PYTHONPATH": f"{start}:{checkout}", "HOME": str(place)}
    done = subprocess.run(
        [sys.executable, "-c", BUILD, str(checkout), app, str(place / "cache")],
        cwd=place,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    release, archive = done.stdout.split()
    return release, Path(archive).read_bytes()


@pytest.mark.parametrize("app", ["broker", "runner"])
def test_two_builds_are_the_same(tmp_path: Path, app: str) -> None:
    one = build(app, tmp_path / "one", HERE, changed=1e9)
    two = build(app, tmp_path / "elsewhere", ELSEWHERE, changed=1.7e9)

    assert one[0] == two[0]
    assert hashlib.sha256(one[1]).hexdigest() == hashlib.sha256(two[1]).hexdigest()
