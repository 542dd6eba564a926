"""`scripts/setup` refuses what it cannot mend, before it changes anything, and says what to do."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

_PROJECT = Path(__file__).resolve().parents[3]
_TOOLS = ("sh", "dirname", "uname", "id", "grep", "date", "sudo", "apt-get", "dpkg-query", "modprobe", "paste")


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A folder with nothing but the script, so that whatever it makes can be seen."""
    (tmp_path / "project/scripts").mkdir(parents=True)
    shutil.copy(_PROJECT / "scripts/setup", tmp_path / "project/scripts/setup")
    return tmp_path / "project"


def _tools(folder: Path, *, without: tuple[str, ...] = (), fakes: dict[str, str]) -> str:
    """Return a PATH with the usual tools, some missing and some that say something else."""
    folder.mkdir()
    for tool in _TOOLS:
        where = shutil.which(tool)
        if tool not in without and tool not in fakes and where:
            (folder / tool).symlink_to(where)
    for tool, script in {"apt-get": "exit 9", "modprobe": "exit 1", **fakes}.items():
        if tool in without:
            continue
        (folder / tool).unlink(missing_ok=True)
        (folder / tool).write_text(f"#!/bin/sh\n{script}\n")
        (folder / tool).chmod(0o755)
    return str(folder)


def _setup(project: Path, path: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(Path(path, "sh")), str(project / "scripts/setup")],
        env={"PATH": path, "HOME": str(project.parent)},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize(
    ("without", "fakes", "said"),
    [
        ((), {"uname": "echo Darwin"}, "the lab needs Linux, and this is Darwin; use"),
        (("apt-get",), {}, "neither Debian nor Ubuntu"),
        (("sudo",), {"id": "echo 1000"}, "not root and there is no sudo; run this as root"),
        ((), {"id": "echo 0", "grep": "exit 1"}, "no overlayfs; use a kernel with CONFIG_OVERLAY_FS"),
        ((), {"id": "echo 0", "grep": "exit 0", "python3": "exit 1"}, "Python 3.11 or later is needed"),
    ],
)
def test_what_cannot_be_mended_is_refused(
    project: Path, tmp_path: Path, without: tuple[str, ...], fakes: dict[str, str], said: str
) -> None:
    path = _tools(tmp_path / "tools", without=without, fakes=fakes)
    done = _setup(project, path)
    assert done.returncode == 1
    assert said in done.stderr
    assert done.stderr.count("\n") == 1
    assert done.stdout == ""
    assert [path.name for path in project.iterdir()] == ["scripts"]


def test_what_will_be_installed_is_said_first(project: Path, tmp_path: Path) -> None:
    path = _tools(tmp_path / "tools", fakes={"id": "echo 0", "dpkg-query": "echo not-installed", "grep": "exit 0"})
    done = _setup(project, path)
    # The fake apt-get fails: what was said before it is all there is.
    assert done.returncode == 9
    assert done.stdout.startswith("installing with apt: curl debian-archive-keyring ")
