"""What the disk and SQLite give at the most, on the broker's own schema; and databases to begin with."""

from __future__ import annotations

import time
import uuid
from contextlib import closing
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from broker_app.database import Database
from broker_app.queue.job import Job, Outcome, Route, Status
from broker_app.queue.rows import INSERT, inserted
from broker_app.schema import connect

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterator
    from pathlib import Path

BATCH = 100
_CHUNK = 10_000
_JOB = Job(
    id="",
    dialect="jobs",
    command="ping",
    payload="x" * 100,
    requires='{"caps": ["linux"]}',
    route=Route(needs=frozenset({"linux"})),
    created_at=0.0,
    lease_seconds=60,
    max_deliveries=5,
    submitter="bench",
)


class Table:
    """The jobs' table of a database that nobody serves, written with a full sync at each commit."""

    def __init__(self, path: Path) -> None:
        self._connection = connect(path)

    def rate(self, seconds: float, rows: int) -> float:
        """Rows a second, with so many per commit."""
        done, began = 0, time.perf_counter()
        while (took := time.perf_counter() - began) < seconds:
            self._connection.execute("BEGIN IMMEDIATE")
            self._connection.executemany(INSERT, _rows(_queued(), rows))
            self._connection.execute("COMMIT")
            done += rows
        return done / took

    def close(self) -> None:
        """Let go of it."""
        self._connection.close()


def fill(path: Path, *, queued: int = 0, foreign: int = 0, finished: int = 0) -> None:
    """Have a database with so many jobs: open to the bench's workers, open to none of them, and done."""
    alien = replace(_queued(), route=Route(needs=frozenset({"elsewhere"})))
    now = time.time()
    done = replace(
        _queued(),
        status=Status.DONE,
        outcome=Outcome.DONE,
        started_at=now,
        finished_at=now,
        lease_epoch=1,
        attempts=1,
        worker="w0",
        result="x" * 100,
    )
    with closing(connect(path)) as connection:
        connection.execute("PRAGMA synchronous=OFF")
        for job, count in ((done, finished), (alien, foreign), (_queued(), queued)):
            _insert(connection, job, count)
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def _insert(connection: sqlite3.Connection, job: Job, count: int) -> None:
    for first in range(0, count, _CHUNK):
        connection.execute("BEGIN IMMEDIATE")
        connection.executemany(INSERT, _rows(job, min(_CHUNK, count - first)))
        connection.execute("COMMIT")


async def synchronous(path: Path) -> str:
    """What `PRAGMA synchronous` is on the connection that writes, within a durable commit."""
    database = Database(path)
    try:
        level = await database.write(lambda connection: connection.execute("PRAGMA synchronous").fetchone()[0])
    finally:
        await database.close()
    return ("OFF", "NORMAL", "FULL", "EXTRA")[level]


def _queued() -> Job:
    return replace(_JOB, created_at=time.time())


def _rows(job: Job, count: int) -> Iterator[tuple[Any, ...]]:
    """Rows of a job like that, each with an id of its own, which is a row's first value."""
    _, *rest = inserted(job)
    return ((str(uuid.uuid4()), *rest) for _ in range(count))
