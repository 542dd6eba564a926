"""file:read and file:write on real files. Ways out of the workspace are in ``escapes``."""

from __future__ import annotations

import base64
import json
import os
import threading
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

import pytest

from runner_app.tasks import files
from runner_app.tasks.files import KEPT_BYTES, RESULT_BYTES
from runner_app.tasks.paths import RefusedError, Workspace

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(PurePosixPath(tmp_path))


def read(workspace: Workspace, path: str, encoding: str = "utf-8") -> dict[str, object]:
    return files.read(workspace, path=path, encoding=encoding)


def write(
    workspace: Workspace, path: str, content: str, encoding: str = "utf-8", *, create_dirs: bool = False
) -> dict[str, object]:
    return files.write(workspace, path=path, content=content, encoding=encoding, create_dirs=create_dirs)


def test_what_is_written_is_read(workspace: Workspace, tmp_path: Path) -> None:
    assert write(workspace, "a", "hé\n") == {"filePath": "a", "size": 4}
    for path in ("a", "./a", str(tmp_path / "a"), f"{tmp_path}//./a"):
        expected = {"filePath": path, "encoding": "utf-8", "size": 4, "content": "hé\n", "truncated": False}
        assert read(workspace, path) == expected
    assert [entry.name for entry in tmp_path.iterdir()] == ["a"]


def test_bytes_go_in_base64(workspace: Workspace, tmp_path: Path) -> None:
    data = bytes(range(256))
    write(workspace, "a", base64.b64encode(data).decode(), "base64")
    assert (tmp_path / "a").read_bytes() == data
    assert base64.b64decode(str(read(workspace, "a", "base64")["content"])) == data
    with pytest.raises(RefusedError, match="filePath: the file is not UTF-8: set encoding to base64"):
        read(workspace, "a")
    for content in ("*", "a", "YQ=\n="):
        with pytest.raises(RefusedError, match="content: is not base64"):
            write(workspace, "a", content, "base64")
    assert (tmp_path / "a").read_bytes() == data


def test_a_long_file_is_cut_between_two_characters(workspace: Workspace, tmp_path: Path) -> None:
    (tmp_path / "a").write_text("x" + "é" * KEPT_BYTES)
    facts = read(workspace, "a")
    assert facts["content"] == "x" + "é" * ((KEPT_BYTES - 1) // 2)
    assert (facts["truncated"], facts["size"]) == (True, 2 * KEPT_BYTES + 1)


def test_a_file_of_the_very_length_is_whole(workspace: Workspace, tmp_path: Path) -> None:
    (tmp_path / "a").write_text("x" * KEPT_BYTES)
    assert read(workspace, "a")["truncated"] is False


def test_a_file_that_grows_without_end_is_cut(workspace: Workspace, tmp_path: Path) -> None:
    with (tmp_path / "a").open("wb") as file:
        file.truncate(1 << 40)
    assert len(base64.b64decode(str(read(workspace, "a", "base64")["content"]))) == KEPT_BYTES


@pytest.mark.parametrize("byte", [b"\0", b"\n", b'"', b"a"])
@pytest.mark.parametrize("encoding", ["utf-8", "base64"])
def test_a_result_is_bounded_however_it_is_escaped(
    byte: bytes, encoding: str, workspace: Workspace, tmp_path: Path
) -> None:
    (tmp_path / "a").write_bytes(byte * KEPT_BYTES)
    facts = read(workspace, "a", encoding)
    assert len(json.dumps(facts, ensure_ascii=False).encode()) <= RESULT_BYTES
    assert len(str(facts["content"])) < KEPT_BYTES or not facts["truncated"]


def test_folders_are_made_when_asked(workspace: Workspace, tmp_path: Path) -> None:
    with pytest.raises(RefusedError, match="filePath 'a/b/c': No such file"):
        write(workspace, "a/b/c", "x")
    assert not (tmp_path / "a").exists()
    write(workspace, "a/b/c", "x", create_dirs=True)
    write(workspace, "a/b/c", "y", create_dirs=True)
    assert (tmp_path / "a/b/c").read_text() == "y"


def test_a_file_keeps_its_mode_and_a_new_one_follows_the_mask(workspace: Workspace, tmp_path: Path) -> None:
    (tmp_path / "a").touch()
    (tmp_path / "a").chmod(0o750)
    write(workspace, "a", "x")
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o750
    write(workspace, "b", "x")
    assert (tmp_path / "b").stat().st_mode & 0o777 == 0o644


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_file_is_written_whole_or_not_at_all(
    call: str, workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a").write_text("old")

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, call, full)
    with pytest.raises(RefusedError, match="filePath 'a': No space left"):
        write(workspace, "a", "new")
    assert (tmp_path / "a").read_text() == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["a"]


def test_a_file_is_on_disk_before_it_has_its_name(
    workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []
    for name in ("fsync", "replace"):
        original = getattr(os, name)

        def noted(*arguments: object, _name: str = name, _original: object = original, **more: object) -> None:
            calls.append(_name)
            _original(*arguments, **more)  # type: ignore[operator]

        monkeypatch.setattr(os, name, noted)
    write(workspace, "a", "x")
    assert calls == ["fsync", "replace", "fsync"]


@pytest.mark.parametrize(
    ("path", "why"),
    [
        ("absent", "No such file"),
        ("folder", "a directory"),
        ("file/x", "a link or a file"),
        (".", "the workspace itself"),
        ("", "the workspace itself"),
        ("x" * 300, "name too long"),
    ],
)
def test_what_cannot_be_read_is_said(path: str, why: str, workspace: Workspace, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    with pytest.raises(RefusedError, match=f"filePath '{path}': .*{why}"):
        read(workspace, path)
    if path != "absent":
        with pytest.raises(RefusedError, match=f"filePath '{path}': .*{why}"):
            write(workspace, path, "x")


def test_a_folder_that_becomes_a_link_meanwhile_leads_nowhere(workspace: Workspace, tmp_path: Path) -> None:
    """Somebody swaps a folder and a link as fast as possible while it is written and read through."""
    inside, outside = tmp_path / "inside", tmp_path / "outside"
    for folder in (inside, inside / "real", outside):
        folder.mkdir()
        (folder / "file").write_text(folder.name)
    (inside / "link").symlink_to(outside)
    within, stop = Workspace(PurePosixPath(inside)), threading.Event()

    def swap() -> None:
        while not stop.is_set():
            for new, old in (("real", "door"), ("door", "real"), ("link", "door"), ("door", "link")):
                (inside / new).rename(inside / old)

    swapping = threading.Thread(target=swap)
    swapping.start()
    contents: set[object] = set()
    try:
        for _ in range(3000):
            try:
                contents.add(read(within, "door/file")["content"])
                write(within, "door/file", "real")
            except RefusedError as error:
                contents.add(str(error).rpartition(": ")[2])
    finally:
        stop.set()
        swapping.join()
    assert contents == {"real", "goes through a link or a file", "No such file or directory"}
    assert (outside / "file").read_text() == "outside"
