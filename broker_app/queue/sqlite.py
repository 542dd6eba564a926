"""Jobs in SQLite: the pure transitions, run inside the writer's transactions."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import TYPE_CHECKING, Any, TypeVar

from broker_app.errors import JobNotFoundError, QueueFullError
from broker_app.queue.job import Job, Outcome, Route, Status, Worker
from broker_app.queue.routes import RouteIndex
from broker_app.queue.store import Counts, Page

if TYPE_CHECKING:
    import sqlite3

    from broker_app.database import Database, Operation
    from broker_app.queue.commands import Browse
    from broker_app.queue.store import Listener, Transition

_DUE_BATCH = 500
_LOOKS = 5000
_PAGE_CHARACTERS = 2**20
_INSERT = """
INSERT INTO jobs (id, dialect, command, payload, requires, agent, needs, created_at, lease_seconds, max_deliveries,
    retry_seconds, status, lease_epoch, attempts)
VALUES (:id, :dialect, :command, :payload, :requires, :agent, :needs, :created_at, :lease_seconds, :max_deliveries,
    :retry_seconds, :status, :lease_epoch, :attempts)
"""
_UPDATE = """
UPDATE jobs SET agent = :agent, status = :status, outcome = :outcome, started_at = :started_at,
    finished_at = :finished_at,
    lease_until = :lease_until, lease_epoch = :lease_epoch, attempts = :attempts, worker = :worker,
    result = :result, error = :error, not_before = :not_before, heartbeat_at = :heartbeat_at
