"""What a job has printed, in pieces for a broker that keeps all of it: the live log of the jobs dialect.

A piece is the same each time it is asked for until it was taken: of one offset the broker keeps one. Its bounds stand
in the attempt's directory before it is told, so that the next runner goes on with that very piece.
"""

import codecs
import json
import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from runner_app.handlers.output import STDERR, STDOUT

PIECE_BYTES = 64 * 1024  # of UTF-8: a broker takes no more at once
MOST_CHARACTERS = 1024 * 1024  # of an attempt: a broker keeps about as much of a job
_BOUNDS = "told"
_BOUNDS_BYTES = 100  # so that writing them anew never makes the file shorter


@dataclass(frozen=True, slots=True)
class Piece:
    """Some of what a job printed; ``offset`` is how many characters of it were told before."""

    offset: int
    text: str


class Pieces:
    """Both streams of one attempt, each as it grew from one piece to the next."""

    def __init__(self, directory: Path) -> None:
        self._files = [directory / name for name in (STDOUT, STDERR)]
        self._bounds = directory / _BOUNDS
        self._offset = 0
        self._told, self._until = [0, 0], [0, 0]  # bytes of each stream: before the piece under way, and with it
        with suppress(OSError, ValueError):
            self._offset, self._told, self._until = json.loads(self._bounds.read_bytes())

    def next(self, *, ended: bool) -> Piece | None:
        """Return the piece to tell now, or None where nothing is new.

        Raises:
            OSError: The disk does not take its bounds.
        """
        if self._until == self._told:
            self._until = self._ahead(ended=ended)
            if self._until == self._told:
                return None
            self._note()
        if text := self._text(self._until):
            return Piece(self._offset, text)
        self.taken()  # the job has cut its output off since
        return None

    def taken(self) -> None:
        """Go on after the piece that was told."""
        self._offset += len(self._text(self._until))
        self._told = self._until

    def _ahead(self, *, ended: bool) -> list[int]:
        """Return where the next piece ends: after whole characters, unless the job broke off within one."""
        most = min(PIECE_BYTES, MOST_CHARACTERS - self._offset) // 2
        while True:
            until = []
            for file, start in zip(self._files, self._told, strict=True):
                data = _read(file, start, most)
                whole = ended and len(data) < most
                until.append(start + len(data) - (0 if whole else _unfinished(data)))
            if len(self._text(until).encode()) <= PIECE_BYTES:
                return until
            most //= 2  # what is no UTF-8 takes three times its size

    def _text(self, until: list[int]) -> str:
        bounds = zip(self._files, self._told, until, strict=True)
        return "".join(_read(file, start, end - start).decode("utf-8", "replace") for file, start, end in bounds)

    def _note(self) -> None:
        """Write the bounds. The attempt outlives its runner, and not its host: they need not be synced."""
        # In place: a new name in this directory would wake who waits for the job's end.
        handle = os.open(self._bounds, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.pwrite(handle, json.dumps([self._offset, self._told, self._until]).ljust(_BOUNDS_BYTES).encode(), 0)
        finally:
            os.close(handle)


def _read(file: Path, start: int, most: int) -> bytes:
    try:
        with file.open("rb") as stream:
            stream.seek(start)
            return stream.read(most)
    except OSError:
        return b""  # it is not there yet, or the job took our rights away: its end tells


def _unfinished(data: bytes) -> int:
    """Return how many bytes at the end are only the beginning of a character."""
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    decoder.decode(data)
    return len(decoder.getstate()[0])
