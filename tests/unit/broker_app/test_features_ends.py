"""Cancel, pause and retention, on a real store with a clock that goes when told to."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from broker_app.errors import JobNotFoundError, NotDeadError, NotRunningError
from broker_app.queue.commands import Browse, Report, Submit
from broker_app.queue.job import Lease, Route, Worker
from broker_app.queue.store import Counts, Pause

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable

    from tests.unit.broker_app.conftest import Bench

W1 = Worker("w1")
PING = Submit("ping", "", None, Route(), max_deliveries=1, lease_seconds=60, dialect="jobs")
KEPT = 1000
LATE: dict[str, Callable[[Bench, str, Lease], Any]] = {
    "renew": lambda b, job_id, lease: b.queue.renew(job_id, lease),
    "release": lambda b, job_id, lease: b.queue.release(job_id, lease),
    "report": lambda b, job_id, lease: b.queue.report(Report(job_id, lease.epoch, "late", percent=9), lease),
}


async def ids(b: Bench) -> list[str]:
    return [job.id for job in (await b.queue.browse(Browse(None, None, 200, None))).jobs]


def test_a_cancelled_job_is_never_handed_out(bench: Callable[..., Any], run: Callable[[Any], Any]) -> None:
    async def work() -> None:
        async with bench() as b:
            ready, later = [await b.queue.submit(replace(PING, not_before=when)) for when in (None, b.clock.now + 5)]
            for job in (ready, later):
                ended = await b.queue.cancel(job.id, "why")
                assert (ended.status, ended.outcome, ended.error, ended.finished_at, ended.not_before) == (
                    "failed", "cancelled", "why", b.clock.now, None,
                )  # fmt: skip
            b.clock.now += 5
            await b.queue.reclaim()
            assert await b.queue.claim(W1) is None
            assert await b.queue.counts() == Counts(0, 0, 0, 0, None)

    run(work())


@pytest.mark.parametrize("late", LATE)
def test_a_running_job_that_is_cancelled_has_ended_and_its_holder_is_refused(
    bench: Callable[..., Any], run: Callable[[Any], Any], late: str
) -> None:
    async def work() -> None:
        async with bench() as b:
            job = await b.queue.submit(PING)
            await b.queue.claim(W1)
            ended = await b.queue.cancel(job.id, "why")
            assert (ended.outcome, ended.lease_until, ended.worker) == ("cancelled", None, "w1")
            with pytest.raises(NotRunningError):
                await LATE[late](b, job.id, Lease("w1", 1))
            assert await b.queue.finish(job.id, Lease("w1", 1), "late") == ended
            assert await b.queue.fail(job.id, Lease("w1", 1), "late") == ended
            b.clock.now += 61
            await b.queue.reclaim()
            assert (await b.queue.look(job.id), b.queue.tally["leases_lost"]) == (ended, 0)

    run(work())


def test_who_waits_for_a_job_hears_of_its_cancelling(bench: Callable[..., Any], run: Callable[[Any], Any]) -> None:
    async def work() -> None:
        async with bench() as b:
            job = await b.queue.submit(PING)
            waiting = asyncio.create_task(b.queue.look(job.id, wait=8))
            await asyncio.sleep(0.05)
            await b.queue.cancel(job.id, "")
            assert (await waiting).outcome == "cancelled"

    run(work())


@pytest.mark.parametrize("end", ["done", "failed", "cancelled", "dead"])
def test_a_job_that_has_ended_stays_as_it_ended(bench: Callable[..., Any], run: Callable[[Any], Any], end: str) -> None:
    async def work() -> None:
        async with bench() as b:
            job = await ended(b, end)
            assert job.outcome == end
            b.clock.now += 5
            assert await b.queue.cancel(job.id, "too late") == job
            if end == "dead":
                again = await b.queue.requeue(job.id)
                assert (again.status, again.attempts, again.lease_epoch, again.error) == ("queued", 0, 1, None)
                return
            with pytest.raises(NotDeadError, match=end):
                await b.queue.requeue(job.id)

    run(work())


async def ended(b: Bench, end: str) -> Any:
    job = await b.queue.submit(PING)
    await b.queue.claim(W1)
    if end == "dead":
        await b.queue.hold("w1", frozenset())
    elif end == "cancelled":
        await b.queue.cancel(job.id, "why")
    elif end == "failed":
        await b.queue.fail(job.id, Lease("w1"), "e")
    else:
        await b.queue.finish(job.id, Lease("w1"), "r")
    return await b.queue.look(job.id)


def test_there_is_nothing_to_cancel_or_requeue_of_no_job(bench: Callable[..., Any], run: Callable[[Any], Any]) -> None:
    async def work() -> None:
        async with bench() as b:
            for call in (b.queue.cancel("none", ""), b.queue.requeue("none")):
                with pytest.raises(JobNotFoundError):
                    await call

    run(work())


def test_a_paused_queue_hands_out_nothing_and_takes_what_comes(
    bench: Callable[..., Any], run: Callable[[Any], Any]
) -> None:
    async def work() -> None:
        async with bench() as b:
            running = await b.queue.submit(PING)
            await b.queue.claim(W1)
            await b.queue.pause("mending")
            job = await b.queue.submit(PING)
            assert await b.queue.claim(W1) is None
            assert await b.queue.claim(W1, wait=0.05) is None
            assert (await b.queue.renew(running.id, Lease("w1", 1))).lease_until == b.clock.now + 60
            await b.queue.finish(running.id, Lease("w1", 1), "r")
            assert await b.queue.counts() == Counts(1, 0, 0, 0, b.clock.now)
            assert (await b.queue.look(job.id)).attempts == 0

    run(work())


def test_a_pause_outlives_a_restart_and_a_rollback(bench: Callable[..., Any], run: Callable[[Any], Any]) -> None:
    def fail(_: sqlite3.Connection) -> None:
        raise ValueError("poison")

    async def work() -> None:
        async with bench() as b:
            await b.queue.submit(PING)
            b.clock.now += 0.5
            await b.queue.pause("first")
            await b.queue.pause("mending")
        async with bench() as b:
            assert b.queue.paused() == Pause(b.clock.now + 0.5, "mending")
            assert await b.queue.claim(W1) is None
            with pytest.raises(ValueError, match="poison"):
                await b.database.write(fail)
            assert await b.queue.claim(W1) is None
            await b.queue.resume()
            await b.queue.resume()
        async with bench() as b:
            assert b.queue.paused() is None
            assert await b.queue.claim(W1) is not None

    run(work())


def test_who_waits_through_a_pause_is_served_at_its_end(bench: Callable[..., Any], run: Callable[[Any], Any]) -> None:
    async def work() -> None:
        async with bench() as b:
            early = asyncio.create_task(b.queue.claim(W1, wait=8))
            await asyncio.sleep(0.05)
            await b.queue.pause("")
            jobs = [await b.queue.submit(PING)]
            late = asyncio.create_task(b.queue.claim(W1, wait=8))
            jobs.append(await b.queue.submit(PING))
            await asyncio.sleep(0.05)
            assert [early.done(), late.done()] == [False, False]
            await b.queue.resume()
            served = await asyncio.wait_for(asyncio.gather(early, late), 2)
            assert {job.id for job in served} == {job.id for job in jobs}

    run(work())


def test_time_goes_on_in_a_pause(bench: Callable[..., Any], run: Callable[[Any], Any]) -> None:
    """A lease that ends is lost, and what was put off is ready: both wait for the end of the pause."""

    async def work() -> None:
        async with bench() as b:
            lost = await b.queue.submit(replace(PING, max_deliveries=2))
            await b.queue.claim(W1)
            await b.queue.submit(replace(PING, not_before=b.clock.now + 60))
            await b.queue.pause("")
            b.clock.now += 60
            await b.queue.reclaim()
            assert (await b.queue.counts()).ready == 2
            assert await b.queue.claim(W1) is None
            with pytest.raises(NotRunningError):
                await b.queue.renew(lost.id, Lease("w1", 1))
            await b.queue.resume()
            assert (await b.queue.claim(W1)).id == lost.id

    run(work())


def test_jobs_go_when_they_have_been_kept_long_enough_and_their_events_with_them(
    bench: Callable[..., Any], run: Callable[[Any], Any]
) -> None:
    async def work() -> None:
        async with bench(retention_seconds=KEPT) as b:
            gone = [await ended(b, end) for end in ("done", "failed", "cancelled", "dead")]
            b.clock.now += 1
            stays = await ended(b, "dead")
            later = await b.queue.submit(replace(PING, not_before=b.clock.now + 10 * KEPT))
            running = await b.queue.submit(PING)
            await b.queue.claim(W1, lease_seconds=10 * KEPT)
            queued = await b.queue.submit(PING)
            for job_id in (running.id, stays.id):
                await remember(b, job_id)
            b.clock.now += KEPT
            await b.queue.forget()
            assert await ids(b) == [queued.id, running.id, later.id, stays.id]
            assert await b.database.read(lambda db: db.execute("SELECT count(*) FROM events").fetchone()[0]) == 2
            for job in gone:
                with pytest.raises(JobNotFoundError):
                    await b.queue.look(job.id)
            counts = await b.queue.counts()
            assert (counts.ready, counts.delayed, counts.running, counts.dead) == (1, 1, 1, 1)
            await b.database.write(b.store._recall)
            assert await b.queue.counts() == counts

    run(work())


async def remember(b: Bench, job_id: str) -> None:
    """Keep an event of a job in any state."""
    insert = "INSERT INTO events (job, at, epoch) SELECT n, 0, 1 FROM jobs WHERE id = ?"
    await b.database.write(lambda db: db.execute(insert, (job_id,)) and None)


def test_the_events_of_a_forgotten_job_are_nobody_elses(bench: Callable[..., Any], run: Callable[[Any], Any]) -> None:
    """The next job may have the number that a forgotten one had, and events never have one twice."""

    async def work() -> None:
        async with bench(retention_seconds=KEPT) as b:
            old = await b.queue.submit(PING)
            await b.queue.claim(W1)
            await b.queue.report(Report(old.id, 1, "old"), Lease("w1", 1))
            (event,) = await b.store.events(old.id, 0, 9)
            await b.queue.finish(old.id, Lease("w1", 1), "")
            b.clock.now += KEPT + 1
            await b.queue.forget()
            new = await b.queue.submit(PING)
            await b.queue.claim(W1)
            assert await b.store.events(new.id, 0, 9) == ()
            await b.queue.report(Report(new.id, 1, "new"), Lease("w1", 1))
            assert [each.text for each in await b.store.events(new.id, event.n, 9)] == ["new"]

    run(work())


def test_more_jobs_go_than_one_transaction_removes(bench: Callable[..., Any], run: Callable[[Any], Any]) -> None:
    async def work() -> None:
        async with bench(retention_seconds=KEPT) as b:
            jobs = await b.queue.submit_all((PING,) * 1100)
            await asyncio.gather(*(b.queue.cancel(job.id, "") for job in jobs))
            b.clock.now += KEPT + 1
            await b.queue.forget()
            assert await ids(b) == []

    run(work())


def test_a_requeued_dead_letter_is_kept(bench: Callable[..., Any], run: Callable[[Any], Any]) -> None:
    async def work() -> None:
        async with bench(retention_seconds=KEPT) as b:
            job = await ended(b, "dead")
            await b.queue.requeue(job.id)
            b.clock.now += KEPT + 1
            await b.queue.forget()
            assert await ids(b) == [job.id]

    run(work())


def test_nothing_goes_where_jobs_are_kept_for_ever(bench: Callable[..., Any], run: Callable[[Any], Any]) -> None:
    async def work() -> None:
        async with bench(retention_seconds=0) as b:
            job = await ended(b, "done")
            b.clock.now += 10**9
            await b.queue.forget()
            assert await ids(b) == [job.id]

    run(work())
