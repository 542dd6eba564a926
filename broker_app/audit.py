"""Who did what, when, from where, and how it came out: one line of JSON for each command that changes something.

The lines are beside the database and in the journal, and hold neither payloads nor secrets. The file is only ever
appended to; a full one is set aside, and the oldest of these goes when there are enough.
"""

from __future__ import annotations

import json
import logging
import os
from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
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
        tell: What else has each line: the log, which is the journal where a service writes it.
    """

    def __init__(self, database: Path, *, most: int = MAX_BYTES, tell: Callable[[str], object] = _LOG.info) -> None:
        self.path = database.with_name(f"{database.name}.audit.jsonl")
        self._most = most
        self._tell = tell

    def note(self, when: float, **facts: object) -> None:
        """Append one line. What was done is done: where it cannot be noted, the journal says so."""
        time = datetime.fromtimestamp(when, UTC).isoformat(timespec="milliseconds")
        words = {name: str(fact)[:_MAX_WORD] for name, fact in facts.items() if fact is not None}
        line = json.dumps({"when": time, **words})
        self._tell(line)
        try:
            self._append(line.encode() + b"\n")
        except OSError as error:
            _LOG.error("cannot write %s: %s", self.path, error)

    def _append(self, line: bytes) -> None:
        # Opened anew for each line: the command line appends to the same file, and either side may set it aside.
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        descriptor = os.open(self.path, flags, 0o600)
        try:
            os.write(descriptor, line)
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
