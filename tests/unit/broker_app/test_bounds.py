"""What the queue's queries look at: never every job, since there may be a million."""

from __future__ import annotations

import asyncio
import itertools
import re
import threading
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from broker_app.dialects import Arrived, jobs, tasks
from broker_app.dialects.tasks_answers import STATES
from broker_app.queue import job as transitions
from broker_app.queue import listing, rows
from broker_app.queue import sqlite as store
from broker_app.queue.commands import Browse, Submit
from broker_app.queue.job import Job, Lease, Outcome, Route, Status, Worker
from broker_app.settings import Settings

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import AsyncIterator, Awaitable, Callable

    from tests.unit.broker_app.conftest import Bench

LISTS = [
    *((tasks, *given) for given in itertools.product((None, *STATES), (None, "w1"), (None, "ping"))),
    *((jobs, *given, None) for given in itertools.product((None, *Status), (None, "w1"))),
]
ORDER = Submit("ping", "", None, Route(), max_deliveries=1, lease_seconds=60, dialect="tasks")
JOB = Job(id="", dialect="tasks", command="ping", created_at=0.0, lease_seconds=60, max_deliveries=1, worker="w1")
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
    "submit under a key": lambda b: b.queue.submit(replace(ORDER, idempotency_key="k")),
    "forget": lambda b: b.store.forget(0.0),
    "events": lambda b: b.store.events("", 0, 1),
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


@pytest.mark.parametrize("asked", LISTS, ids=lambda asked: f"{asked[0].__name__[20:]}{asked[1:]}")
def test_no_list_looks_at_more_jobs_than_it_may(
    bench: Callable[..., Any], run: Callable[[Any], Any], monkeypatch: pytest.MonkeyPatch, asked: tuple[Any, ...]
) -> None:
    """Of two thousand jobs the oldest are, one of each state, of the agent and of the type: cursors lead to them."""
    monkeypatch.setattr(listing, "_LOOKS", 100)
    given = zip(("status", "agent", "type"), asked[1:], strict=True)
    query = {name: value for name, value in given if value is not None}
    command = asked[0].parse_browse(Arrived({}, {**query, "limit": "5"}, {}, b""), Settings.from_environment({}))

    async def work(command: Browse) -> None:
        async with bench() as b:
            oldest = [replace(JOB, id=word, status=state[0], outcome=state[1]) for word, state in STATES.items()]
            others = itertools.cycle([("ping", "w2"), ("exec", "w1"), ("exec", "w2")])
            rest = [
                replace(job, id=str(n), command=other[0], worker=other[1])
                for n, (job, other) in enumerate(zip(oldest * 333, others, strict=False))
            ]
            await b.database.write(partial(insert, jobs=[*oldest, *rest]))
            found = set()
            while True:
                async with noted(b) as queries:
                    page = await b.queue.browse(command)
                plans = [await b.database.read(partial(plan, query=made)) for made in queries]
                # The last look and the page are by the same index, so there is no more between them than was looked at.
                assert len({used.replace("COVERING ", "").partition(" (")[0] for used in plans}) == 1, plans
                assert re.fullmatch(r"SEARCH jobs USING [^;]*", plans[0]), plans
                assert sum([await steps(b, made) for made in queries]) < 100 * 20
                found |= {job.id for job in page.jobs}
                if page.before is None:
                    break
                command = replace(command, before=page.before)
            assert found == {job.id for job in (*oldest, *rest) if fits(job, command)}

    run(work(command))


def insert(connection: sqlite3.Connection, jobs: list[Job]) -> None:
    connection.executemany(rows.INSERT, map(rows.inserted, jobs))


def fits(job: Job, query: Browse) -> bool:
    asked = {"status": query.status, "outcome": query.outcome, "worker": query.agent, "command": query.command}
    return all(value in (None, getattr(job, name)) for name, value in asked.items())


@pytest.mark.parametrize(
    ("query", "values", "index"),
    [
        (store._NEXT, (None, ""), "jobs_queued (agent=? AND needs=? AND not_before=?)"),
        (store._LOST, (0.0, 1), "jobs_running (lease_until<?)"),
        (store._PUT_OFF, (0.0, 1), "jobs_put_off (not_before<?)"),
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
            await asyncio.gather(*(b.queue.submit(ORDER) for _ in range(1000)))
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


def test_a_rare_type_or_agent_leads_to_what_it_has_done(
    bench: Callable[..., Any], run: Callable[[Any], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listing, "_LOOKS", 100)
    done = replace(JOB, status=Status.DONE, outcome=Outcome.DONE, worker="w2")

    async def work() -> None:
        async with bench() as b:
            rare = [replace(done, id="type", command="rare"), replace(done, id="agent", worker="w1")]
            await b.database.write(partial(insert, jobs=[*rare, *(replace(done, id=str(n)) for n in range(300))]))
            anything = Browse(status=Status.DONE, agent=None, limit=5, before=None)
            for job, query in zip(
                rare, (replace(anything, command="rare"), replace(anything, agent="w1")), strict=True
            ):
                page = await b.queue.browse(query)
                assert ([found.id for found in page.jobs], page.before) == ([job.id], None)

    run(work())


def test_what_is_rolled_back_is_not_counted(bench: Callable[..., Any], run: Callable[[Any], Any]) -> None:
    """A submission is counted, undone with its neighbour that fails, and done again alone."""

    def fail(_: sqlite3.Connection) -> None:
        raise ValueError("poison")

    async def work() -> None:
        async with bench() as b:
            busy, go = threading.Event(), threading.Event()

            def hold(_: sqlite3.Connection) -> None:
                busy.set()
                go.wait(5)

            held = b.database.write(hold)
            await asyncio.to_thread(busy.wait, 5)
            good = asyncio.create_task(b.queue.submit(ORDER))
            await asyncio.sleep(0)  # it waits for the writer now
            bad = b.database.write(fail)
            go.set()
            with pytest.raises(ValueError, match="poison"):
                await bad
            await asyncio.gather(held, good)
            assert (await b.queue.counts()).ready == 1

    run(work())


def test_the_dead_do_not_fill_the_queue(bench: Callable[..., Any], run: Callable[[Any], Any]) -> None:
    async def work() -> None:
        async with bench(max_unfinished=1) as b:
            for _ in range(3):
                await b.queue.submit(ORDER)
                await b.queue.claim(W1)
                await b.queue.hold("w1", frozenset())
            assert (await b.queue.counts()).dead == 3

    run(work())
