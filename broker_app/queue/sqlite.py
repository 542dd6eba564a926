"""Jobs in SQLite: the pure transitions, run inside the writer's transactions."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Self, TypeVar

from broker_app.errors import JobNotFoundError, KeyReusedError, QueueFullError
from broker_app.queue import listing
from broker_app.queue.job import Job, Outcome, Status, Worker
from broker_app.queue.routes import RouteIndex
from broker_app.queue.rows import INSERT, inserted, job_of, needs_of, route_of, update
from broker_app.queue.store import Counts, Event, Page, Pause

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterable, Sequence

    from broker_app.database import Database, Operation
    from broker_app.queue.commands import Browse
    from broker_app.queue.store import Listener, Transition

_DUE_BATCH = 500
# Of what one job reported, in characters; each event counts as so many more.
_MAX_REPORTED = 2**20
_EVENT_OVERHEAD = 64
_BY_KEY = "SELECT * FROM jobs WHERE coalesce(submitter, '') = ? AND idempotency_key = ?"
_NEXT = """
SELECT n, priority FROM jobs WHERE status = 'queued' AND not_before IS NULL AND agent IS ? AND needs = ?
ORDER BY priority DESC, n LIMIT 1
"""
_READY_ROUTES = "SELECT DISTINCT agent, needs FROM jobs WHERE status = 'queued' AND not_before IS NULL"
_LOST = "SELECT * FROM jobs WHERE status = 'running' AND lease_until <= ? ORDER BY lease_until LIMIT ?"
_LOSERS = "SELECT worker FROM jobs WHERE status = 'running' AND lease_until <= ?"
_PUT_OFF = "SELECT * FROM jobs WHERE not_before <= ? ORDER BY not_before LIMIT ?"
_NEXT_DUE = """
SELECT min(due) FROM (
    SELECT min(lease_until) AS due FROM jobs WHERE status = 'running'
    UNION ALL SELECT min(not_before) FROM jobs WHERE not_before IS NOT NULL)
"""
_COUNTS = """
SELECT (SELECT count(*) FROM jobs WHERE coalesce(outcome, status) = 'queued' AND not_before IS NULL) AS ready,
    (SELECT count(*) FROM jobs WHERE not_before IS NOT NULL) AS delayed,
    (SELECT count(*) FROM jobs WHERE coalesce(outcome, status) = 'running') AS running,
    (SELECT count(*) FROM jobs WHERE coalesce(outcome, status) = 'dead') AS dead