WHERE id = :id
"""
_OLDEST = (
    "SELECT n FROM jobs WHERE status = 'queued' AND not_before IS NULL AND agent IS ? AND needs = ? ORDER BY n LIMIT 1"
)
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
# The index that leads to a filter's jobs, newest first, and the filter.
_FILTERS = {
    "state": ("jobs_of_state", "coalesce(outcome, status) = :state"),
    "failed": ("jobs_failed", "status = 'failed'"),
    "agent": ("jobs_of_agent", "coalesce(worker, agent) = :agent"),
    "command": ("jobs_of_command", "command = :command"),
}
_END = 2**63 - 1
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
        self._tally: Counter[str] = Counter()

    @classmethod
    async def open(cls, database: Database) -> SqliteStore:
        """Read what the store remembers beside the tables."""
        store = cls(database)
        database.on_rollback(store._recall)
        await database.write(store._recall, durable=False)
        return store

    def listen(self, listener: Listener) -> None:
        """See `Store`."""
        self._listeners.append(listener)

    async def add(self, job: Job, *, limit: int) -> None:
        """See `Store`."""

        def insert(connection: sqlite3.Connection) -> Job:
            if 0 < limit <= self._tally.total() - self._tally["dead"]:
                raise QueueFullError
            connection.execute(_INSERT, _values(job))
            self._count(None, job)
            self._routes.add(job.route)
            return job

        await self._write(insert)

    async def claim(self, worker: Worker, transition: Transition) -> Job | None:
        """See `Store`."""

        def lease(connection: sqlite3.Connection) -> Job | None:
            n = self._oldest(connection, worker)
            if n is None:
                return None
            row = connection.execute("SELECT * FROM jobs WHERE n = ?", (n,)).fetchone()
            return self._apply(connection, _job(row), transition)

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
            return tuple(self._apply(connection, _job(row), transition) for row in rows)

        return await self._write(take_due)

    async def take_back(
        self, worker: str, leases: frozenset[tuple[str, int]], transition: Transition
    ) -> tuple[Job, ...]:
        """See `Store`."""

        def take_back(connection: sqlite3.Connection) -> tuple[Job, ...]:
            jobs = map(_job, connection.execute(_RUNNING_BY, (worker,)).fetchall())
            missing = [job for job in jobs if (job.id, job.lease_epoch) not in leases]
            return tuple(self._apply(connection, job, transition) for job in missing)

        return await self._write(take_back)

    async def disown(self, agent: str, transition: Transition) -> tuple[Job, ...]:
        """See `Store`."""

        def disown(connection: sqlite3.Connection) -> tuple[Job, ...]:
            rows = connection.execute(_QUEUED_FOR, {"agent": agent, "limit": _DUE_BATCH}).fetchall()
            return tuple(self._apply(connection, _job(row), transition) for row in rows)

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
        filters = _filters(query)
        values = {**filters, "limit": query.limit + 1, "before": query.before or _END, "looks": _LOOKS}

        def browse(connection: sqlite3.Connection) -> Page:
            # Of what one filter leaves, any number may be none of the others': a page looks at so many, and no more.
            row = connection.execute(_last_look(*filters), values).fetchone() if len(filters) > 1 else None
            end = row["n"] if row else None
            page = _page(connection.execute(_browse(*filters), {**values, "end": end or 0}), query.limit)
            return Page(page.jobs, page.before or end)

        return await self._database.read(browse)

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

    async def _write(self, operation: Operation[_J], *, durable: bool = True) -> _J:
        """Write, and announce the jobs even when the caller has gone meanwhile."""
        future = self._database.write(operation, durable=durable)
        future.add_done_callback(self._on_written)
        return await asyncio.shield(future)

    def _on_written(self, future: asyncio.Future[Any]) -> None:
        if future.cancelled() or future.exception() is not None:
            return
        result = future.result()
        for job in result if isinstance(result, tuple) else (result,):
            if job is not None:
                self._announce(job)

    def _oldest(self, connection: sqlite3.Connection, worker: Worker) -> int | None:
        heads = []
        for route in self._routes.open_to(worker):
            row = connection.execute(_OLDEST, (route.agent, _needs(route))).fetchone()
            if row is None:
                self._routes.discard(route)
            else:
                heads.append(row[0])
        return min(heads, default=None)

    def _apply(self, connection: sqlite3.Connection, job: Job, transition: Transition) -> Job:
        changed = transition(job)
        if changed is job:
            return job
        connection.execute(_UPDATE, _values(changed))
        self._count(job, changed)
        if changed.ready:
            self._routes.add(changed.route)
        return changed

    def _recall(self, connection: sqlite3.Connection) -> None:
        self._routes.clear()
        for agent, needs in connection.execute(_READY_ROUTES):
            self._routes.add(_route(agent, needs))
        self._tally = Counter(dict(connection.execute(_COUNTS).fetchone()))

    def _count(self, before: Job | None, after: Job) -> None:
        tally = self._tally.copy()
        tally.subtract(_kinds(before))
        tally.update(_kinds(after))
        self._tally = tally

    def _announce(self, job: Job) -> None:
        for listener in self._listeners:
            listener(job)


def _find(connection: sqlite3.Connection, job_id: str) -> Job:
    row = connection.execute("SELECT * FROM jobs WHERE id = ?", (job_id,)).fetchone()
    if row is None:
        raise JobNotFoundError
    return _job(row)


def _kinds(job: Job | None) -> tuple[str, ...]:
    """As what a job is counted."""
    if job is None or (job.finished and job.outcome is not Outcome.DEAD):
        return ()
    if job.status is Status.QUEUED:
        return ("ready" if job.ready else "delayed",)
    return ("dead" if job.finished else "running",)


def _filters(query: Browse) -> dict[str, str]:
    """What is asked for by filter, the one to be led by first: most jobs are done, and few are in another state."""
    state = {"state": query.outcome or query.status}
    if query.status is Status.FAILED and query.outcome is None:
        state = {"failed": query.status}
    others = {"agent": query.agent, "command": query.command}
    filters = {**others, **state} if query.status is Status.DONE else {**state, **others}
    return {name: value for name, value in filters.items() if value is not None}


def _browse(*filters: str) -> str:
    return " ".join(("SELECT * FROM jobs", _where(*filters), "AND n >= :end ORDER BY n DESC LIMIT :limit"))


def _last_look(*filters: str) -> str:
    return " ".join(("SELECT n FROM jobs", _where(filters[0]), "ORDER BY n DESC LIMIT 1 OFFSET :looks"))


def _where(*filters: str) -> str:
    """The jobs of the filters, by the index of the first."""
    lead = f"INDEXED BY {_FILTERS[filters[0]][0]}" if filters else ""
    return " ".join((lead, "WHERE", " AND ".join(["n < :before", *(_FILTERS[name][1] for name in filters)])))


def _page(rows: sqlite3.Cursor, limit: int) -> Page:
    """As many rows as the limits allow, and a position if there are more."""
    jobs: list[Job] = []
    size = n = 0
    for row in rows:
        if len(jobs) == limit or size >= _PAGE_CHARACTERS:
            return Page(tuple(jobs), n)
        job, n = _job(row), row["n"]
        jobs.append(job)
        size += len(job.payload) + len(job.result or "") + len(job.error or "")
    return Page(tuple(jobs), None)


def _route(agent: str | None, needs: str) -> Route:
    return Route(agent, frozenset(needs.split(",")) if needs else frozenset())


def _needs(route: Route) -> str:
    return ",".join(sorted(route.needs))


def _job(row: sqlite3.Row) -> Job:
    return Job(
        id=row["id"],
        dialect=row["dialect"],
        command=row["command"],
        payload=row["payload"],
        requires=row["requires"],
        route=_route(row["agent"], row["needs"]),
        created_at=row["created_at"],
        lease_seconds=row["lease_seconds"],
        max_deliveries=row["max_deliveries"],
        retry_seconds=row["retry_seconds"],
        not_before=row["not_before"],
        status=Status(row["status"]),
        outcome=row["outcome"] and Outcome(row["outcome"]),
        started_at=row["started_at"],
        finished_at=row["finished_at"],
        lease_until=row["lease_until"],
        heartbeat_at=row["heartbeat_at"],
        lease_epoch=row["lease_epoch"],
        attempts=row["attempts"],
        worker=row["worker"],
        result=row["result"],
        error=row["error"],
    )


def _values(job: Job) -> dict[str, Any]:
    return {
        "id": job.id,
        "dialect": job.dialect,
        "command": job.command,
        "payload": job.payload,
        "requires": job.requires,
        "agent": job.route.agent,
        "needs": _needs(job.route),
        "created_at": job.created_at,
        "lease_seconds": job.lease_seconds,
        "max_deliveries": job.max_deliveries,
        "retry_seconds": job.retry_seconds,
        "not_before": job.not_before,
        "status": job.status,
        "outcome": job.outcome,
        "started_at": job.started_at,
        "finished_at": job.finished_at,
        "lease_until": job.lease_until,
        "heartbeat_at": job.heartbeat_at,
        "lease_epoch": job.lease_epoch,
        "attempts": job.attempts,
        "worker": job.worker,
        "result": job.result,
        "error": job.error,
    }
