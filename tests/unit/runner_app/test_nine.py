"""Submitted in each dialect, run by a runner that speaks each: one job, one result, and the words of the table."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from tests.unit.runner_app.conftest import until

if TYPE_CHECKING:
    from tests.unit.runner_app.conftest import Broker, Runner

DIALECTS = ("jobs", "tasks", "hub")


def _submit(broker: Broker, dialect: str, payload: dict[str, object]) -> str:
    if dialect == "jobs":
        return broker.submit("exec", payload, agent="w1")
    if dialect == "tasks":
        return broker.submit_task("exec", {**payload, "agent_hint": "w1", "lead_id": 7})
    return broker.submit_to("w1", "exec", **payload)


@pytest.mark.parametrize("runs", DIALECTS)
@pytest.mark.parametrize("submits", DIALECTS)
def test_a_job_is_one_whoever_submits_and_whoever_runs_it(
    submits: str, runs: str, broker: Broker, runner: Runner
) -> None:
    broker.register("w1")
    job_id = _submit(broker, submits, {"command": "echo run >> runs; touch up; while ! [ -e go ]; do sleep 0.02; done"})
    assert (broker.job(job_id)["status"], broker.task(job_id)["status"]) == ("queued", "pending")
    runner.speak(runs)
    runner.start("run")
    until((runner.workspace / "up").exists)
    assert (broker.job(job_id)["status"], broker.task(job_id)["status"]) == ("running", "processing")
    assert broker.task(job_id)["dialect"] == submits
    (runner.workspace / "go").touch()
    job = broker.finished(job_id)
    task = broker.task(job_id)
    assert (job["id"], job["status"], job["attempts"], job["worker_id"]) == (job_id, "done", 1, "w1")
    assert (task["id"], task["status"], task["attempts"], task["assigned_to"]) == (job_id, "completed", 1, "w1")
    assert task["result"] == json.loads(job["result"])
    assert task["result"]["exit_code"] == 0
    until(lambda: not runner.claims())
    assert runner.lines("runs") == ["run"]


@pytest.mark.parametrize("runs", DIALECTS)
@pytest.mark.parametrize("submits", DIALECTS)
def test_a_failure_is_tried_again_as_the_submitters_dialect_has_it(
    submits: str, runs: str, broker: Broker, runner: Runner
) -> None:
    broker.register("w1")
    job_id = _submit(broker, submits, {"command": "exit 3"})
    runner.speak(runs)
    runner.start("run")
    until(lambda: broker.task(job_id)["error_message"] == "exit code 3")
    expected = ("queued", "pending") if submits == "tasks" else ("failed", "failed")
    assert (broker.job(job_id)["status"], broker.task(job_id)["status"]) == expected


@pytest.mark.parametrize("runs", DIALECTS)
def test_a_job_that_may_be_delivered_once_is_not_given_back_when_its_runner_is_stopped(
    runs: str, broker: Broker, runner: Runner
) -> None:
    broker.register("w1")
    payload = {"command": "echo run >> runs; exec sleep 300"}
    job_id = broker.submit("exec", payload, agent="w1", max_deliveries=1)
    runner.speak(runs)
    runner.start("run")
    until(lambda: runner.lines("runs"))
    assert runner.end() == 0
    job = broker.job(job_id)
    assert (job["status"], job["outcome"], job["attempts"]) == ("failed", "failed", 1)