"""
_OLDEST_READY = """
SELECT created_at FROM jobs WHERE coalesce(outcome, status) = 'queued' AND not_before IS NULL ORDER BY n LIMIT 1
"""
_QUEUED_FOR = """
SELECT * FROM jobs WHERE status = 'queued' AND not_before IS NULL AND agent = :agent
UNION ALL SELECT * FROM jobs WHERE not_before IS NOT NULL AND agent = :agent LIMIT :limit
"""
_RUNNING = """
SELECT worker, id FROM jobs WHERE coalesce(outcome, status) = 'running' AND worker IS NOT NULL ORDER BY n
"""
_RUNNING_BY = "SELECT * FROM jobs WHERE status = 'running' AND worker = ? ORDER BY lease_until"
_ADD_EVENT = """
INSERT INTO events (job, at, epoch, start, text, percent, note)
SELECT n, :at, :epoch, :start, :text, :percent, :note FROM jobs WHERE id = :id AND reported + :size <= :most
ON CONFLICT DO NOTHING
"""
_CHARGE = "UPDATE jobs SET reported = reported + :size WHERE id = :id"
_EVENTS = """
SELECT events.* FROM events JOIN jobs ON jobs.n = events.job
WHERE jobs.id = ? AND events.n > ? ORDER BY events.n LIMIT ?
"""
_OLD = "SELECT n, outcome FROM jobs WHERE finished_at < ? ORDER BY finished_at LIMIT ?"
_J = TypeVar("_J", Job, "Job | None", tuple[Job, ...])


class SqliteStore:
    """The store (see `Store`) on one database file. Open it with `await SqliteStore.open(database)`."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._listeners: list[Listener] = []
        # Touched on the writer's thread only. A route listed in vain costs one probe; one that is missing
        # would starve its jobs, so a rollback reads both of these anew.
        self._routes = RouteIndex()
        # How many jobs there are of each kind: to count a million takes long. Others may read it, so it is replaced.
        self._tally: dict[str, int] = {}
        self._pause: Pause | None = None

    @classmethod
    async def open(cls, database: Database) -> Self:
        """Read what the store remembers beside the tables."""
        store = cls(database)
        database.on_rollback(store._recall)
        await database.write(store._recall, durable=False)
        return store

    def listen(self, listener: Listener) -> None:
        """See `Store`."""
        self._listeners.append(listener)

    async def add(self, jobs: tuple[Job, ...], *, limit: int) -> tuple[Job, ...]:
        """See `Store`."""

        def insert(connection: sqlite3.Connection) -> tuple[Job, ...]:
            kept = _known(connection, jobs)
            new = [job for job, earlier in zip(jobs, kept, strict=True) if job is earlier]
            if new and 0 < limit < sum(self._tally.values()) - self._tally["dead"] + len(new):
                raise QueueFullError
            connection.executemany(INSERT, map(inserted, new))
            self._count((), new)
            for route in {job.route for job in new}:
                self._routes.add(route)
            return kept

        return await self._write(insert)

    async def claim(self, worker: Worker, transition: Transition) -> Job | None:
        """See `Store`."""

        def lease(connection: sqlite3.Connection) -> Job | None:
            n = None if self._pause else self._next(connection, worker)
            if n is None:
                return None
            row = connection.execute("SELECT * FROM jobs WHERE n = ?", (n,)).fetchone()
            return self._apply(connection, job_of(row), transition)

        return await self._write(lease, durable=False)

    async def change(self, job_id: str, transition: Transition, *, durable: bool = True) -> Job:
        """See `Store`."""

        def change(connection: sqlite3.Connection) -> Job:
            return self._apply(connection, _find(connection, job_id), transition)

        return await self._write(change, durable=durable)

    async def losers(self, now: float) -> frozenset[str | None]:
        """See `Store`."""
        rows = await self._database.read(lambda connection: connection.execute(_LOSERS, (now,)).fetchall())
        return frozenset(worker for (worker,) in rows)

    async def take_due(self, now: float, transition: Transition) -> tuple[Job, ...]:
        """See `Store`."""

        def take_due(connection: sqlite3.Connection) -> tuple[Job, ...]:
            rows = [row for query in (_LOST, _PUT_OFF) for row in connection.execute(query, (now, _DUE_BATCH))]
            return self._apply_all(connection, map(job_of, rows), transition)

        return await self._write(take_due)

    async def take_back(
        self, worker: str, leases: frozenset[tuple[str, int]], transition: Transition
    ) -> tuple[Job, ...]:
        """See `Store`."""

        def take_back(connection: sqlite3.Connection) -> tuple[Job, ...]:
            jobs = map(job_of, connection.execute(_RUNNING_BY, (worker,)).fetchall())
            missing = (job for job in jobs if (job.id, job.lease_epoch) not in leases)
            return self._apply_all(connection, missing, transition)

        return await self._write(take_back)

    async def disown(self, agent: str, transition: Transition) -> tuple[Job, ...]:
        """See `Store`."""

        def disown(connection: sqlite3.Connection) -> tuple[Job, ...]:
            rows = connection.execute(_QUEUED_FOR, {"agent": agent, "limit": _DUE_BATCH}).fetchall()
            return self._apply_all(connection, map(job_of, rows), transition)

        return await self._write(disown)

    async def next_due(self) -> float | None:
        """See `Store`."""
        row = await self._database.read(lambda connection: connection.execute(_NEXT_DUE).fetchone())
        due: float | None = row[0]
        return due

    async def get(self, job_id: str) -> Job:
        """See `Store`."""
        return await self._database.read(lambda connection: _find(connection, job_id))

    async def browse(self, query: Browse) -> Page:
        """See `Store`."""
        return await self._database.read(lambda connection: listing.browse(connection, query))

    async def counts(self) -> Counts:
        """See `Store`."""
        row = await self._database.read(lambda connection: connection.execute(_OLDEST_READY).fetchone())
        return Counts(**self._tally, oldest=row and row[0])

    async def running(self) -> dict[str, list[str]]:
        """See `Store`."""
        rows = await self._database.read(lambda connection: connection.execute(_RUNNING).fetchall())
        ids: dict[str, list[str]] = {}
        for worker, job_id in rows:
            ids.setdefault(worker, []).append(job_id)
        return ids

    async def report(self, job_id: str, transition: Transition, events: tuple[Event, ...]) -> Job:
        """See `Store`."""

        def report(connection: sqlite3.Connection) -> Job:
            job = self._apply(connection, _find(connection, job_id), transition)
            for event in events:
                values = _event_values(job, event)
                if connection.execute(_ADD_EVENT, values).rowcount:
                    connection.execute(_CHARGE, values)
            return job

        return await self._write(report, durable=False)

    async def events(self, job_id: str, after: int, limit: int) -> tuple[Event, ...]:
        """See `Store`."""
        rows = await self._database.read(
            lambda connection: connection.execute(_EVENTS, (job_id, after, limit)).fetchall()
        )
        return tuple(_event(row) for row in rows)

    async def forget(self, before: float) -> int:
        """See `Store`."""

        def forget(connection: sqlite3.Connection) -> int:
            rows = connection.execute(_OLD, (before, _DUE_BATCH)).fetchall()
            numbers = [(row["n"],) for row in rows]
            connection.executemany("DELETE FROM events WHERE job = ?", numbers)
            connection.executemany("DELETE FROM jobs WHERE n = ?", numbers)
            dead = sum(row["outcome"] == Outcome.DEAD for row in rows)
            self._tally = self._tally | {"dead": self._tally["dead"] - dead}
            return len(rows)

        return await asyncio.shield(self._database.write(forget, durable=False))

    async def pause(self, pause: Pause | None) -> None:
        """See `Store`."""

        def set_pause(connection: sqlite3.Connection) -> None:
            connection.execute("DELETE FROM pause")
            if pause:
                connection.execute(
                    "INSERT INTO pause (one, since, reason) VALUES (1, ?, ?)", (pause.since, pause.reason)
                )
            self._pause = pause

        await asyncio.shield(self._database.write(set_pause))

    def paused(self) -> Pause | None:
        """See `Store`."""
        return self._pause

    async def _write(self, operation: Operation[_J], *, durable: bool = True) -> _J:
        """Write, and announce the jobs even when the caller has gone meanwhile."""
        return await self._database.write(operation, durable=durable, announce=self._on_written)

    def _on_written(self, result: Job | tuple[Job, ...] | None) -> None:
        for job in result if isinstance(result, tuple) else (result,):
            if job is not None:
                for listener in self._listeners:
                    listener(job)

    def _next(self, connection: sqlite3.Connection, worker: Worker) -> int | None:
        heads = []
        for route in self._routes.open_to(worker):
            row = connection.execute(_NEXT, (route.agent, needs_of(route))).fetchone()
            if row is None:
                self._routes.discard(route)
            else:
                heads.append((-row["priority"], row["n"]))
        return min(heads)[1] if heads else None

    def _apply(self, connection: sqlite3.Connection, job: Job, transition: Transition) -> Job:
        return self._keep(connection, job, transition(job))

    def _apply_all(
        self, connection: sqlite3.Connection, jobs: Iterable[Job], transition: Transition
    ) -> tuple[Job, ...]:
        # A refusal of one must not leave the others changed.
        changes = [(job, transition(job)) for job in jobs]
        return tuple(self._keep(connection, job, changed) for job, changed in changes)

    def _keep(self, connection: sqlite3.Connection, job: Job, changed: Job) -> Job:
        if changed == job:
            return job
        connection.execute(*update(job, changed))
        self._count((job,), (changed,))
        if changed.ready:
            self._routes.add(changed.route)
        return changed

    def _recall(self, connection: sqlite3.Connection) -> None:
        self._routes.clear()
        for agent, needs in connection.execute(_READY_ROUTES):
            self._routes.add(route_of(agent, needs))
        self._tally = dict(connection.execute(_COUNTS).fetchone())
        row = connection.execute("SELECT since, reason FROM pause").fetchone()
        self._pause = row and Pause(*row)

    def _count(self, before: Sequence[Job], after: Sequence[Job]) -> None:
        tally = self._tally.copy()
        for jobs, change in ((before, -1), (after, 1)):
            for kind in filter(None, map(_kind, jobs)):
                tally[kind] += change
        self._tally = tally


