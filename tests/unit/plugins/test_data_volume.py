"""The device of a data volume, tried on loop devices of this machine."""

from __future__ import annotations

import os
import struct
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from plugins.modules import data_volume
from plugins.modules.data_volume import VolumeError

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="loop devices need root")
SIZE = 16 * 2**20
# A table with one partition of Linux's, of 2048 sectors after the first 2048.
PARTITIONS = bytes(446) + struct.pack("<B3sB3sII", 0, bytes(3), 0x83, bytes(3), 2048, 2048) + bytes(48) + b"\x55\xaa"
# The head of an array's superblock, which stands at a member's end; its first MiB may be blank.
RAID = struct.pack("<III", 0xA92B4EFC, 0, 90) + bytes(4084)


def run(*argv: str | Path) -> str:
    return subprocess.run(argv, capture_output=True, text=True, check=True).stdout.strip()


@pytest.fixture
def device(tmp_path: Path) -> Iterator[Path]:
    """A blank one, detached in the end."""
    file = tmp_path / "disk"
    file.touch()
    os.truncate(file, SIZE)
    found = run("losetup", "--find", "--show", file)
    yield Path(found)
    run("losetup", "--detach", found)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "state").mkdir()
    return tmp_path / "state"


def content(device: Path) -> bytes:
    return device.read_bytes()


def test_a_blank_device_gets_a_file_system_once(device: Path, folder: Path, run_module: Any) -> None:
    arguments = {"device": str(device), "folder": str(folder)}
    checked = run_module("data_volume", check=True, **arguments)
    blank = not any(content(device))
    first, second = (run_module("data_volume", **arguments) for _ in range(2))

    assert (checked["changed"], blank) == (True, True)
    assert (first["changed"], second["changed"]) == (True, False)
    assert run("blkid", "--probe", "--match-tag", "TYPE", "--output", "value", device) == "ext4"


@pytest.mark.parametrize("made", ["ext4", "swap", "dos", "linux_raid_member", "unknown data"])
def test_what_is_on_a_device_stays(device: Path, folder: Path, run_module: Any, made: str) -> None:
    if made == "ext4":
        run("mkfs.ext4", "-q", device)
    elif made == "swap":
        run("mkswap", device)
    elif made == "linux_raid_member":
        with device.open("r+b") as stream:
            stream.seek(SIZE - 2**16)
            stream.write(RAID)
    else:
        with device.open("r+b") as stream:
            stream.write(PARTITIONS if made == "dos" else b"\0" * 4096 + b"somebody's")
    before = content(device)
    result = run_module("data_volume", device=str(device), folder=str(folder))

    assert content(device) == before
    if made == "ext4":
        assert (result["changed"], result["filesystem"]) == (False, "ext4")
    else:
        assert f"has {made} on it" in result["msg"]


GROWN = SIZE + data_volume.UNUSED_BYTES


@pytest.fixture
def grown(device: Path, tmp_path: Path) -> Path:
    """One with a file in an ext4 that is smaller than it."""
    inside = tmp_path / "inside"
    inside.mkdir()
    (inside / "broker.db").write_text("jobs")
    run("mkfs.ext4", "-q", "-d", inside, device)
    os.truncate(tmp_path / "disk", GROWN)
    run("losetup", "--set-capacity", device)
    return device


def test_a_file_system_grows_with_its_device_once_and_keeps_its_files(
    grown: Path, folder: Path, run_module: Any
) -> None:
    arguments = {"device": str(grown), "folder": str(folder)}
    before = content(grown)
    checked = run_module("data_volume", check=True, **arguments)
    untouched = content(grown) == before
    first, second = (run_module("data_volume", **arguments) for _ in range(2))

    assert (checked["grown"], checked["changed"], untouched) == (True, True, True)
    assert (first["grown"], first["changed"], second["grown"], second["changed"]) == (True, True, False, False)
    run("mount", grown, folder)
    try:
        assert (folder / "broker.db").read_text() == "jobs"
        room = os.statvfs(folder)
        assert room.f_blocks * room.f_frsize > GROWN * 0.8
    finally:
        run("umount", folder)


def test_a_mounted_file_system_grows_or_is_said_to_have_to_be_unmounted(
    grown: Path, folder: Path, run_module: Any
) -> None:
    run("mount", grown, folder)
    try:
        result = run_module("data_volume", device=str(grown), folder=str(folder))
        if data_volume.may_grow_mounted(Path("/proc/self/status").read_text()):
            assert (result["grown"], data_volume.can_grow(grown)) == (True, False)
        else:
            assert f"Stop what uses {folder}, unmount it, and run again" in result["msg"]
            assert data_volume.can_grow(grown)
    finally:
        run("umount", folder)


def test_files_that_it_would_hide_are_refused(device: Path, folder: Path, run_module: Any) -> None:
    (folder / "broker.db").touch()
    result = run_module("data_volume", device=str(device), folder=str(folder))

    assert "has files, which" in result["msg"]
    assert not any(content(device))


def test_a_folder_on_which_it_is_mounted_is_taken_for_its(device: Path, folder: Path) -> None:
    run("mkfs.ext4", "-q", device)
    run("mount", device, folder)
    try:
        (folder / "broker.db").touch()
        data_volume.check_folder(device, folder)
    finally:
        run("umount", folder)


def test_a_folder_on_which_something_else_is_mounted_is_refused(device: Path, folder: Path) -> None:
    run("mount", "-t", "tmpfs", "tmpfs", folder)
    try:
        with pytest.raises(VolumeError, match="something other than"):
            data_volume.check_folder(device, folder)
    finally:
        run("umount", folder)


@pytest.mark.parametrize(("name", "said"), [("missing", "is the volume attached"), ("file", "is no block device")])
def test_what_is_no_device_is_refused(tmp_path: Path, name: str, said: str) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(VolumeError, match=said):
        data_volume.read(tmp_path / name)
