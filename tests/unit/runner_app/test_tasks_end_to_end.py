"""The runner's program against the broker's, over the tasks dialect."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING

import pytest

from runner_app import supervisor
from tests.unit.runner_app.conftest import until
from tests.unit.runner_app.scripted import answer, listening

if TYPE_CHECKING:
    import subprocess

    from tests.unit.runner_app.conftest import Broker, Runner


@pytest.fixture(autouse=True)
def _speaking(runner: Runner) -> None:
    runner.speak("tasks")


def test_once_with_an_empty_queue(runner: Runner) -> None:
    done = runner.call("--once")
    assert (done.returncode, done.stdout) == (0, "")
    assert "no job is waiting" in done.stderr


def test_once_pulls_runs_and_completes(broker: Broker, runner: Runner) -> None:
    first, second = (broker.submit_task("exec", {"command": f"echo {word}"}) for word in ("one", "two"))
    assert runner.call("--once").returncode == 0
    assert broker.task(first)["status"] == "completed"
    assert broker.task(first)["result"]["stdout"] == "one\n"
    assert broker.task(second)["status"] == "pending"


def test_once_reports_a_type_that_it_does_not_know_as_failed(broker: Broker, runner: Runner) -> None:
    task_id = broker.submit_task("DANCE", {}, max_attempts=1)
    done = runner.call("--once")
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    task = broker.task(task_id)
    assert (task["status"], task["attempts"]) == ("dead_letter", 1)
    assert "unknown command 'DANCE'" in task["error_message"]
    assert runner.claims() == []


def test_a_type_that_the_runner_does_not_know_fails_and_is_tried_again_by_the_brokers_rule(
    broker: Broker, runner: Runner
) -> None:
    retried, last = broker.submit_task("DANCE", {}), broker.submit_task("DANCE", {}, max_attempts=1)
    runner.start("run")
    until(lambda: broker.task(last)["status"] == "dead_letter")
    until(lambda: broker.task(retried)["error_message"])
    task = broker.task(retried)
    assert (task["status"], task["attempts"]) == ("pending", 1)
    assert "unknown command 'DANCE'" in task["error_message"]
    assert task["next_retry_at"]


@pytest.mark.parametrize(
    "text",
    [
        *('{"a": ' + "[" * depth + "1" + "]" * depth + "}" for depth in (29, 30, 31, 32, 99)),
        '{"a": "\\ud800"}',
        '{"text": "\\ud800"}',
        '{"a": 1e999}',
        '{"a": NaN}',
        '{"text": "{}"}',
    ],
)
def test_a_result_is_what_it_was_made_of(broker: Broker, runner: Runner, text: str) -> None:
    job_id = broker.submit("plan_echo", text)
    assert runner.call("--once").returncode == 0
    plan = json.loads(broker.finished(job_id)["result"])
    job_id = broker.submit("approve_echo", plan["plan_id"])
    assert runner.call("--once").returncode == 0
    job = broker.finished(job_id)
    assert (job["error"], job["result"]) == (None, text)


def test_a_lease_is_renewed_as_often_as_the_seeds_variable_says(broker: Broker, runner: Runner) -> None:
    runner.environment["AIDSEC_HEARTBEAT_INTERVAL_SECONDS"] = "1"
    runner.start("run")
    task_id = broker.submit_task("exec", {"command": "touch up; exec sleep 300"})
    until((runner.workspace / "up").exists)
    first = broker.task(task_id)["lease_until"]
    until(lambda: broker.task(task_id)["lease_until"] > first)


def test_a_cancelled_task_is_stopped_by_its_next_heartbeat(broker: Broker, runner: Runner) -> None:
    runner.environment["AIDSEC_HEARTBEAT_INTERVAL_SECONDS"] = "1"
    runner.start("run")
    task_id = broker.submit_task("exec", {"command": "echo $$ > .pid; mv .pid pid; exec sleep 300"})
    until(lambda: runner.lines("pid"))
    broker.cancel(task_id)
    until(lambda: supervisor.start_ticks(int(runner.lines("pid")[0])) is None and not runner.claims(), 10)
    assert broker.task(task_id)["status"] == "cancelled"


def test_a_runner_that_is_stopped_leaves_its_task_to_a_short_lease(broker: Broker, runner: Runner) -> None:
    runner.start("run")
    task_id = broker.submit_task("exec", {"command": "touch up; exec sleep 300"})
    until((runner.workspace / "up").exists)
    long = broker.task(task_id)["lease_until"]
    assert runner.end() == 0
    assert (broker.task(task_id)["status"], broker.task(task_id)["lease_until"] < long) == ("processing", True)


@pytest.mark.parametrize(
    ("variable", "value", "words"),
    [
        ("AIDSEC_AGENT_API_KEY", "wrong", "AIDSEC_AGENT_API_KEY"),
        ("AIDSEC_GLOBAL_API_KEY", "wrong", "AIDSEC_GLOBAL_API_KEY"),
        ("AIDSEC_AGENT_ID", "w2", "403"),
        ("AIDSEC_HEARTBEAT_INTERVAL_SECONDS", "300", "AIDSEC_HEARTBEAT_INTERVAL_SECONDS"),
        ("AIDSEC_API_BASE_URL", "http://127.0.0.1:1/api", "the broker at http://127.0.0.1:1 does not answer"),
    ],
)
@pytest.mark.parametrize("verb", ["check", "--once"])
def test_a_mistake_is_said_in_one_line(verb: str, variable: str, value: str, words: str, runner: Runner) -> None:
    done = runner.call(verb, **{variable: value})
    assert done.returncode == 1
    lines = [line for line in done.stderr.splitlines() if not line.startswith("INFO")]
    assert len(lines) == 1
    assert words in lines[0]


def test_once_says_in_one_line_that_it_was_given_no_task(runner: Runner) -> None:
    async def scene() -> subprocess.CompletedProcess[str]:
        async with listening(answer("200 OK", '{"task": {"id": "j1"}}')) as (url, _):
            return await asyncio.to_thread(runner.call, "--once", AIDSEC_API_BASE_URL=f"{url}/api")

    done = asyncio.run(scene())
    assert done.returncode == 1
    lines = [line for line in done.stderr.splitlines() if not line.startswith("INFO")]
    assert lines == ["openclaw-runner: what the broker gave is no job: the task or its payload is not an object"]


def test_check(runner: Runner) -> None:
    done = runner.call("check")
    assert done.returncode == 0, done.stderr
