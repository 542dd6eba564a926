"""The contract of `Store`, sentence by sentence, for every implementation (see stores.py)."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from broker_app.errors import (
    DatabaseError,
    JobNotFoundError,
    KeyReusedError,
    LeaseLostError,
    NotRunningError,
    QueueFullError,
)
from broker_app.queue import job as transitions
from broker_app.queue.commands import Browse
from broker_app.queue.job import Job, Lease, Outcome, Route, Status, Worker
from broker_app.queue.store import Counts, Event, Pause
from tests.unit.broker_app.stores import PLACES

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from broker_app.queue.store import Store, Transition
    from tests.unit.broker_app.stores import Place

W1, W2 = Worker("w1", frozenset("ab")), Worker("w2")
NOW = 1000.0
LEASE = 60
ALL = Browse(status=None, agent=None, limit=100, before=None)


@pytest.fixture(params=list(PLACES.values()), ids=list(PLACES))
def place(request: pytest.FixtureRequest, tmp_path: Any) -> Place:
    made: Place = request.param(tmp_path / "place")
    return made


def job(name: str, *needs: str, agent: str | None = None, **facts: Any) -> Job:
    fixed = {"dialect": "jobs", "command": "ping", "created_at": NOW, "lease_seconds": LEASE, "max_deliveries": 3}
    return Job(id=name, route=Route(agent, frozenset(needs)), **{**fixed, **facts})


def keyed(name: str, key: str, said: str, submitter: str | None = "bot") -> Job:
    return job(name, submitter=submitter, idempotency_key=key, fingerprint=said)


def deliver(worker: Worker, now: float = NOW) -> Transition:
    return lambda job: transitions.deliver(job, worker.name, now)


expire = partial(transitions.expire, now=NOW)
fall_due = partial(transitions.fall_due, now=NOW + LEASE)
finish = partial(transitions.finish, lease=Lease(), result="r", now=NOW + 1)
cancel = partial(transitions.cancel, reason="enough", now=NOW)


async def add(store: Store, *jobs: Job) -> None:
    await store.add(jobs, limit=0)


async def claim(store: Store, worker: Worker = W1, now: float = NOW) -> str | None:
    claimed = await store.claim(worker, deliver(worker, now))
    return claimed.id if claimed else None


async def jobs_of(store: Store, query: Browse = ALL) -> list[Job]:
    return list((await store.browse(query)).jobs)


def names(jobs: Any) -> list[str]:
    return [job.id for job in jobs]


# ─── Every call ───


async def filled(store: Store) -> None:
    """Jobs in every state: `ran` and `ran too` by w1, `later`, `queued` and `queued too` for w2."""
    await add(store, job("ran"), job("ran too"))
    await claim(store), await claim(store)
    await add(store, job("later", not_before=NOW + LEASE), job("queued", agent="w2"), job("queued too", agent="w2"))


CHANGES: dict[str, Callable[[Store, Transition], Awaitable[Any]]] = {
    "claim": lambda store, change: store.claim(W2, change),
    "change": lambda store, change: store.change("ran", change),
    "take_due": lambda store, change: store.take_due(NOW + LEASE, change),
    "take_back": lambda store, change: store.take_back("w1", frozenset(), change),
    "disown": lambda store, change: store.disown("w2", change),
    "report": lambda store, change: store.report("ran", change, (Event(NOW, text="t"),)),
}


@pytest.mark.parametrize("error", [LeaseLostError, ZeroDivisionError])
@pytest.mark.parametrize("call", CHANGES)
def test_a_call_that_raised_has_changed_nothing(
    place: Place, run: Callable[[Any], Any], call: str, error: type[Exception]
) -> None:
    changed: list[Job] = []

    def change(job: Job) -> Job:
        if changed or call in ("claim", "change", "report"):
            raise LeaseLostError("", job, None) if error is LeaseLostError else ZeroDivisionError
        changed.append(job)
        return replace(job, error="changed")

    async def work() -> None:
        async with place.open() as store:
            await filled(store)
            before, counts = await jobs_of(store), await store.counts()
            with pytest.raises(error):
                await CHANGES[call](store, change)
            assert (await jobs_of(store), await store.counts()) == (before, counts)
            assert await store.events("ran", 0, 9) == ()
            assert await claim(store, W2) == "queued"

    run(work())


DURABLE: dict[str, Callable[[Store], Awaitable[Any]]] = {
    "add": lambda store: store.add((job("new"), job("new too", not_before=NOW + 5)), limit=0),
    "change": lambda store: store.change("ran", finish),
    "take_due": lambda store: store.take_due(NOW + LEASE, fall_due),
    "take_back": lambda store: store.take_back("w1", frozenset(), expire),
    "disown": lambda store: store.disown("w2", cancel),
    "pause": lambda store: store.pause(Pause(NOW, "why")),
}


@pytest.mark.parametrize("call", DURABLE)
def test_what_a_durable_call_returned_is_there_after_a_power_cut(
    place: Place, run: Callable[[Any], Any], call: str
) -> None:
    async def work() -> None:
        async with place.open() as store:
            await filled(store)
            before = await jobs_of(store)
            await DURABLE[call](store)
            left = place.after_a_power_cut()
            after = await jobs_of(store), await store.counts(), await store.running(), store.paused()
        assert call == "pause" or after[0] != before
        async with left.open() as store:
            assert (await jobs_of(store), await store.counts(), await store.running(), store.paused()) == after

    run(work())


def test_all_that_was_done_is_there_when_it_is_opened_again(place: Place, run: Callable[[Any], Any]) -> None:
    async def work() -> None:
        async with place.open() as store:
            await filled(store)
            await store.change("ran", lambda job: transitions.renew(job, Lease(), NOW + 9), durable=False)
            await store.report("ran too", lambda job: job, (Event(NOW, text="é"),))
            before = await jobs_of(store), await store.counts(), await store.events("ran too", 0, 9)
        async with place.open() as store:
            assert (await jobs_of(store), await store.counts(), await store.events("ran too", 0, 9)) == before
            assert await claim(store, W2) == "queued"

    run(work())


TROUBLED: dict[str, Callable[[Store], Awaitable[Any]]] = {
    **DURABLE,
    "claim": lambda store: store.claim(W2, deliver(W2)),
    "losers": lambda store: store.losers(NOW),
    "next_due": lambda store: store.next_due(),
    "get": lambda store: store.get("ran"),
    "browse": lambda store: store.browse(ALL),
    "counts": lambda store: store.counts(),
    "running": lambda store: store.running(),
    "report": lambda store: store.report("ran", lambda job: job, ()),
    "events": lambda store: store.events("ran", 0, 9),
    "forget": lambda store: store.forget(NOW),
}


@pytest.mark.parametrize("call", TROUBLED)
def test_trouble_below_is_told_as_such(place: Place, run: Callable[[Any], Any], call: str) -> None:
    async def work() -> None:
        async with place.open() as store:
            await filled(store)
            await place.spoil(store)
            with pytest.raises(DatabaseError):
                await TROUBLED[call](store)

    run(work())


# ─── listen ───

ANNOUNCED: dict[str, Callable[[Store], Awaitable[Any]]] = {
    **TROUBLED,
    "report": lambda store: store.report("ran", lambda job: replace(job, progress=5), ()),
}


@pytest.mark.parametrize(
    ("call", "announced"),
    [
        ("add", ["new", "new too"]),
        ("change", ["ran"]),
        ("take_due", ["ran", "ran too", "later"]),
        ("take_back", ["ran", "ran too"]),
        ("disown", ["queued", "queued too"]),
        ("claim", ["queued"]),
        ("report", ["ran"]),
    ],
)
def test_every_changed_job_is_announced_on_the_loop_when_others_can_see_it(
    place: Place, run: Callable[[Any], Any], call: str, announced: list[str]
) -> None:
    heard: list[Job] = []

    async def work() -> None:
        async with place.open() as store:
            await filled(store)
            seen: list[Awaitable[Job]] = []
            thread = threading.get_ident()

            def listener(job: Job) -> None:
                assert threading.get_ident() == thread
                heard.append(job)
                seen.append(store.get(job.id))

            store.listen(listener)
            await ANNOUNCED[call](store)
            assert sorted(names(heard)) == sorted(announced)
            assert await asyncio.gather(*seen) == heard

    run(work())


def test_a_refusal_is_not_announced_and_a_change_is_though_nobody_waits_for_it(
    place: Place, run: Callable[[Any], Any]
) -> None:
    async def work() -> None:
        async with place.open() as store:
            await filled(store)
            heard: list[Job] = []
            store.listen(heard.append)
            with pytest.raises(NotRunningError):
                await store.change("later", finish)
            assert heard == []
            change = asyncio.ensure_future(store.change("ran", finish))
            await asyncio.sleep(0)
            change.cancel()
            await store.change("ran too", finish)
            assert names(heard) == ["ran", "ran too"]

    run(work())


# ─── add ───


def test_new_jobs_are_kept_as_they_are_in_their_order(place: Place, run: Callable[[Any], Any]) -> None:
    one = job("one", "b", "a", agent="w1", payload="é\0", requires="{}", priority=-5, retry_seconds=7, not_before=5.5)
    two = replace(keyed("two", "k", "said"), submitter="bot", max_deliveries=1, dialect="tasks")

    async def work() -> None:
        async with place.open() as store:
            assert await store.add((one, two), limit=0) == (one, two)
            assert (await store.get("one"), await store.get("two")) == (one, two)
            assert await jobs_of(store) == [two, one]

    run(work())


def test_jobs_beyond_the_limit_of_unfinished_ones_are_refused_all_of_them(
    place: Place, run: Callable[[Any], Any]
) -> None:
    async def work() -> None:
        async with place.open() as store:
            await store.add((job("1"), job("2"), job("3", not_before=NOW)), limit=3)
            for more in (job("4"),), (job("4"), job("5")):
                with pytest.raises(QueueFullError):
                    await store.add(more, limit=3)
            await claim(store)
            with pytest.raises(QueueFullError):
                await store.add((job("4"),), limit=3)
            await store.change("1", finish)
            with pytest.raises(QueueFullError):
                await store.add((job("4"), job("5")), limit=3)
            await store.add((job("4"),), limit=3)
            assert names(await jobs_of(store)) == ["4", "3", "2", "1"]
            await store.add((job("5"),), limit=0)

    run(work())


def test_a_key_is_for_one_job_of_its_submitter_whatever_became_of_it(place: Place, run: Callable[[Any], Any]) -> None:
    first = keyed("first", "k", "said")

    async def work() -> None:
        async with place.open() as store:
            await add(store, first)
            assert await store.add((keyed("again", "k", "said"), job("new")), limit=2) == (first, job("new"))
            others = [keyed("other's", "k", "x", "another"), keyed("nobody's", "k", "y", None), keyed("else", "l", "z")]
            assert await store.add(tuple(others), limit=0) == tuple(others)
            assert await store.add((keyed("n", "k", "y", None),), limit=0) == (others[1],)
            ended = await store.change("first", cancel)
            assert await store.add((keyed("again", "k", "said"),), limit=1) == (ended,)
            assert len(await jobs_of(store)) == 5
        async with place.open() as store:
            assert await store.add((keyed("again", "k", "said"),), limit=1) == (ended,)

    run(work())


def test_one_key_twice_in_a_call_is_one_job(place: Place, run: Callable[[Any], Any]) -> None:
    async def work() -> None:
        async with place.open() as store:
            kept = await store.add((keyed("1", "k", "said"), keyed("2", "k", "said")), limit=1)
            assert names(kept) == ["1", "1"]
            assert names(await jobs_of(store)) == ["1"]

    run(work())


def test_a_key_with_other_words_is_refused_and_nothing_of_the_call_is_kept(
    place: Place, run: Callable[[Any], Any]
) -> None:
    async def work() -> None:
        async with place.open() as store:
            await add(store, keyed("first", "k", "said"))
            for jobs in [(job("new"), keyed("2", "k", "x"))], [(keyed("3", "l", "x"), keyed("4", "l", "y"))]:
                with pytest.raises(KeyReusedError):
                    await store.add(*jobs, limit=0)
            assert names(await jobs_of(store)) == ["first"]

    run(work())


# ─── claim ───


def test_the_highest_priority_comes_first_and_of_that_the_oldest(place: Place, run: Callable[[Any], Any]) -> None:
    async def work() -> None:
        async with place.open() as store:
            ranks = [("low", -1), ("0", 0), ("high", 5), ("0 too", 0), ("high too", 5)]
            await add(store, *(job(name, *"ab"[: n % 3], priority=rank) for n, (name, rank) in enumerate(ranks)))
            got = [await claim(store) for _ in range(6)]
            assert got == ["high", "high too", "0", "0 too", "low", None]

    run(work())


def test_a_job_that_comes_back_has_its_place_again(place: Place, run: Callable[[Any], Any]) -> None:
    async def work() -> None:
        async with place.open() as store:
            await add(store, job("1"), job("2"))
            await claim(store)
            await store.change("1", partial(transitions.release, lease=Lease()))
            assert [await claim(store), await claim(store)] == ["1", "2"]

    run(work())


@pytest.mark.parametrize(
    ("worker", "may"),
    [
        (Worker(), ["anybody's"]),
        (W2, ["anybody's", "w2's"]),
        (W1, ["anybody's", "a", "a and b", "w1's with b"]),
        (Worker("w1"), ["anybody's"]),
        (Worker(None, frozenset("a")), ["anybody's", "a"]),
        (replace(W1, cordoned=True), []),
    ],
)
def test_a_worker_gets_the_ready_jobs_that_it_may_run_and_no_other(
    place: Place, run: Callable[[Any], Any], worker: Worker, may: list[str]
) -> None:
    async def work() -> None:
        async with place.open() as store:
            jobs = [job("anybody's"), job("w2's", agent="w2"), job("a", "a"), job("a and b", "b", "a")]
            await add(store, *jobs, job("w1's with b", "b", agent="w1"), job("later", not_before=NOW))
            await add(store, job("cancelled"))
            await store.change("cancelled", cancel)
            got = [await claim(store, worker) for _ in range(len(may) + 1)]
            assert got == [*may, None]

    run(work())


def test_who_claims_at_once_shares_no_job(place: Place, run: Callable[[Any], Any]) -> None:
    async def work() -> None:
        async with place.open() as store:
            await add(store, *(job(str(n)) for n in range(50)))
            got = await asyncio.gather(*(claim(store) for _ in range(60)))
            assert sorted(filter(None, got)) == sorted(map(str, range(50)))

    run(work())


def test_during_a_pause_there_is_no_job_also_after_a_restart(place: Place, run: Callable[[Any], Any]) -> None:
    pause = Pause(NOW, "why")

    async def work() -> None:
        async with place.open() as store:
            await add(store, job("1"), job("2"))
            assert (store.paused(), await claim(store)) == (None, "1")
            await store.pause(Pause(NOW - 5, "before"))
            await store.pause(pause)
            assert (store.paused(), await claim(store)) == (pause, None)
            await store.change("1", finish)
        async with place.open() as store:
            assert (store.paused(), await claim(store)) == (pause, None)
            await store.pause(None)
            assert (store.paused(), await claim(store)) == (None, "2")
        async with place.open() as store:
            assert store.paused() is None

    run(work())


# ─── change, get ───


def test_a_change_returns_the_job_as_it_is_then(place: Place, run: Callable[[Any], Any]) -> None:
    async def work() -> None:
        async with place.open() as store:
            await add(store, job("1", "a", agent="w1"))
            delivered = deliver(W1)(job("1", "a", agent="w1"))
            opened = transitions.open_up(delivered)
            failed = transitions.fail(opened, Lease(), "e", NOW + 1)
            for change, then in ((deliver(W1), delivered), (transitions.open_up, opened), (lambda _: failed, failed)):
                assert await store.change("1", change) == then
                assert await store.get("1") == then

    run(work())


def test_there_is_no_such_job(place: Place, run: Callable[[Any], Any]) -> None:
    async def work() -> None:
        async with place.open() as store:
            for call in store.get("x"), store.change("x", finish), store.report("x", finish, ()):
                with pytest.raises(JobNotFoundError):
                    await call

    run(work())


# ─── Time ───


def test_losers_are_the_workers_whose_leases_ended_and_are_not_taken_back(
    place: Place, run: Callable[[Any], Any]
) -> None:
    async def work() -> None:
        async with place.open() as store:
            await add(store, *(job(str(n)) for n in range(5)))
            for worker, now in (W1, NOW), (W1, NOW), (Worker(), NOW + 1), (W2, NOW + 2):
                await claim(store, worker, now)
            assert await store.losers(NOW + LEASE - 0.1) == frozenset()
            assert await store.losers(NOW + LEASE) == {"w1"}
            assert await store.losers(NOW + LEASE + 1) == {"w1", None}
            await store.take_due(NOW + LEASE, fall_due)
            assert await store.losers(NOW + LEASE + 1) == {None}

    run(work())


def test_what_is_due_is_taken_and_nothing_else(place: Place, run: Callable[[Any], Any]) -> None:
    async def work() -> None:
        async with place.open() as store:
            assert await store.next_due() is None
            await add(store, job("ran"), job("ran later"), job("ready", agent="w2"), job("3", not_before=NOW + 3))
            await add(store, job("9", not_before=NOW + 9), job("ended", not_before=NOW + 1))
            await store.change("ended", cancel)
            await claim(store), await claim(store, now=NOW + 1)
            assert await store.next_due() == NOW + 3
            assert names(await store.take_due(NOW + 2.9, fall_due)) == []
            assert names(await store.take_due(NOW + 3, fall_due)) == ["3"]
            assert await store.next_due() == NOW + 9
            assert sorted(names(await store.take_due(NOW + LEASE, fall_due))) == ["9", "ran"]
            assert await store.next_due() == NOW + LEASE + 1
            assert {job.id for job in await jobs_of(store) if job.ready} == {"ran", "ready", "3", "9"}

    run(work())


@pytest.mark.parametrize("worker", [W1, None], ids=["leases", "times to begin"])
def test_many_that_are_due_are_taken_by_asking_again(
    place: Place, run: Callable[[Any], Any], worker: Worker | None
) -> None:
    count = 601

    async def work() -> None:
        async with place.open() as store:
            await add(store, *(job(str(n), not_before=None if worker else NOW) for n in range(count)))
            if worker:
                await asyncio.gather(*(claim(store, worker) for _ in range(count)))
            taken = []
            while jobs := await store.take_due(NOW + LEASE, fall_due):
                assert len(jobs) < count
                taken += names(jobs)
            assert sorted(taken) == sorted(map(str, range(count)))

    run(work())


# ─── Of one worker, of one agent ───


def test_of_a_worker_what_it_does_not_name_is_taken_back(place: Place, run: Callable[[Any], Any]) -> None:
    async def work() -> None:
        async with place.open() as store:
            await add(store, *(job(str(n)) for n in range(5)))
            for worker in (W1, W1, W1, W2, Worker()):
                await claim(store, worker)
            kept = frozenset({("0", 1), ("1", 2), ("3", 1)})
            assert sorted(names(await store.take_back("w1", kept, expire))) == ["1", "2"]
            assert await store.running() == {"w1": ["0"], "w2": ["3"]}

    run(work())


def test_queued_jobs_of_an_agent_are_disowned_a_number_at_a_time(place: Place, run: Callable[[Any], Any]) -> None:
    async def work() -> None:
        async with place.open() as store:
            await add(store, job("runs", agent="w1"), job("w2's", agent="w2"), job("anybody's"))
            await store.change("runs", deliver(W1))
            await add(store, *(job(str(n), agent="w1", not_before=NOW if n % 2 else None) for n in range(601)))
            disowned = []
            while jobs := await store.disown("w1", cancel):
                assert len(jobs) < 601
                disowned += names(jobs)
            assert sorted(disowned) == sorted(map(str, range(601)))
            assert [await claim(store, W2), await claim(store, W2)] == ["w2's", "anybody's"]

    run(work())


# ─── Looking ───


@pytest.mark.parametrize(
    ("filters", "found"),
    [
        ({}, ["dead", "cancelled", "failed", "done", "runs", "queued", "other"]),
        ({"status": Status.QUEUED}, ["queued", "other"]),
        ({"status": Status.FAILED}, ["dead", "cancelled", "failed"]),
        ({"outcome": Outcome.DEAD}, ["dead"]),
        ({"status": Status.FAILED, "outcome": Outcome.FAILED}, ["failed"]),
        ({"status": Status.DONE, "command": "ping"}, ["done"]),
        ({"command": "exec"}, ["other"]),
        ({"agent": "w1"}, ["dead", "failed", "done", "runs"]),
        ({"agent": "w2"}, ["other"]),
        ({"agent": "w1", "status": Status.DONE}, ["done"]),
        ({"agent": "w3"}, []),
    ],
)
def test_jobs_are_listed_newest_first_in_pages(
    place: Place, run: Callable[[Any], Any], filters: dict[str, Any], found: list[str]
) -> None:
    async def work() -> None:
        async with place.open() as store:
            await add(store, job("other", "x", agent="w2", command="exec"), job("queued", "x"))
            for name in ("runs", "done", "failed", "cancelled", "dead"):
                await add(store, job(name, max_deliveries=1))
                await (store.change(name, cancel) if name == "cancelled" else claim(store))
            await store.change("done", finish)
            await store.change("failed", lambda job: transitions.fail(job, Lease(), "e", NOW))
            await store.change("dead", expire)
            query = Browse(**{"status": None, "agent": None, "limit": 2, "before": None, **filters})
            listed: list[str] = []
            while True:
                page = await store.browse(query)
                assert len(page.jobs) <= 2
                listed += names(page.jobs)
                if page.before is None:
                    break
                query = replace(query, before=page.before)
            assert listed == found

    run(work())


def test_jobs_are_counted_by_what_they_wait_for(place: Place, run: Callable[[Any], Any]) -> None:
    async def work() -> None:
        async with place.open() as store:
            assert await store.counts() == Counts(0, 0, 0, 0, None)
            await add(store, *(job(str(n), created_at=NOW + n, max_deliveries=1) for n in range(5)))
            await add(store, job("later", not_before=NOW + 9))
            assert await store.counts() == Counts(5, 1, 0, 0, NOW)
            for _ in range(3):
                await claim(store)
            await store.change("0", finish)
            await store.change("1", expire)
            counted = Counts(2, 1, 1, 1, NOW + 3)
            assert await store.counts() == counted
            assert await store.running() == {"w1": ["2"]}
        async with place.open() as store:
            assert await store.counts() == counted
            await store.change("1", transitions.requeue)
            assert await store.counts() == Counts(3, 1, 1, 0, NOW + 1)

    run(work())


def test_workers_without_a_name_are_not_in_the_list_of_who_runs_what(place: Place, run: Callable[[Any], Any]) -> None:
    async def work() -> None:
        async with place.open() as store:
            await add(store, *(job(str(n)) for n in range(4)))
            for worker in (W1, Worker(), W2, W1):
                await claim(store, worker)
            assert await store.running() == {"w1": ["0", "3"], "w2": ["2"]}

    run(work())


# ─── Events ───


def told(events: tuple[Event, ...]) -> list[tuple[Any, ...]]:
    return [(event.text or event.note or event.percent, event.offset) for event in events]


def test_events_are_kept_in_their_order_and_a_text_of_a_lease_once(place: Place, run: Callable[[Any], Any]) -> None:
    def same(job: Job) -> Job:
        return job

    async def work() -> None:
        async with place.open() as store:
            await add(store, job("1"), job("2"))
            await claim(store), await claim(store)
            first = Event(NOW, text="first", offset=0)
            await store.report("1", same, (first, Event(NOW + 1, percent=5, note="n")))
            await store.report("1", same, (first, Event(NOW + 2, text="second", offset=5)))
            await store.report("2", same, (first,))
            await store.report("1", partial(transitions.release, lease=Lease()), ())
            await claim(store)
            await store.report(
                "1", lambda job: replace(job, progress=7), (first, Event(NOW, text="any"), Event(NOW, text="any"))
            )
            events = await store.events("1", 0, 9)
            assert told(events) == [
                ("first", 0),
                ("n", None),
                ("second", 5),
                ("first", 0),
                ("any", None),
                ("any", None),
            ]
            assert (events[0].at, events[1].percent) == (NOW, 5)
            assert [event.n for event in events] == sorted({event.n for event in events})
            assert await store.events("1", events[1].n, 2) == events[2:4]
            assert told(await store.events("2", 0, 9)) == [("first", 0)]
            assert (await store.get("1")).progress == 7

    run(work())


def test_what_has_no_room_is_not_kept_and_the_job_goes_on(place: Place, run: Callable[[Any], Any]) -> None:
    async def work() -> None:
        async with place.open() as store:
            await add(store, job("1"), job("2"))
            await claim(store), await claim(store)
            text = "é" * 100_000
            for n in range(20):
                await store.report("1", lambda job: job, (Event(NOW, text=text, offset=n),))
            assert 5 <= len(await store.events("1", 0, 99)) <= 15
            await store.report("2", lambda job: job, (Event(NOW, text=text),))
            assert len(await store.events("2", 0, 99)) == 1
            assert (
                await store.report("1", lambda job: replace(job, progress=9), (Event(NOW, text=text),))
            ).progress == 9

    run(work())


def test_a_refused_report_keeps_no_event(place: Place, run: Callable[[Any], Any]) -> None:
    async def work() -> None:
        async with place.open() as store:
            await add(store, job("1"))
            refused = partial(transitions.report, lease=Lease(), percent=1, note=None)
            with pytest.raises(NotRunningError):
                await store.report("1", refused, (Event(NOW, text="t"),))
            assert await store.events("1", 0, 9) == ()

    run(work())


# ─── forget ───


def test_jobs_that_ended_before_a_time_are_removed_with_their_events(place: Place, run: Callable[[Any], Any]) -> None:
    async def work() -> None:
        async with place.open() as store:
            await add(store, job("dead", max_deliveries=1), keyed("done", "k", "said"), job("runs"), job("queued"))
            for _ in range(3):
                await claim(store)
            for name in ("dead", "done", "runs"):
                await store.report(name, lambda job: job, (Event(NOW, text=name),))
            await store.change("dead", expire)
            await store.change("done", finish)
            assert await store.forget(NOW) == 0
            assert await store.forget(NOW + 0.5) == 1
            assert (await store.counts()).dead == 0
            assert names(await jobs_of(store)) == ["queued", "runs", "done"]
            assert await store.forget(NOW + 10**6) == 1
            assert names(await jobs_of(store)) == ["queued", "runs"]
            assert [len(await store.events(name, 0, 9)) for name in ("dead", "done", "runs")] == [0, 0, 1]
            assert names(await store.add((keyed("again", "k", "other words"),), limit=0)) == ["again"]
            assert await store.events("again", 0, 9) == ()

    run(work())


def test_a_new_job_has_nothing_of_one_that_was_removed(place: Place, run: Callable[[Any], Any]) -> None:
    async def work() -> None:
        async with place.open() as store:
            await add(store, job("old"))
            await claim(store)
            await store.report("old", finish, (Event(NOW, text="t"),))
            assert await store.forget(NOW + 2) == 1
            await add(store, job("new"))
            assert await store.events("new", 0, 9) == ()
            with pytest.raises(JobNotFoundError):
                await store.get("old")

    run(work())


def test_many_are_removed_by_asking_again(place: Place, run: Callable[[Any], Any]) -> None:
    async def work() -> None:
        async with place.open() as store:
            ended: dict[str, Any] = {"status": Status.FAILED, "outcome": Outcome.CANCELLED, "finished_at": NOW}
            await add(store, *(job(str(n), **ended) for n in range(601)), job("queued"))
            removed = []
            while count := await store.forget(NOW + 1):
                removed.append(count)
            assert (sum(removed), max(removed) < 601) == (601, True)
            assert names(await jobs_of(store)) == ["queued"]

    run(work())
