from __future__ import annotations

import hashlib
import io
import os
import stat
import tarfile
from typing import TYPE_CHECKING, Any

import pytest

from plugins import artefact
from plugins.modules import release

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Run = Callable[..., dict[str, Any]]
    Install = Callable[..., dict[str, Any]]


@pytest.fixture
def install(tmp_path: Path, run_module: Run) -> Install:
    """Install a release of a small app, as the action does after it copied the archive."""

    def run(name: str = "1-a", *, src: bool = True, check: bool = False, **more: Any) -> dict[str, Any]:
        files = {"lib/app/__init__.py": f"NAME = '{name}'\n".encode(), "bin/app": b"#!/bin/sh\n"}
        packed = artefact.pack({**files, "MANIFEST": artefact.manifest(files)})
        archive = tmp_path / f"{name}.tgz"
        archive.write_bytes(packed)
        arguments = {
            "app": "broker",
            "root": str(tmp_path / "releases"),
            "links": [str(tmp_path / "app")],
            "name": name,
            "sha256": hashlib.sha256(packed).hexdigest(),
            **({"src": str(archive)} if src else {}),
            **more,
        }
        return run_module("release", check=check, **arguments)

    return run


def current(tmp_path: Path, link: str = "current") -> str:
    return (tmp_path / "app" / link).readlink().name


def test_a_host_without_the_release_says_so_and_stays_as_it_is(tmp_path: Path, install: Install) -> None:
    result = install(src=False)

    assert (result["missing"], result["changed"]) == (True, True)
    assert not (tmp_path / "releases").exists()
    assert not (tmp_path / "app").exists()


def test_installs_once_and_then_changes_nothing(tmp_path: Path, install: Install) -> None:
    first = install()
    second = install(src=False)

    assert (first["changed"], first["missing"]) == (True, False)
    assert first["path"] == str(tmp_path / "releases/1-a")
    assert (second["changed"], second["missing"]) == (False, False)
    assert current(tmp_path) == "1-a"
    assert not (tmp_path / "app/previous").is_symlink()


def test_a_release_is_compiled_and_read_only(tmp_path: Path, install: Install) -> None:
    install()

    everything = [tmp_path / "releases/1-a", *(tmp_path / "releases/1-a").rglob("*")]
    assert [path for path in everything if path.suffix == ".pyc"]
    assert not [path for path in everything if stat.S_IMODE(path.stat().st_mode) & 0o222]


def test_the_next_release_remembers_the_one_before(tmp_path: Path, install: Install) -> None:
    install("1-a")
    result = install("1-b")

    assert (current(tmp_path), current(tmp_path, "previous")) == ("1-b", "1-a")
    assert "current -> " in result["diff"]["after"]
    assert result["diff"]["before"].endswith("releases/1-a\n")


def test_check_mode_switches_nothing(tmp_path: Path, install: Install) -> None:
    install("1-a")
    install("1-b", links=[])

    result = install("1-b", src=False, check=True)

    assert result["changed"] is True
    assert current(tmp_path) == "1-a"


@pytest.mark.parametrize("path", ["", "lib/app", "lib/app/__init__.py", "bin/app"])
def test_a_release_that_can_be_written_to_is_replaced(tmp_path: Path, install: Install, path: str) -> None:
    install()
    (tmp_path / "releases/1-a" / path).chmod(0o755)

    assert install(src=False)["missing"] is True
    assert install()["changed"] is True
    assert not (tmp_path / "releases/1-a" / path).stat().st_mode & 0o222


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_a_release_that_is_somebody_elses_is_replaced(tmp_path: Path, install: Install) -> None:
    install()
    file = tmp_path / "releases/1-a/lib/app/__init__.py"
    os.chown(file, 65534, 65534)

    assert install(src=False)["missing"] is True
    assert install()["changed"] is True
    assert file.stat().st_uid == 0


def flip(file: Path) -> None:
    """Change one bit in the middle of a file, and nothing else."""
    mode, content = file.stat().st_mode, bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.chmod(0o644)
    file.write_bytes(content)
    file.chmod(mode)


def next_release(tmp_path: Path, install: Install) -> dict[str, Any]:
    """Install 1-a, and return the parameters that would install 1-b over it."""
    install("1-a")
    install("1-b", src=False)
    archive = tmp_path / "1-b.tgz"
    sha256 = hashlib.sha256(archive.read_bytes()).hexdigest()
    places = {"root": str(tmp_path / "releases"), "links": [str(tmp_path / "app")], "src": str(archive)}
    return {"name": "1-b", "sha256": sha256, "protect": [], "keep": 3, **places}


def test_a_flipped_bit_in_the_archive_is_refused_and_nothing_switches(tmp_path: Path, install: Install) -> None:
    params = next_release(tmp_path, install)
    flip(tmp_path / "1-b.tgz")

    with pytest.raises(release.ReleaseError, match="checksum"):
        release.run(params, check_mode=False)
    assert current(tmp_path) == "1-a"
    assert not (tmp_path / "releases/1-b").exists()


