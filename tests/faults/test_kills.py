"""kill -9 of broker, runner and host at each point of a job's life: it is done as promised.

At the points before a run, and where the run is over, the job runs exactly once. Only a host that dies while the job
runs makes it run again.
"""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING

import pytest

from lab.machines import Direction
from tests.faults.ledger import Book, script_until
from tests.faults.stand import kill, stopped_after, until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.faults.stand import Agent, Stand

_SECONDS = 60.0
_LEASE_SECONDS = 60  # longer than all that a fault costs before the job goes on
_RENEWED_SECONDS = 30  # where a renewal is waited for, which comes after a third
_DEAD_CONNECTION_SECONDS = 4.0  # a runner gives a connection up after three without a word


def _unrecorded(stand: Stand, agent: Agent) -> Iterator[str]:
    """The broker handed the job out, and the answer is lost."""
    stand.ended(stand.submit(agent.name, "true"))  # a runner that has taken a job waits for the next
    agent.machine.cut(Direction.IN)
    job = _submit(stand, agent)
    until(lambda: stand.job(job)["status"] == "running", "the claim", 5)
    time.sleep(_DEAD_CONNECTION_SECONDS)  # else the kernel could bring the answer late
    assert not agent.attempt(job).exists()
    yield job
    agent.machine.heal()


def _recorded(stand: Stand, agent: Agent) -> Iterator[str]:
    """The claim is on disk and the unit's files are written; systemd was not told."""
    runner = agent.runner
    assert runner is not None
    with stopped_after(runner, "utimensat", stand.fleet.lab.lab.folder / "strace.log") as has_stopped:
        job = _submit(stand, agent)
        until(has_stopped, "the unit's files are written")
        assert agent.unit(job).exists()
        assert (agent.attempt(job) / "claim.json").exists()
        assert not (agent.attempt(job) / "started.json").exists()
        yield job


def _running(stand: Stand, agent: Agent) -> Iterator[str]:
    """The job runs."""
    job = _submit(stand, agent)
    until(lambda: _book(agent).of(job), "the job's start")
    yield job


def _finished(stand: Stand, agent: Agent) -> Iterator[str]:
    """The job ended while its host was cut off."""
    job = _submit(stand, agent)
    until(lambda: _book(agent).of(job), "the job's start")
    agent.machine.cut()
    agent.go(job)
    until((agent.attempt(job) / "exit.json").exists, "the record of the end")
    assert stand.job(job)["status"] == "running"
    yield job
    agent.machine.heal()


def _reported(stand: Stand, agent: Agent) -> Iterator[str]:
    """The broker has the result, and its answer is lost."""
    job = _submit(stand, agent)
    until(lambda: _book(agent).of(job), "the job's start")
    lease = stand.job(job)["lease_until"]
    # A renewal leaves an open connection, on which a report goes out although no answer comes in.
    until(lambda: stand.job(job)["lease_until"] > lease, "a renewal")
    agent.machine.cut(Direction.IN)
    agent.go(job)
    until(lambda: stand.job(job)["status"] == "done", "the result", 5)
    assert (agent.attempt(job) / "claim.json").exists()
    yield job
    agent.machine.heal()


POINTS = {
    "unrecorded": _unrecorded,
    "recorded": _recorded,
    "running": _running,
    "finished": _finished,
    "reported": _reported,
}
VICTIMS: dict[str, Callable[[Stand, Agent], None]] = {
    "broker": lambda stand, _: kill(stand.broker),
    "runner": lambda _, agent: kill(agent.runner),
    "host": lambda _, agent: agent.machine.crash(),
}
# (deliveries, runs) where they are not (1, 1).
_EXPECTED = {
    ("unrecorded", "broker"): (2, 1),
    ("unrecorded", "runner"): (2, 1),
    ("unrecorded", "host"): (2, 1),
    ("running", "host"): (2, 2),
}


@pytest.mark.parametrize("victim", VICTIMS)
@pytest.mark.parametrize("point", POINTS)
def test_a_job_is_done_as_promised(stand: Stand, point: str, victim: str) -> None:
    agent = stand.agents["agent3" if victim != "runner" else "agent1"]
    stand.lease(_RENEWED_SECONDS if point == "reported" else _LEASE_SECONDS)
    reached = POINTS[point](stand, agent)
    job = next(reached)
    lease = stand.job(job)["lease_until"]
    VICTIMS[victim](stand, agent)
    assert list(reached) == []  # heals
    stand.all_well()
    agent.go(job)
    done = stand.ended(job, _SECONDS)
    assert done["status"] == "done", done["error"]
    assert json.loads(done["result"])["exit_code"] == 0
    until(lambda: not agent.attempt(job, done["lease_epoch"]).exists(), "the runner has noted the answer")
    runs = _book(agent).of(job)
    assert (done["attempts"], len(runs)) == _EXPECTED.get((point, victim), (1, 1))
    assert done["lease_epoch"] == done["attempts"]
    # No lease: a reset of the connection told the broker already that nobody has the job.
    assert done["attempts"] == 1 or lease is None or done["started_at"] < lease, "it waited for its lease to end"
    assert not _book(agent).overlapping(job)
    assert [run.ended for run in runs] == [False] * (len(runs) - 1) + [True]


def _submit(stand: Stand, agent: Agent) -> str:
    return stand.submit(agent.name, script_until("go-$OPENCLAW_JOB_ID"))


def _book(agent: Agent) -> Book:
    return Book.read([agent.workspace])
