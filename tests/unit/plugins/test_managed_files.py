from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING, Any

import pytest

from plugins.modules import managed_files
from plugins.modules.managed_files import PlacementError, State

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Run = Callable[..., dict[str, Any]]


def mode(path: Path) -> str:
    return f"{stat.S_IMODE(path.lstat().st_mode):04o}"


def entry(path: Path, **more: Any) -> dict[str, Any]:
    return {"path": str(path), **more}


def test_places_everything_once_and_then_nothing(tmp_path: Path, run_module: Run, mine: dict[str, str]) -> None:
    files = [
        entry(tmp_path / "d", state="directory", mode="0750", **mine),
        entry(tmp_path / "d/f", content="one\n", mode="0640", **mine),
        entry(tmp_path / "d/l", state="link", target="f"),
        entry(tmp_path / "gone", state="absent"),
    ]
    (tmp_path / "gone").mkdir()
    (tmp_path / "gone/inside").touch()

    first = run_module("managed_files", files=files)
    second = run_module("managed_files", files=files)

    assert first["changed_paths"] == [file["path"] for file in files]
    assert (tmp_path / "d/l").read_text() == "one\n"
    assert (mode(tmp_path / "d"), mode(tmp_path / "d/f")) == ("0750", "0640")
    assert not (tmp_path / "gone").exists()
    assert second["changed"] is False
    assert second["changed_paths"] == []


def test_a_program_goes_and_the_difference_is_text(tmp_path: Path) -> None:
    program = tmp_path / "program"
    program.write_bytes(b"\x7fELF\x90")

    shown = managed_files.describe(str(program), managed_files.read(program), State("absent"))

    assert "(5 characters, not text)" in shown["before"]
    shown["before"].encode()


def test_a_shared_directory_goes_when_its_last_user_has_left(tmp_path: Path, run_module: Run) -> None:
    shared = tmp_path / "shared"
    (shared / "mine").mkdir(parents=True)
    (shared / "theirs").touch()
    files = [
        entry(shared / "mine", state="absent"),
        entry(shared, state="vacated"),
        entry(tmp_path / "never", state="vacated"),
    ]

    assert run_module("managed_files", files=files)["changed_paths"] == [str(shared / "mine")]
    (shared / "theirs").unlink()
    assert run_module("managed_files", check=True, files=files)["changed_paths"] == [str(shared)]
    assert shared.is_dir()
    assert run_module("managed_files", files=files)["changed_paths"] == [str(shared)]
    assert not shared.exists()


def test_check_mode_tells_the_change_and_makes_none(tmp_path: Path, run_module: Run, mine: dict[str, str]) -> None:
    path = tmp_path / "f"
    path.write_text("old\n")
    path.chmod(0o600)
    files = [
        entry(path, content="new\n", mode="0600", **mine),
        entry(tmp_path / "later/f", content="", mode="0600", owner="nobody-yet", group="nobody-yet"),
    ]

    result = run_module("managed_files", check=True, files=files)

    assert result["changed_paths"] == [str(path), str(tmp_path / "later/f")]
    assert (result["diff"][0]["before"], result["diff"][0]["after"]) == ("old\n", "new\n")
    assert path.read_text() == "old\n"
    assert not (tmp_path / "later").exists()


@pytest.mark.parametrize(
    ("damage", "expected"),
    [
        (lambda path: path.write_text("edited\n"), "kept\n"),
        (lambda path: path.chmod(0o666), "kept\n"),
        (lambda path: path.unlink(), "kept\n"),
    ],
    ids=["content", "mode", "removed"],
)
def test_repairs_what_was_changed_by_hand(
    tmp_path: Path, run_module: Run, mine: dict[str, str], damage: Callable[[Path], Any], expected: str
) -> None:
    path = tmp_path / "f"
    files = [entry(path, content="kept\n", mode="0640", **mine)]
    run_module("managed_files", files=files)
    damage(path)

    result = run_module("managed_files", files=files)

    assert result["changed_paths"] == [str(path)]
    assert (path.read_text(), mode(path)) == (expected, "0640")


