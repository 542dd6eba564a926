"""A runner that is cut off, or hangs, for less and for more than a lease."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from tests.faults.ledger import Book, Run, script_until
from tests.faults.stand import inside, until

if TYPE_CHECKING:
    from tests.faults.stand import Agent, Stand

_LEASE_SECONDS = 12
# A runner gives up at three quarters of a lease, and a tailnet comes back up to 6 s after the cable.
_LONG_LEASE_SECONDS = 30
_SCRIPT = script_until("go-$OPENCLAW_JOB_ID")


def _runs(stand: Stand, job: str) -> list[Run]:
    book = Book.read(agent.workspace for agent in stand.agents.values())
    assert not book.overlapping(job)
    return book.of(job)


def _start(stand: Stand, agent: Agent | None, lease: int = _LEASE_SECONDS) -> str:
    stand.lease(lease)
    job = stand.submit(agent.name if agent else None, _SCRIPT)
    until(lambda: _runs(stand, job), "the job's start")
    return job


def _end(stand: Stand, job: str) -> dict[str, Any]:
    """Let the job come to its end, whoever has it, and return it."""
    for agent in stand.agents.values():
        agent.go(job)
    return stand.ended(job)


def _ends_once(stand: Stand, job: str) -> None:
    done = _end(stand, job)
    assert (done["status"], done["attempts"], len(_runs(stand, job))) == ("done", 1, 1)


def _hang_its_runner(stand: Stand, job: str) -> Agent:
    hung = stand.agents[stand.job(job)["worker_id"]]
    runner = hung.runner
    assert runner is not None
    hung.machine.hang(inside(runner))
    return hung


def _resume(hung: Agent, job: str) -> None:
    hung.machine.resume()
    until(lambda: not hung.attempt(job).exists(), "the first runner has let go")


def _ends_with_another(stand: Stand, job: str, hung: Agent) -> None:
    done = _end(stand, job)
    # It was not offered to the one that hangs once more, whose kernel still answers.
    assert (done["status"], done["attempts"], len(_runs(stand, job))) == ("done", 2, 2)
    assert done["worker_id"] != hung.name


def test_a_job_longer_than_its_lease_is_run_once(stand: Stand) -> None:
    agent = stand.agents["agent3"]
    job = _start(stand, agent)
    time.sleep(_LEASE_SECONDS * 1.25)
    _ends_once(stand, job)


def test_a_partition_shorter_than_the_lease_is_not_noticed(stand: Stand) -> None:
    agent = stand.agents["agent3"]
    job = _start(stand, agent, _LONG_LEASE_SECONDS)
    agent.machine.cut()
    time.sleep(_LONG_LEASE_SECONDS / 3)
    agent.machine.heal()
    _ends_once(stand, job)


def test_a_partition_longer_than_the_lease_ends_the_job_before_another_has_it(stand: Stand) -> None:
    agent = stand.agents["agent3"]
    job = _start(stand, agent)
    agent.machine.cut()
    until(lambda: stand.job(job)["status"] == "queued", "the end of the lease")
    ended = _runs(stand, job)[0].last
    time.sleep(1)
    assert _runs(stand, job)[0].last == ended, "it runs although its lease is over"
    agent.machine.heal()
    until(lambda: len(_runs(stand, job)) == 2, "the second run")
    done = _end(stand, job)
    # It was not offered to the connection that was cut off, which the broker still had.
    assert (done["status"], done["attempts"], len(_runs(stand, job))) == ("done", 2, 2)


def test_the_job_of_a_runner_that_hangs_is_ended_and_given_to_another(stand: Stand) -> None:
    job = _start(stand, None)
    hung = _hang_its_runner(stand, job)
    until(lambda: len(_runs(stand, job)) == 2, "the second run")
    _resume(hung, job)
    _ends_with_another(stand, job, hung)
    assert [run.ended for run in _runs(stand, job)] == [False, True]
    ping = stand.bot.post("/jobs", json={"command": "ping", "agent": hung.name}).json()["id"]
    assert stand.ended(ping)["status"] == "done"


def test_a_result_that_comes_after_the_lease_is_refused(stand: Stand) -> None:
    """The job ends while its runner hangs; another runner has it by the time of the report."""
    job = _start(stand, None)
    hung = _hang_its_runner(stand, job)
    hung.go(job)
    until((hung.attempt(job) / "exit.json").exists, "the record of the end")
    until(lambda: len(_runs(stand, job)) == 2, "the second run")
    _resume(hung, job)
    assert stand.job(job)["status"] == "running"
    _ends_with_another(stand, job, hung)
