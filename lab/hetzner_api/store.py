"""The API's records in one SQLite file, which a kill at any point leaves whole."""

from __future__ import annotations

import fcntl
import json
import os
import sqlite3
import threading
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from lab.errors import LabError
from lab.hetzner_api.errors import ApiError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

Record = dict[str, Any]

# Numbers below are the catalogue's. No two records share one, so that a mixed-up id is always noticed.
_FIRST_ID = 10_000
_LAST_ID = 2**63 - 1

_SCHEMA = """
CREATE TABLE IF NOT EXISTS records (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    kind TEXT NOT NULL,
    body TEXT NOT NULL
);
CREATE INDEX IF NOT EXISTS records_by_kind ON records (kind, id);
CREATE INDEX IF NOT EXISTS running_actions ON records (id)
    WHERE kind = 'action' AND json_extract(body, '$.status') = 'running';
"""


class Records:
    """Reads and writes records within one transaction."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def add(self, kind: str, **body: Any) -> Record:
        """Keep a new record under a new id and return it."""
        row = self._connection.execute("INSERT INTO records (kind, body) VALUES (?, '{}')", (kind,))
        record = {"id": row.lastrowid, "created": now(), **body}
        self.save(kind, record)
        return record

    def get(self, kind: str, record_id: int) -> Record:
        """Return a record.

        Raises:
            ApiError: There is none (not_found).
        """
        row = self._connection.execute(
            "SELECT body FROM records WHERE id = ? AND kind = ?", (min(record_id, _LAST_ID), kind)
        )
        if (found := row.fetchone()) is None:
            raise ApiError("not_found", f"{kind} with ID '{record_id}' not found")
        return _decode(found)

    def all(self, kind: str) -> list[Record]:
        """Return the records of a kind, oldest first."""
        rows = self._connection.execute("SELECT body FROM records WHERE kind = ? ORDER BY id", (kind,))
        return [_decode(row) for row in rows]

    def running(self) -> list[Record]:
        """Return the actions that are under way or waiting, oldest first."""
        rows = self._connection.execute(
            "SELECT body FROM records WHERE kind = 'action' AND json_extract(body, '$.status') = 'running' ORDER BY id"
        )
        return [_decode(row) for row in rows]

    def save(self, kind: str, record: Record) -> None:
        """Keep a changed record."""
        values = (json.dumps(record), record["id"], kind)
        self._connection.execute("UPDATE records SET body = ? WHERE id = ? AND kind = ?", values)

    def remove(self, kind: str, record_id: int) -> None:
        """Forget a record, if it is there."""
        self._connection.execute("DELETE FROM records WHERE id = ? AND kind = ?", (record_id, kind))


class Store:
    """The open file. One process holds it; its threads take turns.

    Raises:
        LabError: Another process holds the file.
    """

    def __init__(self, path: Path) -> None:
        self._held = _hold(path)
        self._turn = threading.Lock()
        self._connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        self._connection.execute("PRAGMA journal_mode=WAL")
        self._connection.execute("PRAGMA synchronous=NORMAL")
        self._connection.executescript(_SCHEMA)
        self._connection.execute(
            "INSERT INTO sqlite_sequence (name, seq) SELECT 'records', ?"
            " WHERE NOT EXISTS (SELECT 1 FROM sqlite_sequence WHERE name = 'records')",
            (_FIRST_ID,),
        )

    @contextmanager
    def transaction(self) -> Iterator[Records]:
        """Open a transaction that an exception undoes."""
        with self._turn:
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield Records(self._connection)
            except BaseException:
                self._connection.execute("ROLLBACK")
                raise
            self._connection.execute("COMMIT")

    def close(self) -> None:
        """Close the file."""
        with self._turn:
            self._connection.close()
        os.close(self._held)


def now() -> str:
    """Return the time in the API's form."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def _decode(row: tuple[str]) -> Record:
    record: Record = json.loads(row[0])
    return record


def _hold(path: Path) -> int:
    held = os.open(f"{path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(held)
        raise LabError(f"{path} is in use by another stand-in; stop it first, or name another file") from error
    return held
