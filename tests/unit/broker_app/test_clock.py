"""What a clock does that is set ahead or back while the broker runs. See queue_machine.py, too."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from broker_app.agents import Agent
from broker_app.errors import LeaseLostError, TooManySubmissionsError
from broker_app.queue.commands import Submit
from broker_app.queue.job import Lease, Route, Worker
from broker_app.queue.rate import RateLimit

if TYPE_CHECKING:
    from collections.abc import Callable

ORDER = Submit("ping", "", None, Route(), max_deliveries=5, lease_seconds=60, dialect="jobs")
W1, W2 = Worker("w1"), Worker("w2")
HOUR = 3600.0


def test_set_ahead_it_ends_a_lease_early_and_once_and_the_late_report_changes_nothing(
    bench: Callable[..., Any], run: Callable[[Any], Any]
) -> None:
    async def work() -> None:
        async with bench() as b:
            job = await b.queue.submit(ORDER)
            await b.queue.claim(W1)
            b.clock.now += HOUR
            await b.queue.reclaim()
            b.clock.now -= HOUR
            again = await b.queue.claim(W2)
            await b.queue.reclaim()
            assert (await b.queue.look(job.id), again.lease_epoch, again.attempts) == (again, 2, 2)
            with pytest.raises(LeaseLostError):
                await b.queue.finish(job.id, Lease("w1", 1), "late")
            assert (await b.queue.finish(job.id, Lease("w2", 2), "r")).result == "r"

    run(work())


def test_set_back_it_ends_a_lease_late_unless_it_is_renewed(
    bench: Callable[..., Any], run: Callable[[Any], Any]
) -> None:
    async def work() -> None:
        async with bench() as b:
            silent, alive = await b.queue.submit(ORDER), await b.queue.submit(ORDER)
            until = (await b.queue.claim(W1)).lease_until
            await b.queue.claim(W2)
            b.clock.now -= HOUR
            renewed = await b.queue.renew(alive.id, Lease("w2", 1))
            assert renewed.lease_until == b.clock.now + 60
            b.clock.now = until - 1
            await b.queue.reclaim()
            assert [(await b.queue.look(job.id)).status for job in (silent, alive)] == ["running", "queued"]
            b.clock.now = until
            await b.queue.reclaim()
            assert (await b.queue.look(silent.id)).ready

    run(work())


def test_the_first_that_came_is_the_oldest_whatever_the_clock_said(
    bench: Callable[..., Any], run: Callable[[Any], Any]
) -> None:
    async def work() -> None:
        async with bench() as b:
            jobs = []
            for _ in range(3):
                jobs.append((await b.queue.submit(ORDER)).id)
                b.clock.now -= HOUR
            assert [(await b.queue.claim(W1)).id for _ in jobs] == jobs

    run(work())


def test_set_back_it_keeps_nobody_from_submitting_for_longer_than_a_minute() -> None:
    rate = RateLimit(2)
    rate.admit("one", HOUR, 2)
    with pytest.raises(TooManySubmissionsError):
        rate.admit("one", HOUR + 59)
    rate.admit("one", 0.0, 2)
    with pytest.raises(TooManySubmissionsError) as error:
        rate.admit("one", 10.0)
    assert error.value.retry_after == 50


@pytest.mark.parametrize(("ago", "online"), [(50.0, True), (51.0, False), (-50.0, True), (-HOUR, False)])
def test_set_back_it_shows_nobody_online_who_is_not(ago: float, online: bool) -> None:
    assert Agent(name="a", last_seen=HOUR).online(HOUR + ago) is online
