"""Runners that speak each dialect: jobs from any of them, lines that are cut, and agents that are away for long."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING

import pytest

from tests.faults.dialects import DIALECTS, SPEAKS, speaking, submit
from tests.faults.ledger import Book, Run, script, script_until
from tests.faults.stand import kill, until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.faults.stand import Stand

_LEASE_SECONDS = 30
_UNTIL_GO = script_until("go-$OPENCLAW_JOB_ID")


@pytest.fixture(scope="module", autouse=True)
def _speaking(_stand: Stand) -> Iterator[None]:
    with speaking(_stand, _LEASE_SECONDS):
        yield


def _runs(stand: Stand, job: str) -> list[Run]:
    book = Book.read(agent.workspace for agent in stand.agents.values())
    assert not book.overlapping(job)
    return book.of(job)


def _started(stand: Stand, agent: str) -> str:
    job = stand.submit(agent, _UNTIL_GO)
    until(lambda: _runs(stand, job), f"the start of {agent}'s job")
    return job


@pytest.mark.parametrize("agent", SPEAKS, ids=SPEAKS.values())
@pytest.mark.parametrize("submitted", DIALECTS)
def test_a_job_of_each_dialect_is_one_job_for_a_runner_of_each(stand: Stand, submitted: str, agent: str) -> None:
    job = submit(stand, submitted, agent, script(0.3))
    done = stand.ended(job)
    task = stand.bot.get(f"/api/tasks/{job}").json()
    assert (done["id"], done["status"], done["outcome"], done["dialect"]) == (job, "done", "done", submitted)
    assert (task["id"], task["status"], task["dialect"]) == (job, "completed", submitted)
    assert (done["worker_id"], task["assigned_to"]) == (agent, agent)
    assert task["result"] == json.loads(done["result"])
    assert (done["attempts"], len(_runs(stand, job))) == (1, 1)


def _pull_the_cable(stand: Stand) -> None:
    machine = stand.agents["agent3"].machine
    machine.cut()
    time.sleep(_LEASE_SECONDS / 3)
    machine.heal()


@pytest.mark.parametrize("cut", [lambda stand: kill(stand.broker), _pull_the_cable], ids=["broker", "cable"])
def test_a_line_that_is_cut_while_a_task_runs_is_taken_up_again(stand: Stand, cut: Callable[[Stand], None]) -> None:
    stand.lease(_LEASE_SECONDS)
    job = _started(stand, "agent3")
    cut(stand)
    lease = stand.job(job)["lease_until"] if stand.answers() else 0
    until(lambda: stand.answers() and stand.job(job)["lease_until"] > lease, "a renewal on the new line")
    stand.agents["agent3"].go(job)
    done = stand.ended(job)
    assert (done["status"], done["attempts"], len(_runs(stand, job))) == ("done", 1, 1)


def test_agents_that_are_away_for_a_lease_and_a_half_lose_nothing_and_double_nothing(stand: Stand) -> None:
    stand.lease(_LEASE_SECONDS)
    running = {agent: _started(stand, agent) for agent in SPEAKS}
    machines = {agent.machine.name: agent.machine for agent in stand.agents.values()}.values()
    for machine in machines:
        machine.cut()
    waiting = {agent: stand.submit(agent, script(0.3)) for agent in SPEAKS}
    time.sleep(_LEASE_SECONDS * 1.5)
    for agent, job in running.items():
        assert stand.job(job)["status"] == "queued", f"{agent} is away, and its lease is over"
        stand.agents[agent].go(job)
    for machine in machines:
        machine.heal()
    for agent, job in running.items():
        done = stand.ended(job)
        assert (done["status"], done["worker_id"], done["attempts"], len(_runs(stand, job))) == ("done", agent, 2, 2)
    for agent, job in waiting.items():
        done = stand.ended(job)
        assert (done["status"], done["worker_id"], len(_runs(stand, job))) == ("done", agent, 1)
