"""Disks of agents: what is refused, and what is written. That they bound a job is shown on real hosts."""

from __future__ import annotations

from pathlib import Path

import pytest

from plugins.modules import agent_volumes
from plugins.modules.agent_volumes import (
    Volume,
    VolumeError,
    bytes_of,
    may_grow_mounted,
    mount_name,
    mount_unit,
    too_much,
)

MIB = 2**20


@pytest.mark.parametrize(("text", "number"), [("64M", 64 * MIB), ("2G", 2048 * MIB), ("100000000", 95 * MIB)])
def test_sizes_are_whole_mebibytes(text: str, number: int) -> None:
    assert bytes_of(text) == number


@pytest.mark.parametrize("text", ["", "0", "10g", "1.5G", "-1", "10 G", "63M"])
def test_other_sizes_are_refused(text: str) -> None:
    with pytest.raises(VolumeError, match=r"limits\.disk"):
        bytes_of(text)


@pytest.mark.parametrize(
    ("workspace", "name"),
    [("/home/a1/workspace", "home-a1-workspace.mount"), ("/home/a-1/workspace", r"home-a\x2d1-workspace.mount")],
)
def test_a_mount_unit_has_the_name_that_systemd_wants(workspace: str, name: str) -> None:
    assert mount_name(Path(workspace)) == name


def test_a_disk_gives_no_privileges() -> None:
    options = next(line for line in mount_unit("a", Path("/w")).splitlines() if line.startswith("Options="))
    assert {"nosuid", "nodev"} <= set(options.removeprefix("Options=").split(","))


@pytest.mark.parametrize(
    ("existing", "wanted", "free", "fits"),
    [
        ([0, 0], [100, 100], 200, True),
        ([0, 0], [100, 100], 199, False),
        ([100, 0], [100, 100], 100, True),  # what is taken already counts for it
        ([100, 100], [100, 100], 0, True),  # nothing is to grow: the host may be full of other things
        ([100, 100], [100, 101], 0, False),
    ],
)
def test_disks_that_the_host_cannot_hold_are_refused(
    existing: list[int], wanted: list[int], free: int, fits: bool, tmp_path: Path
) -> None:
    sizes = {}
    for number, (now, then) in enumerate(zip(existing, wanted, strict=True)):
        file = tmp_path / str(number)
        if now:
            file.write_bytes(bytes(now * MIB // 100))
        sizes[file] = then * MIB // 100
    assert (too_much(sizes, free * MIB // 100) is None) is fits


@pytest.mark.parametrize(
    ("effective", "may"),
    [("000001ffffffffff", True), ("000001fffeffffff", False), ("0000000001000000", True), ("0000000000800000", False)],
)
def test_who_may_grow_a_mounted_disk_is_told_by_a_capability(effective: str, may: bool) -> None:
    assert may_grow_mounted(f"CapInh:\t0000000001000000\nCapEff:\t{effective}\nCapBnd:\t000001ffffffffff\n") is may


def test_a_disk_is_not_made_smaller(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(agent_volumes, "FILES", tmp_path)
    (tmp_path / "nobody.ext4").write_bytes(bytes(2 * MIB))
    volume = Volume("nobody", [], check_mode=True)
    volume.refuse_less(2 * MIB)
    with pytest.raises(VolumeError, match=r"limits\.disk is 1M, and its disk has 2M"):
        volume.refuse_less(MIB)
