"""What the queue's queries look at: never every job, since there may be a million."""

from __future__ import annotations

import re
import uuid
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from broker_app.queue import job as transitions
from broker_app.queue import sqlite as store
from broker_app.queue.commands import Submit
from broker_app.queue.job import Job, Lease, Route, Worker

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import AsyncIterator, Awaitable, Callable

    from tests.unit.broker_app.conftest import Bench

ORDER = Submit("ping", "", None, Route(), max_deliveries=1, lease_seconds=60, dialect="tasks")
JOB = Job(id="", dialect="tasks", command="ping", created_at=0.0, lease_seconds=60, max_deliveries=1)
W1 = Worker("w1")
CALLS: dict[str, Callable[[Bench], Awaitable[Any]]] = {
    "start and rollback": lambda b: b.database.write(b.store._recall),
    "claim": lambda b: b.queue.claim(W1),
    "reclaim": lambda b: b.queue.reclaim(),
    "losers": lambda b: b.store.losers(0.0),
    "take due": lambda b: b.store.take_due(0.0, partial(transitions.fall_due, now=0.0)),
    "hold": lambda b: b.queue.hold("w1", frozenset()),
    "disown": lambda b: b.queue.disown("w1", "", requeue=True),
    "running": lambda b: b.queue.running(),
    "counts": lambda b: b.queue.counts(),
}


@asynccontextmanager
async def noted(b: Bench) -> AsyncIterator[list[str]]:
    """The queries that are made meanwhile, with their values."""
    queries: list[str] = []

    def note(statement: str) -> None:
        if statement.lstrip().startswith("SELECT"):
            queries.append(statement)

    await b.database.write(lambda connection: connection.set_trace_callback(note))
    await b.database.read(lambda connection: connection.set_trace_callback(note))
    yield queries
    await b.database.write(lambda connection: connection.set_trace_callback(None))
    await b.database.read(lambda connection: connection.set_trace_callback(None))


def plan(connection: sqlite3.Connection, query: str) -> str:
    return "; ".join(row["detail"] for row in connection.execute(f"EXPLAIN QUERY PLAN {query}"))


async def steps(b: Bench, query: str) -> int:
    """How many steps SQLite's machine takes for a query."""
    count = 0

    def step() -> None:
        nonlocal count
        count += 1

    def ask(connection: sqlite3.Connection) -> None:
        connection.set_progress_handler(step, 1)
        connection.execute(query).fetchall()
        connection.set_progress_handler(None, 1)

    await b.database.read(ask)
    return count


@pytest.mark.parametrize("call", CALLS)
def test_no_call_looks_at_every_job(bench: Callable[..., Any], run: Callable[[Any], Any], call: str) -> None:
    async def work() -> None:
        async with bench() as b:
            await b.queue.submit(replace(ORDER, route=Route("w1")))
            async with noted(b) as queries:
                await CALLS[call](b)
            assert queries
            for query in queries:
                used = await b.database.read(partial(plan, query=query))
                assert not re.search("SCAN jobs(?! USING INDEX jobs_(queued|running))|TEMP B-TREE", used), (query, used)

    run(work())


@pytest.mark.parametrize(
    ("query", "values", "index"),
    [
        (store._OLDEST, (None, ""), "jobs_queued (agent=? AND needs=? AND not_before=?)"),
        (store._LOST, (0.0, 1), "jobs_running (lease_until<?)"),
        (store._PUT_OFF, (0.0, 1), "jobs_put_off (not_before<?)"),
        (store._browse("agent"), {"before": 1, "agent": "a", "limit": 1}, "jobs_of_agent (<expr>=? AND rowid<?)"),
    ],
)
def test_a_query_uses_its_index(
    bench: Callable[..., Any], run: Callable[[Any], Any], query: str, values: Any, index: str
) -> None:
    async def work() -> None:
        async with bench() as b:
            explain = f"EXPLAIN QUERY PLAN {query}"
            rows = await b.database.read(lambda connection: connection.execute(explain, values).fetchall())
            assert index in rows[0]["detail"]

    run(work())


def test_jobs_are_counted_without_being_looked_at(bench: Callable[..., Any], run: Callable[[Any], Any]) -> None:
    """A health check asks often: its one query is for the oldest job that is ready, and finds it at once."""

    async def work() -> None:
        async with bench() as b:
            for _ in range(1000):
                await b.store.add(replace(JOB, id=str(uuid.uuid4())), limit=0)
            async with noted(b) as queries:
                counts = await b.queue.counts()
            assert (counts.ready, len(queries)) == (1000, 1)
            assert await steps(b, queries[0]) < 100

    run(work())


def test_the_counts_are_those_of_the_table(bench: Callable[..., Any], run: Callable[[Any], Any]) -> None:
    """Whatever happens to jobs, what is kept is what a new start would count."""

    async def work() -> None:
        async with bench() as b:
            retried = replace(ORDER, retry_seconds=100, max_deliveries=2)
            for order in (*[retried] * 4, *[ORDER] * 8):
                await b.queue.submit(order)
            jobs = [await b.queue.claim(W1) for _ in range(11)]
            for job in jobs[:3]:
                await b.queue.fail(job.id, Lease("w1"), "e")
            await b.queue.release(jobs[3].id, Lease("w1"))
            await b.queue.finish(jobs[4].id, Lease("w1"), "r")
            await b.queue.finish(jobs[4].id, Lease("w1"), "again")
            await b.queue.fail(jobs[5].id, Lease("w1"), "e")
            for job in (jobs[0], jobs[6]):
                await b.queue.cancel(job.id, "")
            await b.queue.hold("w1", frozenset((job.id, 1) for job in jobs[8:]))
            await b.queue.requeue(jobs[7].id)
            await b.queue.hold("w1", frozenset((job.id, 1) for job in jobs[9:]))
            kept = await b.queue.counts()
            assert (kept.ready, kept.delayed, kept.running, kept.dead) == (3, 2, 2, 1)
            await b.database.write(b.store._recall)
            assert await b.queue.counts() == kept
            b.clock.now += 1000
            await b.queue.reclaim()
            kept = await b.queue.counts()
            assert (kept.ready, kept.delayed, kept.running, kept.dead) == (5, 0, 0, 3)
            await b.database.write(b.store._recall)
            assert await b.queue.counts() == kept

    run(work())
