"""Disks of agents: what is refused, and what is written. That they bound a job is shown on real hosts."""

from __future__ import annotations

import os
import pwd
from pathlib import Path

import pytest

from plugins.module_utils.agents import AgentError
from plugins.modules import agent_volumes
from plugins.modules.agent_volumes import (
    RESERVE,
    Volume,
    may_grow_mounted,
    mount_name,
    mount_unit,
    size_of,
    too_much,
)

MIB = 2**20


@pytest.mark.parametrize(("text", "number"), [("64M", 64 * MIB), ("2G", 2048 * MIB), ("100000000", 95 * MIB)])
def test_sizes_are_whole_mebibytes(text: str, number: int) -> None:
    assert size_of(text) == number


@pytest.mark.parametrize("text", ["0", "63M"])
def test_other_sizes_are_refused(text: str) -> None:
    with pytest.raises(AgentError, match=r"limits\.disk"):
        size_of(text)


@pytest.mark.parametrize(
    ("workspace", "name"),
    [("/home/a1/workspace", "home-a1-workspace.mount"), ("/home/a-1/workspace", r"home-a\x2d1-workspace.mount")],
)
def test_a_mount_unit_has_the_name_that_systemd_wants(workspace: str, name: str) -> None:
    assert mount_name(Path(workspace)) == name


def test_a_disk_gives_no_privileges_and_turns_read_only_on_errors() -> None:
    options = next(line for line in mount_unit("a", Path("/w")).splitlines() if line.startswith("Options="))
    assert {"nosuid", "nodev", "errors=remount-ro"} <= set(options.removeprefix("Options=").split(","))


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
    assert (too_much(sizes, RESERVE + free * MIB // 100) is None) is fits


@pytest.mark.parametrize(
    ("effective", "may"),
    [("000001ffffffffff", True), ("000001fffeffffff", False), ("0000000001000000", True), ("0000000000800000", False)],
)
def test_who_may_grow_a_mounted_disk_is_told_by_a_capability(effective: str, may: bool) -> None:
    assert may_grow_mounted(f"CapInh:\t0000000001000000\nCapEff:\t{effective}\nCapBnd:\t000001ffffffffff\n") is may


@pytest.fixture
def volume(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Volume:
    """The disk of an agent with an empty workspace."""
    nobody = pwd.getpwnam("nobody")
    user = pwd.struct_passwd((*nobody[:5], str(tmp_path), nobody.pw_shell))
    monkeypatch.setattr(pwd, "getpwnam", lambda _: user)
    monkeypatch.setattr(agent_volumes, "FILES", tmp_path)
    monkeypatch.setattr(agent_volumes, "UNITS", tmp_path)
    (tmp_path / "workspace").mkdir()
    os.chown(tmp_path / "workspace", user.pw_uid, user.pw_gid)
    return Volume("a1", [], check_mode=True)


def test_a_disk_is_not_made_smaller(volume: Volume) -> None:
    volume.file.write_bytes(bytes(2 * MIB))
    volume.refuse(2 * MIB)
    with pytest.raises(AgentError, match=r"limits\.disk is 1M, and its disk has 2M"):
        volume.refuse(MIB)


def test_a_disk_that_only_has_a_copy_is_made_anew_in_any_size(volume: Volume, tmp_path: Path) -> None:
    volume.file.write_bytes(bytes(2 * MIB))
    (tmp_path / "a1.moving").touch()
    volume.refuse(MIB)


@pytest.mark.parametrize("kind", ["link", "dangling", "file", "foreign"])
def test_a_workspace_that_is_no_directory_of_the_agent_is_refused(kind: str, volume: Volume, tmp_path: Path) -> None:
    workspace, elsewhere = tmp_path / "workspace", tmp_path / "elsewhere"
    if kind == "foreign":
        os.chown(workspace, 0, 0)
    elif kind == "file":
        workspace.rmdir()
        workspace.touch()
    else:
        workspace.rename(elsewhere)
        workspace.symlink_to(elsewhere if kind == "link" else "gone")
    with pytest.raises(AgentError, match="must be a directory of the agent's own"):
        volume.refuse(64 * MIB)


def test_a_link_to_another_file_system_is_no_disk(volume: Volume, tmp_path: Path) -> None:
    (tmp_path / "workspace").rmdir()
    (tmp_path / "workspace").symlink_to("/proc")
    with pytest.raises(AgentError, match="must be a directory of the agent's own"):
        volume.refuse(64 * MIB)


@pytest.mark.parametrize(("sizes", "needed"), [([7 * MIB], 9), ([1] * 600, 10), ([5 * MIB, 1], 6)])
def test_a_workspace_that_does_not_fit_is_refused(
    sizes: list[int], needed: int, volume: Volume, tmp_path: Path
) -> None:
    for number, size in enumerate(sizes):
        (tmp_path / "workspace" / str(number)).write_bytes(bytes(size))
    volume.refuse(needed * MIB)
    with pytest.raises(AgentError, match=rf"needs {needed}M"):
        volume.refuse((needed - 1) * MIB)


@pytest.mark.parametrize("moving", [True, False])
def test_files_beside_those_on_an_unmounted_disk_are_refused(moving: bool, volume: Volume, tmp_path: Path) -> None:
    """But for those that a run before had moved in."""
    volume.file.write_bytes(bytes(MIB))
    (tmp_path / mount_name(tmp_path / "workspace")).touch()
    (tmp_path / "workspace" / "file").touch()
    if moving:
        (tmp_path / "a1.moving").touch()
        volume.refuse(MIB)
    else:
        with pytest.raises(AgentError, match="has files that are not on it"):
            volume.refuse(MIB)
