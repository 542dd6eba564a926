"""Who did what, when, from where, and how it came out: one line of JSON for each command that changes something.

The lines are beside the database and in the journal, and hold neither payloads nor secrets. The file is only ever
appended to; a full one is set aside, and the oldest of these goes when there are enough.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

MAX_BYTES = 16 * 2**20
FILES = 5
_MAX_WORD = 256
_LOG = logging.getLogger(__name__)


class Audit:
    """The trail of one database.

    Args:
        database: The database's file.
        most: Bytes of a file that is full.
        tell: What else has the lines: the log, which is the journal where a service writes it.
    """

    def __init__(self, database: Path, *, most: int = MAX_BYTES, tell: Callable[[str], object] = _LOG.info) -> None:
        self.path = database.with_name(f"{database.name}.audit.jsonl")
        self._most = most
        self._tell = tell
        self._waiting: list[str] = []
        self._written: asyncio.Future[None] | None = None

    def note(self, when: float, **facts: object) -> None:
        """Append one line. What was done is done: where it cannot be noted, the journal says so."""
        self._waiting.append(_line(when, facts))
        self._write()

    async def note_with_others(self, when: float, **facts: object) -> None:
        """Append one line together with what else this turn of the event loop notes; it is there when this returns."""
        self._waiting.append(_line(when, facts))
        if self._written is None:
            loop = asyncio.get_running_loop()
            self._written = loop.create_future()
            loop.call_soon(self._write)
        await asyncio.shield(self._written)

    def _write(self) -> None:
        if not self._waiting:
            return
        lines, self._waiting = "\n".join(self._waiting), []
        self._tell(lines)
        try:
            self._append(lines.encode() + b"\n")
        except OSError as error:
            _LOG.error("cannot write %s: %s", self.path, error)
        if self._written is not None:
            self._written.set_result(None)
            self._written = None

    def _append(self, lines: bytes) -> None:
        # Opened anew each time: the command line appends to the same file, and either side may set it aside.
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        descriptor = os.open(self.path, flags, 0o600)
        try:
            os.write(descriptor, lines)
            full = os.fstat(descriptor).st_size >= self._most
        finally:
            os.close(descriptor)
        if full:
            self._set_aside()

    def _set_aside(self) -> None:
        for number in range(FILES - 1, 0, -1):
            older = self._numbered(number)
            newer = self._numbered(number - 1) if number > 1 else self.path
            with suppress(FileNotFoundError):
                newer.replace(older)

    def _numbered(self, number: int) -> Path:
        return self.path.with_name(f"{self.path.name}.{number}")


def _line(when: float, facts: Mapping[str, object]) -> str:
    time = datetime.fromtimestamp(when, UTC).isoformat(timespec="milliseconds")
    words = {name: str(fact)[:_MAX_WORD] for name, fact in facts.items() if fact is not None}
    return json.dumps({"when": time, **words})