def test_a_mode_alone_is_repaired_without_a_new_file(tmp_path: Path, run_module: Run, mine: dict[str, str]) -> None:
    path = tmp_path / "f"
    path.write_text("same\n")
    path.chmod(0o666)
    before = path.stat()

    result = run_module("managed_files", files=[entry(path, content="same\n", mode="0640", **mine)])

    assert result["changed"] is True
    assert (path.stat().st_ino, path.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    assert "same" in result["diff"][0]["before"]
    assert "0666" in result["diff"][0]["before"]


def test_a_file_without_content_keeps_its_own(tmp_path: Path, run_module: Run, mine: dict[str, str]) -> None:
    path = tmp_path / "token"
    path.write_text("secret")
    path.chmod(0o644)

    result = run_module("managed_files", files=[entry(path, mode="0400", **mine)])

    assert result["changed"] is True
    assert (path.read_text(), mode(path)) == ("secret", "0400")


def test_a_file_without_content_must_exist(tmp_path: Path, run_module: Run, mine: dict[str, str]) -> None:
    result = run_module("managed_files", files=[entry(tmp_path / "token", mode="0400", **mine)])

    assert result["failed"] is True
    assert "does not exist" in result["msg"]
    assert not (tmp_path / "token").exists()


def test_a_refused_file_leaves_the_old_one(tmp_path: Path, run_module: Run, mine: dict[str, str]) -> None:
    path = tmp_path / "f"
    path.write_text("good\n")
    files = [entry(path, content="bad\n", mode="0644", validate="grep --quiet good %s", **mine)]

    result = run_module("managed_files", files=files)

    assert result["failed"] is True
    assert "refused by 'grep" in result["msg"]
    assert path.read_text() == "good\n"
    assert [child.name for child in tmp_path.iterdir()].count("f") == 1
    assert not [child for child in tmp_path.iterdir() if child.name.startswith(".f.")]


def test_validate_may_hold_the_path_within_a_word(tmp_path: Path, run_module: Run, mine: dict[str, str]) -> None:
    files = [entry(tmp_path / "f", content="good\n", mode="0644", validate="grep --file=%s /etc/hostname", **mine)]

    assert "refused by" in run_module("managed_files", files=files)["msg"]


def test_a_link_in_the_way_is_not_followed(tmp_path: Path, run_module: Run, mine: dict[str, str]) -> None:
    victim = tmp_path / "victim"
    victim.mkdir(mode=0o700)
    (tmp_path / "d").symlink_to(victim)

    result = run_module("managed_files", files=[entry(tmp_path / "d", state="directory", mode="0777", **mine)])

    assert result["failed"] is True
    assert "there is a link where a directory belongs" in result["msg"]
    assert mode(victim) == "0700"


def test_removing_a_link_keeps_what_it_points_to(tmp_path: Path, run_module: Run) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "d/f").touch()
    (tmp_path / "l").symlink_to("d")

    run_module("managed_files", files=[entry(tmp_path / "l", state="absent")])

    assert not (tmp_path / "l").is_symlink()
    assert (tmp_path / "d/f").exists()


def test_a_reader_never_sees_half_a_file(tmp_path: Path, mine: dict[str, str]) -> None:
    path = tmp_path / "f"
    path.write_text("old")
    with path.open() as reader:
        managed_files.place(
            path, managed_files.read(path), State("file", content="new", mode="0600", **mine), validate=None
        )
        assert reader.read() == "old"
    assert path.read_text() == "new"


@pytest.mark.parametrize(
    ("task", "before", "message"),
    [
        ({"state": "file", "content": "x"}, State("absent"), "needs 'mode'"),
        ({"state": "directory"}, State("absent"), "needs 'mode'"),
        ({"state": "link"}, State("absent"), "needs 'target'"),
        ({"state": "file", "mode": "0600"}, State("directory"), "there is a directory where a file belongs"),
        ({"state": "link", "target": "x"}, State("file"), "there is a file where a link belongs"),
        ({"state": "directory", "mode": "0700"}, State("other"), "there is a other where a directory belongs"),
    ],
)
def test_refusals(task: dict[str, Any], before: State, message: str) -> None:
    with pytest.raises(PlacementError, match=message):
        managed_files.wanted({"path": "/x", "owner": "root", "group": "root", **task}, before)


def test_a_device_is_something_else(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")

    assert managed_files.read(tmp_path / "pipe") == State("other")
