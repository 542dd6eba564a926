"""Files that are replaced whole."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import IO

import pytest

from lab import files


@pytest.mark.parametrize("content", ["größer", b"\0\xff"])
def test_a_file_is_the_old_one_until_it_is_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str | bytes
) -> None:
    file, put = tmp_path / "state", Path.replace
    file.write_text("old")
    moments: list[tuple[str, bytes]] = []

    def noting(partial: Path, target: Path) -> Path:
        moments.append((target.read_text(), partial.read_bytes()))
        return put(partial, target)

    monkeypatch.setattr(Path, "replace", noting)
    files.replace(file, content)
    whole = content.encode() if isinstance(content, str) else content
    assert moments == [("old", whole)]
    assert file.read_bytes() == whole
    assert [*tmp_path.iterdir()] == [file]


@pytest.mark.parametrize(("given", "expected"), [({}, 0o644), ({"mode": 0o600}, 0o600), ({"mode": 0o755}, 0o755)])
def test_a_file_has_its_mode_before_anything_is_in_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: dict[str, int], expected: int
) -> None:
    opened, fdopen = list[int](), os.fdopen

    def noting(descriptor: int, how: str) -> IO[bytes]:
        opened.append(stat.S_IMODE(os.fstat(descriptor).st_mode))
        return fdopen(descriptor, how)

    monkeypatch.setattr(os, "fdopen", noting)
    files.replace(tmp_path / "state", "content", **given)
    assert opened == [expected]
    assert stat.S_IMODE((tmp_path / "state").stat().st_mode) == expected
