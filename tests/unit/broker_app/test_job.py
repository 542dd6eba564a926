"""Transitions of a job, as tables."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from broker_app.errors import LeaseLostError, NotDeadError, NotRunningError
from broker_app.queue import job as transitions
from broker_app.queue.job import Job, Lease, Outcome, Route, Status, Worker

if TYPE_CHECKING:
    from collections.abc import Callable

NOW = 1000.0
QUEUED = Job(id="j", dialect="jobs", command="ping", created_at=NOW, lease_seconds=60, max_deliveries=2)
RUNNING = transitions.deliver(QUEUED, "w1", NOW)
REQUEUED = transitions.release(RUNNING, Lease("w1", 1))
DONE = transitions.finish(RUNNING, Lease("w1", 1), "r", NOW + 1)
FAILED = transitions.fail(RUNNING, Lease("w1", 1), "e", NOW + 1)
DEAD = transitions.expire(replace(RUNNING, attempts=2), NOW + 60)

HOLDER, UNSAID, OTHER, STALE = Lease("w1", 1), Lease(), Lease("w2"), Lease("w1", 0)
ACTIONS: dict[str, Callable[[Job, Lease], Job]] = {
    "renew": lambda job, lease: transitions.renew(job, lease, NOW + 5),
    "release": transitions.release,
    "finish": lambda job, lease: transitions.finish(job, lease, "result", NOW + 5),
    "fail": lambda job, lease: transitions.fail(job, lease, "error", NOW + 5),
}


def test_a_delivery_starts_a_numbered_lease() -> None:
    assert (
        replace(
            QUEUED,
            status=Status.RUNNING,
            worker="w1",
            started_at=NOW,
            lease_until=NOW + 60,
            heartbeat_at=NOW,
            lease_epoch=1,
            attempts=1,
        )
        == RUNNING
    )
    again = transitions.deliver(REQUEUED, None, NOW + 9)
    assert (again.worker, again.lease_epoch, again.attempts, again.started_at) == (None, 2, 1, NOW + 9)


@pytest.mark.parametrize("lease", [HOLDER, UNSAID, Lease("w1"), Lease(None, 1)])
@pytest.mark.parametrize(
    ("action", "changes"),
    [
        ("renew", {"lease_until": NOW + 65, "heartbeat_at": NOW + 5}),
        (
            "release",
            {
                "status": Status.QUEUED,
                "worker": None,
                "started_at": None,
                "lease_until": None,
                "heartbeat_at": None,
                "attempts": 0,
            },
        ),
        (
            "finish",
            {
                "status": Status.DONE,
                "outcome": Outcome.DONE,
                "result": "result",
                "finished_at": NOW + 5,
                "lease_until": None,
            },
        ),
        (
            "fail",
            {
                "status": Status.FAILED,
                "outcome": Outcome.FAILED,
                "error": "error",
                "finished_at": NOW + 5,
                "lease_until": None,
            },
        ),
    ],
)
def test_what_a_holder_may_do(lease: Lease, action: str, changes: dict[str, Any]) -> None:
    assert ACTIONS[action](RUNNING, lease) == replace(RUNNING, **changes)


@pytest.mark.parametrize("action", ACTIONS)
@pytest.mark.parametrize("lease", [OTHER, Lease("w2", 1), STALE, Lease(None, 2), Lease("w1", 2)])
def test_what_nobody_else_may_do(action: str, lease: Lease) -> None:
    with pytest.raises(LeaseLostError):
        ACTIONS[action](RUNNING, lease)


def test_a_worker_cannot_take_over_the_lease_of_a_nameless_one() -> None:
    with pytest.raises(LeaseLostError):
        transitions.renew(replace(RUNNING, worker=None), Lease("w1"), NOW)


@pytest.mark.parametrize(
    ("job", "action", "error"),
    [
        (QUEUED, "renew", NotRunningError),
        (QUEUED, "release", NotRunningError),
        (QUEUED, "finish", NotRunningError),
        (REQUEUED, "finish", NotRunningError),
        (QUEUED, "fail", NotRunningError),
        (REQUEUED, "fail", NotRunningError),
        *((job, action, NotRunningError) for job in (DONE, FAILED, DEAD) for action in ("renew", "release")),
    ],
)
def test_what_needs_a_running_job(job: Job, action: str, error: type[Exception]) -> None:
    with pytest.raises(error, match=f"job not in running state: {job.status}"):
        ACTIONS[action](job, UNSAID)


@pytest.mark.parametrize("action", ["finish", "fail"])
@pytest.mark.parametrize("job", [DONE, FAILED, DEAD])
@pytest.mark.parametrize("lease", [UNSAID, HOLDER, OTHER])
def test_an_ended_job_stays_as_it_is(action: str, job: Job, lease: Lease) -> None:
    assert ACTIONS[action](job, lease) is job


@pytest.mark.parametrize("action", ["finish", "fail"])
@pytest.mark.parametrize("job", [REQUEUED, DONE, FAILED, DEAD])
def test_an_epoch_that_is_not_the_last_is_said(action: str, job: Job) -> None:
    with pytest.raises(LeaseLostError):
        ACTIONS[action](job, Lease("w1", 0))


def test_a_job_that_was_never_delivered_can_be_failed_where_that_is_said() -> None:
    failed = transitions.fail(QUEUED, OTHER, "e", NOW, undelivered=True)
    assert (failed.status, failed.outcome, failed.error, failed.started_at) == ("failed", "failed", "e", None)


@pytest.mark.parametrize(
    ("attempts", "status", "outcome", "error"),
    [
        (1, "queued", None, None),
        (2, "failed", "dead", "lease lost by worker w1 on delivery 2 of 2"),
        (3, "failed", "dead", "lease lost by worker w1 on delivery 3 of 2"),
    ],
)
def test_a_lost_lease(attempts: int, status: str, outcome: str | None, error: str | None) -> None:
    job = transitions.expire(replace(RUNNING, attempts=attempts), NOW + 60)
    assert (job.status, job.outcome, job.error, job.attempts, job.lease_until) == (
        status,
        outcome,
        error,
        attempts,
        None,
    )


@pytest.mark.parametrize(
    ("route", "worker", "open_to"),
    [
        (Route(), Worker(), True),
        (Route(), Worker("w", frozenset("ab")), True),
        (Route(None, frozenset("a")), Worker("w", frozenset("ab")), True),
        (Route(None, frozenset("ac")), Worker("w", frozenset("ab")), False),
        (Route("w"), Worker("w"), True),
        (Route("w"), Worker("v"), False),
        (Route("w"), Worker(), False),
        (Route("w", frozenset("a")), Worker("w"), False),
        (Route("w", frozenset("a")), Worker("w", frozenset("a")), True),
    ],
)
def test_who_may_run_a_route(route: Route, worker: Worker, open_to: bool) -> None:
    assert route.open_to(worker) is open_to


RETRIED = replace(RUNNING, retry_seconds=120, max_deliveries=20)


@pytest.mark.parametrize(
    ("attempts", "stretch", "delay"),
    [(1, 1, 120), (2, 1, 240), (4, 1, 960), (9, 1, 30720), (19, 1, 30720), (2, 0.9, 216), (2, 1.1, 264)],
)
def test_a_failure_that_is_tried_again_waits_twice_as_long_each_time(
    attempts: int, stretch: float, delay: float
) -> None:
    job = transitions.fail(replace(RETRIED, attempts=attempts), HOLDER, "e", NOW + 5, stretch)
    assert (job.status, job.outcome, job.error, job.attempts) == ("queued", None, "e", attempts)
    assert (job.worker, job.lease_until, job.heartbeat_at, job.finished_at) == (None, None, None, None)
    assert job.not_before == pytest.approx(NOW + 5 + delay)
    assert not job.ready
    assert replace(job, not_before=None).ready


def test_what_is_tried_again_is_delivered_without_its_error() -> None:
    ready = transitions.fall_due(transitions.fail(RETRIED, HOLDER, "e", NOW), NOW + 120)
    assert (ready.error, ready.ready) == ("e", True)
    again = transitions.deliver(ready, "w2", NOW + 121)
    assert (again.error, again.attempts, again.lease_epoch) == (None, 2, 2)


def test_the_last_failure_is_a_dead_letter() -> None:
    job = transitions.fail(replace(RETRIED, attempts=20), HOLDER, "e", NOW + 5)
    assert (job.status, job.outcome, job.error, job.finished_at) == ("failed", "dead", "e", NOW + 5)


def test_what_was_never_delivered_is_not_tried_again() -> None:
    job = transitions.fail(replace(QUEUED, retry_seconds=120), UNSAID, "e", NOW, undelivered=True)
    assert (job.status, job.outcome) == ("failed", "failed")


@pytest.mark.parametrize("end", ["expire", "release"])
def test_what_is_not_a_failure_waits_for_nothing(end: str) -> None:
    job = transitions.expire(RETRIED, NOW + 60) if end == "expire" else transitions.release(RETRIED, HOLDER)
    assert job.ready


def test_a_dead_letter_begins_again_with_a_higher_epoch() -> None:
    job = transitions.requeue(DEAD)
    assert (job.ready, job.outcome, job.error, job.finished_at, job.attempts) == (True, None, None, None, 0)
    assert transitions.deliver(job, "w2", NOW).lease_epoch == DEAD.lease_epoch + 1
    with pytest.raises(LeaseLostError):
        transitions.finish(transitions.deliver(job, "w1", NOW), HOLDER, "late", NOW)


@pytest.mark.parametrize("job", [QUEUED, RUNNING, DONE, FAILED])
def test_only_a_dead_letter_is_queued_again(job: Job) -> None:
    with pytest.raises(NotDeadError, match=f"job is not dead: {job.outcome or job.status}"):
        transitions.requeue(job)


@pytest.mark.parametrize("job", [QUEUED, RUNNING, transitions.fail(RETRIED, HOLDER, "e", NOW)])
def test_a_cancelled_job_has_ended_for_its_holder_too(job: Job) -> None:
    ended = transitions.cancel(job, "why", NOW + 5)
    assert (ended.status, ended.outcome, ended.error, ended.finished_at) == ("failed", "cancelled", "why", NOW + 5)
    assert (ended.lease_until, ended.not_before) == (None, None)
    assert transitions.finish(ended, Lease(), "r", NOW + 6) is ended
    with pytest.raises(NotRunningError):
        transitions.renew(ended, Lease(), NOW + 6)


@pytest.mark.parametrize("job", [DONE, FAILED, DEAD])
def test_an_ended_job_is_not_cancelled(job: Job) -> None:
    assert transitions.cancel(job, "why", NOW) is job


def test_a_lease_may_be_longer_than_the_job_says() -> None:
    assert transitions.deliver(QUEUED, "w1", NOW, 300).lease_until == NOW + 300
    assert transitions.renew(RUNNING, HOLDER, NOW + 5, 300).lease_until == NOW + 305
