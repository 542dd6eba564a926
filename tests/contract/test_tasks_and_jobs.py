"""One queue below the tasks and the jobs dialect: the same id, the same payload, one result."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from tests.contract import tasks as dialect
from tests.contract.tasks import complete, lose, pull, show, submit

if TYPE_CHECKING:
    import httpx

    from tests.contract.harness import Broker

PAYLOADS = [
    ("hello", {"text": "hello"}),
    ("", {}),
    ('{"command": "ls", "n": 1}', {"command": "ls", "n": 1}),
    ("[1]", {"text": "[1]"}),
    ('{"a": NaN}', {"text": '{"a": NaN}'}),
    ('{"a": 1e999}', {"text": '{"a": 1e999}'}),
    ('{"a": "\\ud800"}', {"text": '{"a": "\\ud800"}'}),
    ('{"a": ' * 30 + "1" + "}" * 30, json.loads('{"a": ' * 30 + "1" + "}" * 30)),
    *((text, {"text": text}) for text in ('{"a": ' * depth + "1" + "}" * depth for depth in (31, 32, 33, 1000))),
]


@pytest.fixture
def worker(tasks: Broker, name: str) -> httpx.Client:
    """The same agent in the jobs dialect."""
    return tasks.client({"X-Worker-Token": f"key-of-{name}", "X-Worker-Id": name})


@pytest.mark.parametrize(("text", "value"), PAYLOADS)
def test_a_job_is_a_task(
    tasks: Broker, submitter: httpx.Client, agent: httpx.Client, *, name: str, text: str, value: Any
) -> None:
    bot = tasks.bot()
    job_id = bot.post("/jobs", json={"command": "ping", "payload": text, "agent": name}).json()["id"]
    shown = show(submitter, job_id)
    assert (shown["task_type"], shown["payload"], shown["status"], shown["dialect"]) == (
        "ping",
        value,
        "pending",
        "jobs",
    )
    task = pull(agent)
    assert (task["id"], task["type"], task["payload"]) == (job_id, "ping", value)
    assert (bot.get(f"/jobs/{job_id}").json()["worker_id"], show(submitter, job_id)["status"]) == (name, "processing")
    assert complete(agent, task, result=value).status_code == 200
    job = bot.get(f"/jobs/{job_id}").json()
    assert (job["status"], job["outcome"], job["result"]) == ("done", "done", text)
    assert show(submitter, job_id)["result"] == value


@pytest.mark.parametrize(("text", "value"), PAYLOADS[:3])
def test_a_task_is_a_job(
    tasks: Broker, submitter: httpx.Client, worker: httpx.Client, *, name: str, text: str, value: Any
) -> None:
    task_id = submit(submitter, name, "exec", payload={"x": 1})
    job = worker.get("/jobs/next").json()["job"]
    assert (job["id"], job["command"], job["payload"]) == (task_id, "exec", f'{{"agent_hint": "{name}", "x": 1}}')
    assert (job["agent"], job["dialect"], job["lease_seconds"], job["max_deliveries"]) == (name, "tasks", 300, 5)
    assert worker.post(f"/jobs/{task_id}/heartbeat", json={"lease_epoch": 1}).status_code == 200
    assert worker.post(f"/jobs/{task_id}/result", json={"result": text, "lease_epoch": 1}).status_code == 200
    shown = show(submitter, task_id)
    assert (shown["status"], shown["result"], shown["assigned_to"]) == ("completed", value, name)
    assert tasks.bot().get(f"/jobs/{task_id}").json()["result"] == text


def test_who_runs_a_task_does_not_change_its_retry_rule(
    tasks: Broker, submitter: httpx.Client, agent: httpx.Client, worker: httpx.Client, name: str
) -> None:
    task_id = submit(submitter, name, max_attempts=2)
    worker.get("/jobs/next")
    response = worker.post(f"/jobs/{task_id}/fail", json={"error": "e", "lease_epoch": 1})
    assert (response.status_code, response.json()) == (200, {"ok": True, "status": "queued"})
    assert show(submitter, task_id)["next_retry_at"] is not None
    assert worker.get("/jobs/next", params={"wait": 6}).json()["job"]["id"] == task_id
    assert worker.post(f"/jobs/{task_id}/fail", json={"error": "e", "lease_epoch": 2}).json()["status"] == "failed"
    assert tasks.bot().get(f"/jobs/{task_id}").json()["outcome"] == "dead"
    job_id = tasks.bot().post("/jobs", json={"command": "ping", "agent": name}).json()["id"]
    complete(agent, pull(agent), success=False, error="final")
    shown = show(submitter, job_id)
    assert (shown["status"], shown["error_message"]) == ("failed", "final")
    assert [task["id"] for task in submitter.get("/api/tasks", params={"agent": name, "status": "failed"}).json()] == [
        job_id
    ]
    dead = submitter.get("/api/tasks", params={"agent": name, "status": "dead_letter"}).json()
    assert [task["id"] for task in dead] == [task_id]


def test_the_keys_are_tokens_of_every_dialect(tasks: Broker, submitter: httpx.Client, name: str) -> None:
    bot = tasks.client({"X-Bot-Token": dialect.GLOBAL_KEY})
    assert bot.get("/jobs").status_code == 200
    other = tasks.client({"X-Worker-Token": f"key-of-{name}", "X-Worker-Id": dialect.unused()})
    assert other.get("/jobs/next").status_code == 403
    shared = tasks.client({"Authorization": f"Bearer {tasks.bot_token}", "X-API-Key": tasks.worker_token})
    submit(submitter, name)
    assert shared.get("/api/agents/tasks/pull", params={"agent_id": name}).json()["task"] is not None
    lose(tasks, name)
    agents = {agent["id"]: agent for agent in bot.get("/agents").json()["agents"]}
    assert agents[name]["status"] == "online"