@pytest.mark.parametrize("file", ["lib/app/__init__.py", "lib/app/__pycache__/__init__.*.pyc", "bin/app"])
def test_a_flipped_bit_on_the_way_to_the_disk_is_found_before_the_switch(
    tmp_path: Path, install: Install, monkeypatch: pytest.MonkeyPatch, file: str
) -> None:
    params = next_release(tmp_path, install)

    def disk_loses_a_bit() -> None:
        for path in tmp_path.glob(f"releases/1-b.partial/{file}"):
            flip(path)

    with monkeypatch.context() as patch:
        patch.setattr(os, "sync", disk_loses_a_bit)
        with pytest.raises(release.ReleaseError, match="not what was unpacked"):
            release.run(params, check_mode=False)
    assert current(tmp_path) == "1-a"
    assert not (tmp_path / "releases/1-b").exists()
    release.run(params, check_mode=False)
    assert current(tmp_path) == "1-b"


@pytest.mark.parametrize("damage", ["edit", "remove", "add", "compiled"])
def test_a_damaged_release_is_missing_and_is_replaced(tmp_path: Path, install: Install, damage: str) -> None:
    install()
    file = tmp_path / "releases/1-a/lib/app/__init__.py"
    file.parent.chmod(0o755)
    if damage == "edit":
        flip(file)
    elif damage == "remove":
        file.unlink()
    elif damage == "add":
        (file.parent / "more.py").touch(mode=0o444)
    else:
        flip(next(file.parent.glob("__pycache__/*.pyc")))
    file.parent.chmod(0o555)

    assert install(src=False)["missing"] is True
    assert install()["changed"] is True
    assert file.read_text() == "NAME = '1-a'\n"
    assert sorted(path.name for path in (tmp_path / "releases").iterdir()) == [".lock", "1-a"]


def test_an_archive_with_another_checksum_is_refused(tmp_path: Path, install: Install) -> None:
    result = install(sha256="0" * 64)

    assert result["failed"] is True
    assert "checksum" in result["msg"]
    assert not (tmp_path / "releases/1-a").exists()
    assert not (tmp_path / "app").exists()


@pytest.mark.parametrize("name", ["../outside", "/outside", "lib/../../outside"])
def test_a_member_outside_the_release_is_refused(tmp_path: Path, name: str) -> None:
    archive = tmp_path / "a.tgz"
    archive.write_bytes(artefact.pack({name: b"x"}))
    folder = tmp_path / "in/side"
    folder.mkdir(parents=True)

    with pytest.raises(release.ReleaseError, match="not a plain file"):
        release.unpack(archive, hashlib.sha256(archive.read_bytes()).hexdigest(), folder)
    assert not list(tmp_path.rglob("outside"))


def test_a_link_as_member_is_refused(tmp_path: Path) -> None:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as opened:
        member = tarfile.TarInfo("lib/l")
        member.type, member.linkname = tarfile.SYMTYPE, "/etc/passwd"
        opened.addfile(member)
    archive = tmp_path / "a.tgz"
    archive.write_bytes(packed.getvalue())

    with pytest.raises(release.ReleaseError, match="not a plain file"):
        release.unpack(archive, hashlib.sha256(archive.read_bytes()).hexdigest(), tmp_path)


def test_what_an_interrupted_run_left_is_cleared(tmp_path: Path, install: Install) -> None:
    leftover = tmp_path / "releases/1-a.partial/lib"
    leftover.mkdir(parents=True)
    (leftover / "half").touch()
    leftover.chmod(0o555)

    install()

    assert not (tmp_path / "releases/1-a.partial").exists()
    assert not list((tmp_path / "releases/1-a").rglob("half"))


def test_three_releases_stay(tmp_path: Path, install: Install) -> None:
    for name in ("1-a", "1-b", "1-c", "1-d", "1-e"):
        install(name)

    assert kept(tmp_path) == ["1-c", "1-d", "1-e"]


def kept(tmp_path: Path) -> list[str]:
    return sorted(path.name for path in (tmp_path / "releases").iterdir() if path.is_dir())


def test_a_release_that_another_link_points_to_stays(tmp_path: Path, install: Install) -> None:
    install("1-a", links=[str(tmp_path / "other")])
    for name in ("1-b", "1-c", "1-d", "1-e"):
        install(name, protect=[str(tmp_path / "*/current"), str(tmp_path / "*/previous")])

    assert kept(tmp_path) == ["1-a", "1-c", "1-d", "1-e"]


def test_a_release_that_a_running_job_names_stays(tmp_path: Path) -> None:
    root = tmp_path / "releases"
    for age, name in enumerate(("1-a", "1-b", "1-c")):
        (root / name).mkdir(parents=True)
        os.utime(root / name, (age, age))
    units = tmp_path / "system/run/user/1001/systemd/user"
    units.mkdir(parents=True)
    (units / "job-1.service").write_text(f"[Service]\nExecStopPost={root}/1-a/bin/post\n")

    assert release.superfluous(root, 1, [], tmp_path / "system") == [root / "1-b"]
