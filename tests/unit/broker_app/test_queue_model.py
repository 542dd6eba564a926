"""The queue does what the model says, whatever its clients, the clock and the machine do.

`make soak` tries far more of it, each time another. What it finds it shows as the fewest steps that lead there.
"""

from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from broker_app.database import Database
from broker_app.queue import job as transitions
from broker_app.queue import sqlite
from broker_app.queue.job import Lease, Route
from broker_app.queue.queue import Queue
from broker_app.queue.sqlite import SqliteStore
from tests.unit.broker_app.queue_machine import QueueMachine

if TYPE_CHECKING:
    from collections.abc import Callable

_COMMON = settings(
    deadline=None, database=None, suppress_health_check=list(HealthCheck), report_multiple_bugs=False, print_blob=True
)
_PROFILES = {
    "ci": settings(_COMMON, derandomize=True, max_examples=120, stateful_step_count=40),
    "soak": settings(_COMMON, derandomize=False, max_examples=5000, stateful_step_count=80),
}


def test_the_queue_does_what_the_model_says() -> None:
    run_state_machine_as_test(QueueMachine, settings=_PROFILES[os.environ.get("QUEUE_PROFILE", "ci")])


def but(call: Callable[..., Any], **changes: Callable[[Any], Any]) -> Callable[..., Any]:
    """The call, whose answer differs in these fields, as functions of the job before it."""

    def changed(job: Any, *arguments: Any, **options: Any) -> Any:
        return replace(call(job, *arguments, **options), **{name: of(job) for name, of in changes.items()})

    return changed


def forgetful(store: SqliteStore, connection: Any) -> None:
    _RECALL(store, connection)
    store._pause = None


_RECALL, _HELD, _KIND = SqliteStore._recall, transitions._require_running, sqlite._kind
_OLD, _NEXT = sqlite._OLD, sqlite._NEXT
FAULTS: dict[str, tuple[Any, str, Any]] = {
    "a delivery has the epoch of the last": (
        transitions,
        "deliver",
        but(transitions.deliver, lease_epoch=lambda job: max(1, job.lease_epoch)),
    ),
    "a delivery is not charged": (transitions, "deliver", but(transitions.deliver, attempts=lambda job: job.attempts)),
    "a release is charged": (transitions, "release", but(transitions.release, attempts=lambda job: job.attempts)),
    "an older epoch is heard": (transitions, "_require_epoch", lambda *_: None),
    "another's lease is heard": (
        transitions,
        "_require_running",
        lambda job, lease: _HELD(job, Lease(None, lease.epoch)),
    ),
    "a second end wins": (transitions.Job, "finished", property(lambda _: False)),
    "a lease is lost for ever": (transitions, "expire", lambda job, now: transitions._requeued(job)),
    "the dead keep their charges": (
        transitions,
        "requeue",
        but(transitions.requeue, attempts=lambda job: job.attempts),
    ),
    "the newest comes first": (sqlite, "_NEXT", _NEXT.replace("n LIMIT", "n DESC LIMIT")),
    "priorities count within a route only": (
        sqlite,
        "_NEXT",
        _NEXT.replace("n, priority FROM", "n, 0 AS priority FROM"),
    ),
    "retention takes what is not finished": (sqlite, "_OLD", _OLD.replace("finished_at", "created_at")),
    "a pause ends with the broker": (SqliteStore, "_recall", forgetful),
    "a key is for nothing": (sqlite, "_known", lambda _, jobs: jobs),
    "the dead are not counted": (sqlite, "_kind", lambda job: None if job.finished else _KIND(job)),
    "what is remembered outlives a rollback": (Database, "on_rollback", lambda *_: None),
    "a cordon holds nobody": (
        Route,
        "open_to",
        lambda route, worker: route.agent in (None, worker.name) and route.needs <= worker.capabilities,
    ),
    "who waits is not woken": (Queue, "_on_change", lambda *_: None),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_broken_queue_is_found_out(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(*FAULTS[fault])
    # It ends with the first that fails: this is for those that few steps lead to.
    profile = settings(_PROFILES["ci"], max_examples=600, phases=[Phase.generate])
    with pytest.raises((AssertionError, KeyError, TimeoutError)):
        run_state_machine_as_test(QueueMachine, settings=profile)