def _find(connection: sqlite3.Connection, job_id: str) -> Job:
    row = connection.execute("SELECT * FROM jobs WHERE id = ?", (job_id,)).fetchone()
    if row is None:
        raise JobNotFoundError
    return job_of(row)


def _kind(job: Job) -> str | None:
    """As what a job is counted."""
    if job.status is Status.QUEUED:
        return "delayed" if job.not_before is not None else "ready"
    if job.status is Status.RUNNING:
        return "running"
    return "dead" if job.outcome is Outcome.DEAD else None


def _known(connection: sqlite3.Connection, jobs: tuple[Job, ...]) -> tuple[Job, ...]:
    """Each job, or the one that its submitter's idempotency key stands for already."""
    kept: list[Job] = []
    fresh: dict[tuple[str, str], Job] = {}
    for job in jobs:
        if job.idempotency_key is None:
            kept.append(job)
            continue
        key = (job.submitter or "", job.idempotency_key)
        row = connection.execute(_BY_KEY, key).fetchone()
        earlier = job_of(row) if row else fresh.setdefault(key, job)
        if earlier.fingerprint != job.fingerprint:
            raise KeyReusedError(job.idempotency_key, earlier.id)
        kept.append(earlier)
    return tuple(kept)


def _event(row: sqlite3.Row) -> Event:
    return Event(
        at=row["at"], text=row["text"], offset=row["start"], percent=row["percent"], note=row["note"], n=row["n"]
    )


def _event_values(job: Job, event: Event) -> dict[str, Any]:
    return {
        "id": job.id,
        "epoch": job.lease_epoch,
        "size": _EVENT_OVERHEAD + len(event.text or "") + len(event.note or ""),
        "most": _MAX_REPORTED,
        "at": event.at,
        "start": event.offset,
        "text": event.text,
        "percent": event.percent,
        "note": event.note,
    }
