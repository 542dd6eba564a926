"""The queue on a real store, with a clock that goes when told to."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from broker_app.agents import Role
from broker_app.broker import Broker
from broker_app.dialects import Identity
from broker_app.errors import LeaseLostError, QueueFullError, StorageFailedError, TooManySubmissionsError
from broker_app.queue.commands import Browse, Claim, Submit
from broker_app.queue.job import Job, Lease, Outcome, Route, Status, Worker
from broker_app.queue.routes import RouteIndex
from broker_app.queue.store import Counts
from broker_app.settings import Settings

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable

    from tests.unit.broker_app.conftest import Bench

W1 = Worker("w1", frozenset({"a"}))


def order(*needs: str, agent: str | None = None, deliveries: int = 5) -> Submit:
    route = Route(agent, frozenset(needs))
    return Submit("ping", "", None, route, max_deliveries=deliveries, lease_seconds=60, dialect="jobs")


def probes(statements: list[str]) -> int:
    """How many routes were looked at for a job."""
    return sum("AND needs = " in statement for statement in statements)


RETRIED = replace(order(), dialect="tasks", retry_seconds=100)


def test_a_lease_ends_with_the_clock(bench: Callable[..., Any], run: Callable[[Any], Any]) -> None:
    async def work() -> None:
        async with bench() as b:
            job = await b.queue.submit(order(deliveries=2))
            await b.queue.claim(W1)
            assert await b.queue.reclaim() == 1.0
            b.clock.now += 59.5
            assert await b.queue.reclaim() == pytest.approx(0.5)
            assert (await b.queue.look(job.id)).status == "running"
            b.clock.now += 0.5
            assert await b.queue.reclaim() == 1.0
            assert (await b.queue.look(job.id)).status == "queued"
            again = await b.queue.claim(W1)
            assert (again.attempts, again.lease_epoch, again.started_at) == (2, 2, b.clock.now)
            b.clock.now += 60
            await b.queue.reclaim()
            assert (await b.queue.look(job.id)).outcome == "dead"
            assert await b.queue.claim(W1) is None

    run(work())


@pytest.mark.parametrize("loser", [W1, Worker()], ids=["named", "nameless"])
def test_a_lost_lease_ends_what_its_worker_waits_for_and_nobody_elses_wait(
    bench: Callable[..., Any], run: Callable[[Any], Any], loser: Worker
) -> None:
    """The job goes to the other, who has waited for less long, with the next epoch: in between nobody had it."""

    async def work() -> None:
        async with bench() as b:
            job = await b.queue.submit(order())
            await b.queue.claim(loser)
            deaf = [asyncio.create_task(b.queue.claim(loser, wait=8)) for _ in range(2)]
            other = asyncio.create_task(b.queue.claim(Worker("w2"), wait=8))
            await asyncio.sleep(0.05)
            b.clock.now += 60
            await b.queue.reclaim()
            again = await other
            assert (again.id, again.attempts, again.lease_epoch) == (job.id, 2, 2)
            assert [task.done() and task.result() for task in deaf] == [None, None]

    run(work())


def test_a_worker_that_is_dismissed_waits_no_longer_and_others_do(
    bench: Callable[..., Any], run: Callable[[Any], Any]
) -> None:
    async def work() -> None:
        async with bench() as b:
            waiting = {
                name: asyncio.create_task(b.queue.claim(Worker(name), wait=8)) for name in (None, "w", "w1", "w10")
            }
            await asyncio.sleep(0.05)
            await b.queue.dismiss("w1")
            await asyncio.sleep(0.05)
            assert [name for name, task in waiting.items() if task.done()] == ["w1"]
            assert await waiting["w1"] is None
            b.queue.stop_waiting()
            await asyncio.gather(*waiting.values())

    run(work())


def test_nothing_ends_the_timer(bench: Callable[..., Any], run: Callable[[Any], Any]) -> None:
    async def work() -> None:
        async with bench() as b:
            job = await b.queue.submit(order())
            await b.queue.claim(W1)
            expire, failures = b.store.take_due, [StorageFailedError("disk"), ValueError("bug")]

            async def failing(*arguments: Any) -> Any:
                if failures:
                    raise failures.pop()
                return await expire(*arguments)

            b.store.take_due = failing
            b.clock.now += 61
            timer = asyncio.create_task(b.queue.keep_time())
            again = await b.queue.claim(Worker("w2"), wait=8)
            assert (again.id, again.attempts, failures) == (job.id, 2, [])
            timer.cancel()

    run(work())


def test_a_renewed_lease_counts_from_then(bench: Callable[..., Any], run: Callable[[Any], Any]) -> None:
    async def work() -> None:
        async with bench() as b:
            job = await b.queue.submit(order())
            await b.queue.claim(W1)
            b.clock.now += 50
            assert (await b.queue.renew(job.id, Lease("w1", 1))).lease_until == b.clock.now + 60
            b.clock.now += 59
            await b.queue.reclaim()
            assert (await b.queue.look(job.id)).status == "running"

    run(work())


def test_a_lease_that_is_renewed_as_it_begins_is_as_it_was(
    bench: Callable[..., Any], run: Callable[[Any], Any]
) -> None:
    async def work() -> None:
        async with bench() as b:
            job = await b.queue.submit(order())
            claimed = await b.queue.claim(W1)
            assert await b.queue.renew(job.id, Lease("w1", 1)) == claimed == await b.queue.look(job.id)

    run(work())


def test_more_leases_than_one_transaction_takes_back(bench: Callable[..., Any], run: Callable[[Any], Any]) -> None:
    async def work() -> None:
        async with bench() as b:
            jobs = await asyncio.gather(*(b.queue.submit(order()) for _ in range(1100)))
            await asyncio.gather(*(b.queue.claim(W1) for _ in jobs))
            b.clock.now += 61
            await b.queue.reclaim()
            page = await b.queue.browse(Browse(status=None, agent=None, limit=200, before=None))
            assert {job.status for job in page.jobs} == {"queued"}
            assert await b.queue.running() == {}

    run(work())


@pytest.mark.parametrize("way", ["release", "expire"])
def test_a_requeued_job_is_found_by_workers_that_found_nothing_meanwhile(
    bench: Callable[..., Any], run: Callable[[Any], Any], way: str
) -> None:
    async def work() -> None:
        async with bench() as b:
            job = await b.queue.submit(order("a"))
            assert (await b.queue.claim(W1)).id == job.id
            assert await b.queue.claim(W1) is None
            if way == "release":
                await b.queue.release(job.id, Lease("w1", 1))
            else:
                b.clock.now += 61
                await b.queue.reclaim()
            assert (await b.queue.claim(W1)).id == job.id

    run(work())


def test_concurrent_claims_share_no_job(bench: Callable[..., Any], run: Callable[[Any], Any]) -> None:
    async def work() -> None:
        async with bench() as b:
            jobs = await asyncio.gather(*(b.queue.submit(order()) for _ in range(300)))
            claimed = await asyncio.gather(*(b.queue.claim(W1) for _ in range(400)))
            ids = [job.id for job in claimed if job]
            assert sorted(ids) == sorted(job.id for job in jobs)

    run(work())


def test_a_job_wakes_one_waiter_that_may_run_it(bench: Callable[..., Any], run: Callable[[Any], Any]) -> None:
    async def work() -> None:
        async with bench() as b:
            waiters = [asyncio.create_task(b.queue.claim(W1, wait=8)) for _ in range(3)]
            foreign = asyncio.create_task(b.queue.claim(Worker("w2"), wait=8))
            await asyncio.sleep(0.1)
            statements: list[str] = []
            await b.database.write(lambda connection: connection.set_trace_callback(statements.append))
            job = await b.queue.submit(order("a"))
            assert (await waiters[0]).id == job.id
            await asyncio.sleep(0.1)
            assert probes(statements) == 1
            b.queue.stop_waiting()
            assert await asyncio.gather(*waiters[1:], foreign) == [None, None, None]
            assert await b.queue.claim(W1, wait=8) is None

    run(work())


def test_a_waiter_that_takes_another_job_passes_its_wake_on(
    bench: Callable[..., Any], run: Callable[[Any], Any]
) -> None:
    """One that can do both is woken for `a` and finds the older `b`: the other waiter must get `a`."""

    async def work() -> None:
        async with bench() as b:
            both = Worker("both", frozenset({"a", "b"}))
            first = asyncio.create_task(b.queue.claim(both, wait=8))
            await asyncio.sleep(0.05)
            second = asyncio.create_task(b.queue.claim(W1, wait=8))
            await asyncio.sleep(0.05)
            jobs = [Job(id=n, dialect="jobs", command="ping", created_at=0, lease_seconds=60, max_deliveries=1,
                        route=Route(None, frozenset(n))) for n in "ba"]  # fmt: skip
            b.store._listeners.clear()
            for job in jobs:
                await b.store.add((job,), limit=0)
            b.queue._on_change(jobs[1])
            assert [job.id for job in await asyncio.gather(first, second)] == ["b", "a"]

    run(work())


def test_a_hangup_ends_a_wait_and_passes_the_wake_on(bench: Callable[..., Any], run: Callable[[Any], Any]) -> None:
    async def work() -> None:
        async with bench() as b:
            hangup: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            gone = asyncio.create_task(b.queue.claim(W1, wait=8, hangup=hangup))
            here = asyncio.create_task(b.queue.claim(W1, wait=8))
            await asyncio.sleep(0.05)
            hangup.set_result(None)
            job = await b.queue.submit(order("a"))
            assert (await here).id == job.id
            assert await gone is None

    run(work())


def test_a_job_claimed_for_a_caller_that_hung_up_is_given_back(
    bench: Callable[..., Any], run: Callable[[Any], Any]
) -> None:
    async def work() -> None:
        async with bench() as b:
            broker = Broker(Settings.from_environment({"WORKER_TOKEN": "w"}), b.database, b.store)
            principal, token = await broker.admit({Role.WORKER: "w"}, frozenset({Role.WORKER}))
            caller = broker.identify(principal, token, Identity("w1", ("a",)))
            hangup: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            job = await b.queue.submit(order("a"))
            hangup.set_result(None)
            assert await broker.perform(Claim(5.0), caller, hangup) is None
            given_back = await b.queue.look(job.id)
            assert (given_back.status, given_back.attempts, given_back.lease_epoch) == ("queued", 0, 1)

    run(work())


def test_a_claim_that_is_committed_as_its_worker_disowns_it_gets_nothing_and_is_not_charged(
    bench: Callable[..., Any], run: Callable[[Any], Any]
) -> None:
    async def work() -> None:
        async with bench() as b:
            job = await b.queue.submit(order("a"))
            claim = asyncio.create_task(b.queue.claim(W1, wait=8))
            await asyncio.sleep(0)  # it is with the writer now
            assert await b.queue.hold("w1", frozenset()) == ()
            assert await claim is None
            given_back = await b.queue.look(job.id)
            assert (given_back.status, given_back.attempts, given_back.lease_epoch) == ("queued", 0, 1)

    run(work())


def test_a_cancelled_waiter_passes_its_wake_on(bench: Callable[..., Any], run: Callable[[Any], Any]) -> None:
    async def work() -> None:
        async with bench() as b:
            cancelled = asyncio.create_task(b.queue.claim(W1, wait=8))
            here = asyncio.create_task(b.queue.claim(W1, wait=8))
            await asyncio.sleep(0.05)
            job = Job(id="j", dialect="jobs", command="ping", created_at=0, lease_seconds=60, max_deliveries=1)
            b.store._listeners.clear()
            await b.store.add((job,), limit=0)
            b.queue._on_change(job)
            cancelled.cancel()
            assert (await here).id == "j"

    run(work())


def test_the_rate_is_counted_per_submitter_and_minute(bench: Callable[..., Any], run: Callable[[Any], Any]) -> None:
    async def work() -> None:
        async with bench(per_minute=2) as b:
            for _ in range(2):
                await b.queue.submit(order(), "one")
            b.clock.now += 10
            with pytest.raises(TooManySubmissionsError) as error:
                await b.queue.submit(order(), "one")
            assert error.value.retry_after == 50
            await b.queue.submit(order(), "two")
            b.clock.now += 50
            await b.queue.submit(order(), "one")

    run(work())


def test_the_count_of_unfinished_jobs_survives_a_rollback_and_a_restart(
    bench: Callable[..., Any], run: Callable[[Any], Any]
) -> None:
    def fail(_: sqlite3.Connection) -> None:
        raise ValueError("poison")

    async def fill(b: Bench) -> int:
        count = 0
        while True:
            try:
                await b.queue.submit(order("a"))
            except QueueFullError:
                return count
            count += 1

    async def work() -> None:
        async with bench(max_unfinished=5) as b:
            good = asyncio.gather(*(b.queue.submit(order("a")) for _ in range(2)))
            with pytest.raises(ValueError, match="poison"):
                await b.database.write(fail)
            await good
            assert await fill(b) == 3
            job = await b.queue.claim(W1)
            await b.queue.finish(job.id, Lease("w1"), "")
            await b.queue.finish(job.id, Lease("w1"), "")
            assert await fill(b) == 1
        async with bench(max_unfinished=7) as b:
            assert await fill(b) == 2
            assert len([1 for _ in range(10) if await b.queue.claim(W1)]) == 7

    run(work())


def test_a_rolled_back_claim_does_not_hide_its_route(bench: Callable[..., Any], run: Callable[[Any], Any]) -> None:
    """Inside the failing transaction the route looks empty; after the rollback it is not."""

    async def work() -> None:
        async with bench() as b:
            job = await b.queue.submit(order("a"))

            def claim_and_fail(connection: sqlite3.Connection) -> None:
                connection.execute("UPDATE jobs SET status = 'running'")
                assert b.store._next(connection, W1) is None
                raise ValueError("poison")

            with pytest.raises(ValueError, match="poison"):
                await b.database.write(claim_and_fail)
            assert (await b.queue.claim(W1)).id == job.id

    run(work())


def test_a_failed_try_comes_back_in_its_time(bench: Callable[..., Any], run: Callable[[Any], Any]) -> None:
    async def work() -> None:
        async with bench() as b:
            job = await b.queue.submit(RETRIED)
            await b.queue.claim(W1)
            put_off = await b.queue.fail(job.id, Lease("w1", 1), "e")
            assert 90 <= put_off.not_before - b.clock.now <= 110
            assert await b.queue.claim(W1) is None
            waiter = asyncio.create_task(b.queue.claim(W1, wait=8))
            b.clock.now += 89.9
            assert 0 < await b.queue.reclaim() <= 1.0
            await asyncio.sleep(0.05)
            assert not waiter.done()
            b.clock.now = put_off.not_before
            await b.queue.reclaim()
            assert ((await waiter).id, (await waiter).attempts) == (job.id, 2)

    run(work())


def test_back_offs_differ(bench: Callable[..., Any], run: Callable[[Any], Any]) -> None:
    async def work() -> None:
        async with bench() as b:
            for _ in range(30):
                await b.queue.submit(RETRIED)
            jobs = [await b.queue.claim(W1) for _ in range(30)]
            failed = [await b.queue.fail(job.id, Lease("w1"), "e") for job in jobs]
            assert len({job.not_before for job in failed}) > 20

    run(work())


def test_what_is_put_off_hides_nothing_and_survives(bench: Callable[..., Any], run: Callable[[Any], Any]) -> None:
    async def work() -> None:
        async with bench() as b:
            await b.queue.submit(RETRIED)
            first = await b.queue.claim(W1)
            await b.queue.fail(first.id, Lease("w1"), "e")
            second = await b.queue.submit(order())
            assert (await b.queue.claim(W1)).id == second.id
        async with bench(max_unfinished=2) as b:
            assert await b.queue.claim(W1) is None
            with pytest.raises(QueueFullError):
                await b.queue.submit(order())
            b.clock.now += 111
            await b.queue.reclaim()
            assert await b.queue.claim(W1) == replace(
                first,
                attempts=2,
                lease_epoch=2,
                started_at=b.clock.now,
                heartbeat_at=b.clock.now,
                lease_until=b.clock.now + 60,
            )

    run(work())


def test_a_dead_letter_counts_as_unfinished_again(bench: Callable[..., Any], run: Callable[[Any], Any]) -> None:
    async def work() -> None:
        async with bench(max_unfinished=1) as b:
            job = await b.queue.submit(order(deliveries=1))
            await b.queue.claim(W1)
            b.clock.now += 61
            await b.queue.reclaim()
            waiter = asyncio.create_task(b.queue.claim(W1, wait=8))
            await asyncio.sleep(0.05)
            await b.queue.requeue(job.id)
            assert (await waiter).id == job.id
            with pytest.raises(QueueFullError):
                await b.queue.submit(order())
            await b.queue.cancel(job.id, "enough")
            await b.queue.submit(order())

    run(work())


def test_what_there_is_is_counted(bench: Callable[..., Any], run: Callable[[Any], Any]) -> None:
    async def work() -> None:
        async with bench() as b:
            assert await b.queue.counts() == Counts(0, 0, 0, 0, None)
            for each in (order(deliveries=1), RETRIED, order(), order(), order()):
                await b.queue.submit(each)
                b.clock.now += 1
            jobs = [await b.queue.claim(W1) for _ in range(3)]
            await b.queue.fail(jobs[1].id, Lease("w1"), "e")
            assert await b.queue.counts() == Counts(2, 1, 2, 0, b.clock.now - 2)
            b.clock.now += 60
            await b.queue.reclaim()
            assert await b.queue.counts() == Counts(3, 1, 0, 1, b.clock.now - 63)

    run(work())


@pytest.mark.parametrize(
    ("filters", "found"),
    [
        ({}, [2, 1, 0]),
        ({"command": "exec"}, [2]),
        ({"outcome": Outcome.DEAD}, [0]),
        ({"status": Status.FAILED, "outcome": Outcome.FAILED}, [1]),
        ({"status": Status.QUEUED, "agent": "x", "command": "exec"}, [2]),
        ({"outcome": Outcome.DEAD, "command": "exec"}, []),
    ],
)
def test_filters(
    bench: Callable[..., Any], run: Callable[[Any], Any], filters: dict[str, Any], found: list[int]
) -> None:
    async def work() -> None:
        async with bench() as b:
            jobs = [await b.queue.submit(order(deliveries=1)) for _ in range(2)]
            jobs.append(await b.queue.submit(replace(order(agent="x"), command="exec")))
            for _ in range(2):
                await b.queue.claim(W1)
            await b.queue.fail(jobs[1].id, Lease("w1"), "e")
            b.clock.now += 61
            await b.queue.reclaim()
            query = Browse(**{"status": None, "agent": None, "limit": 9, "before": None, **filters})
            assert [job.id for job in (await b.queue.browse(query)).jobs] == [jobs[n].id for n in found]

    run(work())


def test_a_refused_change_leaves_the_job_alone(bench: Callable[..., Any], run: Callable[[Any], Any]) -> None:
    async def work() -> None:
        async with bench() as b:
            job = await b.queue.submit(order())
            claimed = await b.queue.claim(W1)
            with pytest.raises(LeaseLostError):
                await b.queue.finish(job.id, Lease("w2"), "r")
            assert await b.queue.look(job.id) == claimed

    run(work())


def test_foreign_jobs_cost_a_claim_nothing(bench: Callable[..., Any], run: Callable[[Any], Any]) -> None:
    """Behind 2,000 foreign jobs of 200 kinds, a claim makes as many probes as on an empty queue."""

    async def work() -> None:
        async with bench() as b:
            orders = [order(f"foreign-{n % 200}", "a") for n in range(2_000)]
            await asyncio.gather(*(b.queue.submit(each) for each in orders))
            job = await b.queue.submit(order("a"))
            statements: list[str] = []

            def trace(connection: sqlite3.Connection) -> None:
                connection.set_trace_callback(statements.append)

            await b.database.write(trace)
            assert (await b.queue.claim(W1)).id == job.id
            assert probes(statements) == 1

    run(work())


def test_a_route_index_looks_at_nothing_foreign() -> None:
    index = RouteIndex()
    for n in range(50_000):
        index.add(Route(None, frozenset({f"f{n}", "z"})))
    mine = [Route(), Route("w1"), Route(None, frozenset("a")), Route("w1", frozenset("a"))]
    for route in mine:
        index.add(route)
    began = time.perf_counter()
    for _ in range(1000):
        found = index.open_to(Worker("w1", frozenset({"a", "z"})))
    assert time.perf_counter() - began < 1
    assert sorted(map(repr, found)) == sorted(map(repr, mine))
    for route in mine:
        index.discard(route)
    assert index.open_to(W1) == []
