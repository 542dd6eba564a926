"""What a job printed, piece by piece."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from runner_app.pieces import MOST_CHARACTERS, PIECE_BYTES, Piece, Pieces

if TYPE_CHECKING:
    from pathlib import Path


def _print(directory: Path, data: bytes, stream: str = "stdout") -> None:
    with (directory / stream).open("ab") as file:
        file.write(data)


def _all(pieces: Pieces, *, ended: bool = False) -> list[Piece]:
    found = []
    while piece := pieces.next(ended=ended):
        found.append(piece)
        pieces.taken()
    return found


def test_each_piece_says_how_much_came_before_it(tmp_path: Path) -> None:
    pieces = Pieces(tmp_path)
    assert pieces.next(ended=False) is None
    _print(tmp_path, b"one\ntw")
    _print(tmp_path, b"why\n", "stderr")
    assert _all(pieces) == [Piece(0, "one\ntwwhy\n")]
    _print(tmp_path, b"o\n")
    assert _all(pieces) == [Piece(10, "o\n")]
    assert _all(pieces, ended=True) == []


def test_a_piece_is_the_same_until_it_is_taken(tmp_path: Path) -> None:
    pieces = Pieces(tmp_path)
    _print(tmp_path, b"one\n")
    first = pieces.next(ended=False)
    _print(tmp_path, b"two\n")
    assert pieces.next(ended=False) == first == Piece(0, "one\n")
    pieces.taken()
    assert pieces.next(ended=False) == Piece(4, "two\n")


def test_the_next_runner_goes_on_with_the_piece_under_way(tmp_path: Path) -> None:
    pieces = Pieces(tmp_path)
    _print(tmp_path, b"one\n")
    assert _all(pieces) == [Piece(0, "one\n")]
    _print(tmp_path, b"two\n")
    assert pieces.next(ended=False) == Piece(4, "two\n")
    _print(tmp_path, b"three\n")
    assert _all(Pieces(tmp_path)) == [Piece(4, "two\n"), Piece(8, "three\n")]


def test_its_bounds_are_written_in_place_so_that_they_wake_nobody(tmp_path: Path) -> None:
    pieces = Pieces(tmp_path)
    inodes = set()
    for _ in range(3):
        _print(tmp_path, b"word\n")
        assert _all(pieces)
        inodes.add((tmp_path / "told").stat().st_ino)
    assert len(inodes) == 1


def test_bounds_that_cannot_be_read_begin_anew(tmp_path: Path) -> None:
    (tmp_path / "told").write_text("[1, [1, 2]")
    _print(tmp_path, b"one\n")
    assert _all(Pieces(tmp_path)) == [Piece(0, "one\n")]


@pytest.mark.parametrize("unit", [b"a", b"\xff", "é".encode(), "\U0001f600".encode(), b"\0"])
def test_no_piece_is_more_than_a_broker_takes_and_none_is_missing(unit: bytes, tmp_path: Path) -> None:
    data = b"x" + unit * (300_000 // len(unit))
    _print(tmp_path, data)
    _print(tmp_path, data, "stderr")
    pieces = _all(Pieces(tmp_path))
    assert max(len(piece.text.encode()) for piece in pieces) <= PIECE_BYTES
    text = "".join(piece.text for piece in pieces)
    assert len(text) == 2 * len(data.decode("utf-8", "replace"))
    assert "�" not in text or unit == b"\xff"


def test_a_character_is_told_when_it_is_whole_or_will_never_be(tmp_path: Path) -> None:
    pieces = Pieces(tmp_path)
    _print(tmp_path, b"a\xc3")
    assert _all(pieces) == [Piece(0, "a")]
    _print(tmp_path, b"\xa9\xc3")
    assert _all(pieces) == [Piece(1, "é")]
    assert _all(Pieces(tmp_path), ended=True) == [Piece(1, "é"), Piece(2, "�")]


def test_of_endless_output_the_beginning_is_told(tmp_path: Path) -> None:
    _print(tmp_path, b"a" * (MOST_CHARACTERS + 100_000))
    pieces = _all(Pieces(tmp_path), ended=True)
    assert sum(len(piece.text) for piece in pieces) == pytest.approx(MOST_CHARACTERS, abs=100)


def test_output_that_is_cut_off_or_cannot_be_read_is_no_obstacle(tmp_path: Path) -> None:
    pieces = Pieces(tmp_path)
    _print(tmp_path, b"one\n")
    assert pieces.next(ended=False)
    os.truncate(tmp_path / "stdout", 0)
    assert pieces.next(ended=False) is None
    (tmp_path / "stdout").unlink()
    (tmp_path / "stdout").mkdir()
    _print(tmp_path, b"why\n", "stderr")
    assert _all(pieces) == [Piece(0, "why\n")]
