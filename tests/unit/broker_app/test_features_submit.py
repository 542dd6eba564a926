"""Idempotency keys, batches, priorities and times to begin, on a real store with a clock that goes when told to."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from broker_app.agents import Role
from broker_app.broker import Broker
from broker_app.dialects import Identity
from broker_app.errors import BatchTooLargeError, KeyReusedError, QueueFullError, TooManySubmissionsError
from broker_app.queue.commands import Submit, SubmitAll
from broker_app.queue.job import Lease, Route, Worker
from broker_app.queue.store import Counts
from broker_app.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.unit.broker_app.conftest import Bench

W1 = Worker("w1", frozenset({"a", "b"}))
PING = Submit("ping", "", None, Route(), max_deliveries=2, lease_seconds=60, dialect="jobs")
KEYED = replace(PING, idempotency_key="k")


async def names(b: Bench, worker: Worker = W1) -> str:
    """The payloads of what a worker gets, in the order in which it gets it."""
    found = ""
    while job := await b.queue.claim(worker):
        found += job.payload
    return found


def named(name: str, **fields: Any) -> Submit:
    return replace(PING, payload=name, **fields)


def test_the_same_words_under_a_key_are_the_same_job(bench: Callable[..., Any], run: Callable[[Any], Any]) -> None:
    async def work() -> None:
        async with bench() as b:
            job = await b.queue.submit(KEYED)
            assert await b.queue.submit(KEYED) == job
            running = await b.queue.claim(W1)
            assert await b.queue.submit(KEYED) == running
            assert await b.queue.claim(W1) is None
            done = await b.queue.finish(job.id, Lease("w1"), "r")
        async with bench() as b:
            assert await b.queue.submit(KEYED) == done
            assert (b.queue.tally["jobs_submitted"], (await b.queue.counts()).ready) == (0, 0)

    run(work())


@pytest.mark.parametrize(
    "other",
    [
        {"command": "exec"}, {"payload": "p"}, {"requires": "{}"}, {"route": Route("x")},
        {"route": Route(None, frozenset("a"))}, {"max_deliveries": 3}, {"priority": 1}, {"not_before": 5.0},
    ],
    ids=str,
)  # fmt: skip
def test_other_words_under_a_key_are_refused_and_name_the_job(
    bench: Callable[..., Any], run: Callable[[Any], Any], other: dict[str, Any]
) -> None:
    async def work() -> None:
        async with bench() as b:
            job = await b.queue.submit(KEYED)
            with pytest.raises(KeyReusedError, match=f"'k'.*{job.id}"):
                await b.queue.submit(replace(KEYED, **other))
            assert (await b.queue.counts()).ready == 1

    run(work())


def test_a_setting_of_the_broker_is_none_of_a_submissions_words(
    bench: Callable[..., Any], run: Callable[[Any], Any]
) -> None:
    async def work() -> None:
        async with bench() as b:
            job = await b.queue.submit(KEYED)
            later = await b.queue.submit(replace(KEYED, lease_seconds=61, retry_seconds=9))
            assert (later.id, later.lease_seconds) == (job.id, 60)

    run(work())


def test_the_order_of_capabilities_is_none_of_its_words(bench: Callable[..., Any], run: Callable[[Any], Any]) -> None:
    async def work() -> None:
        async with bench() as b:
            many = [f"cap{n}" for n in range(20)]
            jobs = [
                await b.queue.submit(replace(KEYED, route=Route(None, frozenset(caps)))) for caps in (many, many[::-1])
            ]
            assert jobs[0].id == jobs[1].id

    run(work())


def test_a_key_is_one_submitters(bench: Callable[..., Any], run: Callable[[Any], Any]) -> None:
    async def work() -> None:
        async with bench() as b:
            jobs = [await b.queue.submit(KEYED, who) for who in ("one", "two", None, "one", None)]
            assert [jobs.index(job) for job in jobs] == [0, 1, 2, 0, 2]
            await b.queue.submit(replace(KEYED, idempotency_key="other"), "one")
            assert (await b.queue.counts()).ready == 4

    run(work())


def test_submissions_at_once_under_one_key_are_one_job(bench: Callable[..., Any], run: Callable[[Any], Any]) -> None:
    async def work() -> None:
        async with bench() as b:
            jobs = await asyncio.gather(*(b.queue.submit(KEYED) for _ in range(20)))
            assert {job.id for job in jobs} == {jobs[0].id}
            assert (b.queue.tally["jobs_submitted"], (await b.queue.counts()).ready) == (1, 1)

    run(work())


def test_a_key_ends_with_its_job(bench: Callable[..., Any], run: Callable[[Any], Any]) -> None:
    async def work() -> None:
        async with bench(retention_seconds=10) as b:
            job = await b.queue.submit(KEYED)
            await b.queue.cancel(job.id, "")
            b.clock.now += 11
            await b.queue.forget()
            again = await b.queue.submit(replace(KEYED, payload="other words"))
            assert (again.id != job.id, again.status) == (True, "queued")

    run(work())


def test_a_repetition_needs_no_room(bench: Callable[..., Any], run: Callable[[Any], Any]) -> None:
    async def work() -> None:
        async with bench(max_unfinished=2) as b:
            jobs = [await b.queue.submit(KEYED), await b.queue.submit(PING)]
            await b.store.add((replace(jobs[1], id="over the limit, as a requeued dead letter is"),), limit=0)
            assert await b.queue.submit(KEYED) == jobs[0]
            with pytest.raises(QueueFullError):
                await b.queue.submit(PING)

    run(work())


def test_a_key_twice_in_a_batch_is_one_job(bench: Callable[..., Any], run: Callable[[Any], Any]) -> None:
    async def work() -> None:
        async with bench() as b:
            jobs = await b.queue.submit_all((KEYED, PING, KEYED, PING))
            assert [jobs.index(job) for job in jobs] == [0, 1, 0, 3]
            assert b.queue.tally["jobs_submitted"] == 3
            again = await b.queue.submit_all((PING, KEYED))
            assert again[1] == jobs[0]
            assert (await b.queue.counts()).ready == 4

    run(work())


def test_a_batch_is_one_line_of_the_trail_with_its_number(
    bench: Callable[..., Any], run: Callable[[Any], Any], tmp_path: Path
) -> None:
    async def work() -> None:
        async with bench() as b:
            settings = Settings.from_environment({"BROKER_DB": str(tmp_path / "broker.db"), "BOT_TOKEN": "b"})
            broker = Broker(settings, b.database, b.store)
            principal, token = await broker.admit({Role.BOT: "b"}, frozenset({Role.BOT}))
            caller = broker.identify(principal, token, Identity())
            await broker.perform(SubmitAll((PING,) * 3), caller, asyncio.get_running_loop().create_future())
            (line,) = map(json.loads, broker.audit.path.read_text(encoding="utf-8").splitlines())
            assert (line["what"], line["jobs"], line["who"]) == ("submitall", "3", "the shared bot token")

    run(work())


@pytest.mark.parametrize("before", [True, False], ids=["used before", "used in the batch"])
def test_a_key_with_other_words_refuses_its_whole_batch(
    bench: Callable[..., Any], run: Callable[[Any], Any], *, before: bool
) -> None:
    async def work() -> None:
        async with bench() as b:
            earlier = [KEYED] if before else []
            for order in earlier:
                await b.queue.submit(order)
            batch = (PING, *([] if before else [KEYED]), replace(KEYED, payload="p"), PING)
            with pytest.raises(KeyReusedError):
                await b.queue.submit_all(batch)
            assert await b.queue.counts() == Counts(len(earlier), 0, 0, 0, b.clock.now if before else None)
            assert b.queue.tally["jobs_submitted"] == len(earlier)

    run(work())


def test_a_batch_is_queued_in_its_order_and_survives(bench: Callable[..., Any], run: Callable[[Any], Any]) -> None:
    async def work() -> None:
        async with bench() as b:
            jobs = await b.queue.submit_all(tuple(map(named, "abcd")))
            assert [job.payload for job in jobs] == [*"abcd"]
            assert await b.queue.submit_all(()) == ()
        async with bench() as b:
            assert await names(b) == "abcd"

    run(work())


def test_a_batch_wakes_as_many_as_it_has_jobs_for(bench: Callable[..., Any], run: Callable[[Any], Any]) -> None:
    async def work() -> None:
        async with bench() as b:
            waiting = [asyncio.create_task(b.queue.claim(W1, wait=8)) for _ in range(3)]
            await asyncio.sleep(0.05)
            await b.queue.submit_all((named("a"), named("b")))
            assert [job.payload for job in await asyncio.gather(*waiting[:2])] == ["a", "b"]
            assert not waiting[2].done()
            b.queue.stop_waiting()
            await waiting[2]

    run(work())


def test_a_batch_fits_into_the_queue_whole_or_not_at_all(bench: Callable[..., Any], run: Callable[[Any], Any]) -> None:
    async def work() -> None:
        async with bench(max_unfinished=3) as b:
            await b.queue.submit(PING)
            with pytest.raises(QueueFullError):
                await b.queue.submit_all((PING,) * 3)
            assert (await b.queue.counts()).ready == 1
            await b.queue.submit_all((PING,) * 2)
            assert (await b.queue.counts()).ready == 3

    run(work())


def test_a_batch_fits_into_the_minute_whole_or_not_at_all(bench: Callable[..., Any], run: Callable[[Any], Any]) -> None:
    async def work() -> None:
        async with bench(per_minute=3) as b:
            await b.queue.submit(PING, "one")
            b.clock.now += 10
            await b.queue.submit(PING, "one")
            with pytest.raises(TooManySubmissionsError) as error:
                await b.queue.submit_all((PING,) * 3, "one")
            assert error.value.retry_after == 60
            with pytest.raises(TooManySubmissionsError) as error:
                await b.queue.submit_all((PING,) * 2, "one")
            assert error.value.retry_after == 50
            await b.queue.submit_all((PING,) * 3, "two")
            with pytest.raises(TooManySubmissionsError):
                await b.queue.submit(PING, "two")
            b.clock.now += 50
            await b.queue.submit_all((PING,) * 2, "one")
            assert (await b.queue.counts()).ready == 7

    run(work())


@pytest.mark.parametrize("limits", [{"per_minute": 2}, {"max_unfinished": 2}, {"per_minute": 2, "max_unfinished": 9}])
def test_a_batch_that_can_never_fit_is_told_so(
    bench: Callable[..., Any], run: Callable[[Any], Any], limits: dict[str, int]
) -> None:
    async def work() -> None:
        async with bench(**limits) as b:
            with pytest.raises(BatchTooLargeError, match="at most 2 jobs"):
                await b.queue.submit_all((PING,) * 3)
            await b.queue.submit_all((PING,) * 2)

    run(work())


def test_the_highest_priority_comes_first_and_of_equals_the_oldest(
    bench: Callable[..., Any], run: Callable[[Any], Any]
) -> None:
    async def work() -> None:
        async with bench() as b:
            for name, priority in zip("abcdef", (0, -100, 7, 0, 7, 100), strict=True):
                await b.queue.submit(named(name, priority=priority))
            assert await names(b) == "fceadb"

    run(work())


def test_priorities_hold_across_routes(bench: Callable[..., Any], run: Callable[[Any], Any]) -> None:
    async def work() -> None:
        async with bench() as b:
            routes = (Route("w1"), Route(None, frozenset("a")), Route(), Route(None, frozenset("ab")), Route("w1"))
            for name, route, priority in zip("abcde", routes, (1, 5, 0, 5, 1), strict=True):
                await b.queue.submit(named(name, route=route, priority=priority))
            assert await names(b) == "bdaec"

    run(work())


def test_jobs_for_others_keep_nobodys_back_whatever_their_priority(
    bench: Callable[..., Any], run: Callable[[Any], Any]
) -> None:
    async def work() -> None:
        async with bench() as b:
            foreign = (Route("x"), Route(None, frozenset("z")), Route("w1", frozenset("z")))
            await b.queue.submit_all(
                tuple(named("f", route=route, priority=100) for route in foreign for _ in range(100))
            )
            await b.queue.submit(named("mine", priority=-100))
            assert await names(b) == "mine"

    run(work())


@pytest.mark.parametrize("way", ["release", "expire", "requeue"])
def test_a_job_that_comes_back_has_its_old_place(
    bench: Callable[..., Any], run: Callable[[Any], Any], way: str
) -> None:
    async def work() -> None:
        async with bench() as b:
            for name, priority in zip("abc", (0, 3, 3), strict=True):
                await b.queue.submit(named(name, priority=priority, max_deliveries=1 if way == "requeue" else 2))
            job = await b.queue.claim(W1)
            assert job.payload == "b"
            if way == "release":
                await b.queue.release(job.id, Lease("w1", 1))
            else:
                await b.queue.hold("w1", frozenset())
            if way == "requeue":
                assert await names(b) == "ca"
                await b.queue.requeue(job.id)
                await b.queue.submit(named("d"))
            charged = (await b.queue.look(job.id)).attempts
            assert charged == (1 if way == "expire" else 0)
            assert await names(b) == ("bd" if way == "requeue" else "bca")

    run(work())


def test_a_job_for_later_is_nobodys_until_then(bench: Callable[..., Any], run: Callable[[Any], Any]) -> None:
    async def work() -> None:
        async with bench() as b:
            first = await b.queue.submit(named("a", not_before=b.clock.now + 10))
            await b.queue.submit(named("b"))
            assert (first.status, first.ready, await names(b)) == ("queued", False, "b")
            assert await b.queue.counts() == Counts(0, 1, 1, 0, None)
            waiting = asyncio.create_task(b.queue.claim(W1, wait=8))
            b.clock.now += 9.5
            assert await b.queue.reclaim() == pytest.approx(0.5)
            await asyncio.sleep(0.05)
            assert not waiting.done()
            b.clock.now += 0.5
            await b.queue.reclaim()
            job = await waiting
            assert (job.payload, job.not_before, job.attempts) == ("a", None, 1)
            assert b.queue.tally["leases_lost"] == 0

    run(work())


def test_a_job_for_later_has_the_place_of_its_submission_then(
    bench: Callable[..., Any], run: Callable[[Any], Any]
) -> None:
    async def work() -> None:
        async with bench() as b:
            await b.queue.submit(named("a", not_before=b.clock.now + 10))
            await b.queue.submit(named("b"))
            await b.queue.submit(named("c", not_before=b.clock.now + 5, priority=1))
        async with bench() as b:
            b.clock.now += 10
            await b.queue.reclaim()
            assert await names(b) == "cab"

    run(work())


def test_a_past_time_means_now(bench: Callable[..., Any], run: Callable[[Any], Any]) -> None:
    async def work() -> None:
        async with bench() as b:
            for past in (0.0, b.clock.now - 1, b.clock.now):
                job = await b.queue.submit(named("a", not_before=past))
                assert (job.ready, job.not_before) == (True, None)
            assert await names(b) == "aaa"

    run(work())
