"""The tasks dialect: who may call, what is asked and what is answered."""

from __future__ import annotations

import json
import time
import uuid
from datetime import datetime
from typing import TYPE_CHECKING, Any

import pytest

from tests.contract import tasks as dialect
from tests.contract.tasks import GLOBAL_KEY, SETTINGS, complete, pull, show, submit, unused

if TYPE_CHECKING:
    from collections.abc import Callable

    import httpx

    from tests.contract.harness import Broker

SEED_KEYS = {
    "id", "task_type", "lead_id", "status", "assigned_to", "attempts", "max_attempts", "lease_until",
    "last_heartbeat_at", "next_retry_at", "created_at", "completed_at", "error_message",
}  # fmt: skip
SUBMITTERS = [
    ("GET", "/api/tasks"),
    ("POST", "/api/tasks"),
    ("GET", "/api/tasks/none"),
    ("POST", "/api/tasks/none/requeue"),
    ("GET", "/api/health/sequence-worker"),
]
AGENTS = [
    ("GET", "/api/agents/tasks/pull"),
    ("POST", "/api/agents/tasks/none/heartbeat"),
    ("POST", "/api/agents/tasks/none/complete"),
]
BEARER = {"Authorization": f"Bearer {GLOBAL_KEY}"}


def seconds(time_of: str) -> float:
    moment = datetime.fromisoformat(time_of)
    assert moment.utcoffset() is not None
    return moment.timestamp()


def detail(response: httpx.Response) -> tuple[int, Any]:
    return response.status_code, response.json()["detail"]


def test_health_needs_no_key(tasks: Broker) -> None:
    response = tasks.client().get("/api/health")
    assert (response.status_code, response.json()) == (200, {"status": "ok"})


@pytest.mark.parametrize(("method", "path"), SUBMITTERS + AGENTS)
@pytest.mark.parametrize(
    "headers",
    [{}, {"Authorization": "Bearer wrong"}, {"Authorization": GLOBAL_KEY}, {"Authorization": f"Basic {GLOBAL_KEY}"}],
)
def test_the_global_key_comes_first(tasks: Broker, method: str, path: str, headers: dict[str, str]) -> None:
    if "agents" in path:
        headers = headers | {"X-API-Key": "key-of-agent1"}
    response = tasks.client(headers).request(method, path, content=b"no JSON")
    assert detail(response) == (401, "Invalid or missing API key")


@pytest.mark.parametrize(("method", "path"), SUBMITTERS)
def test_an_agents_key_does_not_submit(tasks: Broker, method: str, path: str) -> None:
    response = tasks.client({"Authorization": "Bearer key-of-agent1"}).request(method, path)
    assert detail(response) == (401, "Invalid or missing API key")


@pytest.mark.parametrize("headers", [{"authorization": f"bearer {GLOBAL_KEY}"}, {"X-API-Key": GLOBAL_KEY}])
def test_the_global_key_in_its_other_forms(tasks: Broker, headers: dict[str, str]) -> None:
    assert tasks.client(headers).get("/api/tasks").status_code == 200


@pytest.mark.parametrize("token", ["bot", "admin"])
def test_minted_tokens_do_for_the_global_key(tasks: Broker, token: str) -> None:
    minted = tasks.command("token", "mint", f"{token}-of-tasks", "--role", token).stdout.strip()
    client = tasks.client({"Authorization": f"Bearer {minted}"})
    assert client.get("/api/tasks").status_code == 200
    assert client.post("/api/tasks/none/requeue").status_code == (401 if token == "bot" else 404)


@pytest.mark.parametrize(("method", "path"), AGENTS)
def test_who_an_agent_must_be(tasks: Broker, method: str, path: str) -> None:
    def call(agent_id: str, key: str, bearer: str = GLOBAL_KEY) -> tuple[int, Any]:
        client = tasks.client({"Authorization": f"Bearer {bearer}", "X-API-Key": key})
        body = {"success": True, "lease_token": "x"}
        return detail(client.request(method, path, params={"agent_id": agent_id, "lease_seconds": 1}, json=body))

    passed = 404 if path.endswith("complete") else 422
    assert call("stranger", "key-of-agent1") == (403, "Agent 'stranger' is not registered")
    assert call("agent1", "wrong") == (401, "Invalid credentials for agent")
    assert call("agent1", "key-of-agent2") == (401, "Invalid credentials for agent")
    assert call("agent1", GLOBAL_KEY) == (401, "Invalid credentials for agent")
    assert call("agent1", "key-of-agent1")[0] == passed
    assert call("agent1", "key-of-agent1", bearer="key-of-agent1")[0] == passed
    assert call("no name", "key-of-agent1")[0] == 422


def test_an_agents_key_may_be_the_bearer_alone(tasks: Broker) -> None:
    client = tasks.client({"Authorization": "Bearer key-of-agent1"})
    assert client.get("/api/agents/tasks/pull", params={"agent_id": "agent1"}).status_code == 200
    assert client.get("/api/agents/tasks/pull", params={"agent_id": "agent2"}).status_code == 401


def test_a_minted_worker_is_an_agent(tasks: Broker) -> None:
    minted = tasks.command("token", "mint", "minted").stdout.strip()
    client = tasks.client(BEARER | {"X-API-Key": minted})
    assert client.get("/api/agents/tasks/pull", params={"agent_id": "minted"}).status_code == 200
    assert client.get("/api/agents/tasks/pull", params={"agent_id": "agent1"}).status_code == 401
    other = tasks.client(BEARER | {"X-API-Key": "key-of-agent1"})
    assert other.get("/api/agents/tasks/pull", params={"agent_id": "minted"}).status_code == 401
    assert tasks.command("token", "revoke", "minted").returncode == 0
    deadline = time.monotonic() + 2
    while client.get("/api/agents/tasks/pull", params={"agent_id": "minted"}).status_code != 403:
        assert time.monotonic() < deadline


def test_a_submitted_task_is_shown_and_pulled(submitter: httpx.Client, agent: httpx.Client, name: str) -> None:
    payload = {"agent_hint": name, "lead_id": 7, "nested": [{"a": None}], "text": "ü"}
    began = time.time()
    answer = submitter.post("/api/tasks", json={"type": "GENERATE_DRAFT", "payload": payload, "x": 1}).json()
    task = answer["task"]
    assert (answer["success"], answer["message"]) == (True, "Task queued")
    assert uuid.UUID(task["id"]).version == 4
    assert task.keys() == SEED_KEYS | {"payload", "result", "dialect"}
    assert began - 1 < seconds(task["created_at"]) < time.time() + 1
    nulls = ("assigned_to", "lease_until", "last_heartbeat_at", "next_retry_at", "completed_at", "error_message")
    assert {task[key] for key in (*nulls, "result")} == {None}
    assert {key: task[key] for key in ("task_type", "lead_id", "status", "attempts", "max_attempts", "dialect")} == {
        "task_type": "GENERATE_DRAFT", "lead_id": 7, "status": "pending", "attempts": 0, "max_attempts": 5,
        "dialect": "tasks",
    }  # fmt: skip
    assert task["payload"] == payload
    assert show(submitter, task["id"]) == task
    response = agent.get("/api/agents/tasks/pull").json()
    pulled = response["task"]
    assert (response["success"], response["message"]) == (True, None)
    assert list(pulled) == ["id", "type", "lead_id", "payload", "lease_token", "lease_until", "max_attempts"]
    assert (pulled["id"], pulled["type"], pulled["lead_id"]) == (task["id"], "GENERATE_DRAFT", 7)
    assert pulled["payload"] == payload
    shown = show(submitter, task["id"])
    assert (shown["status"], shown["assigned_to"], shown["attempts"]) == ("processing", name, 1)
    assert seconds(shown["lease_until"]) == seconds(pulled["lease_until"])
    assert began - 1 < seconds(shown["last_heartbeat_at"]) < time.time() + 1


def test_an_empty_queue(agent: httpx.Client) -> None:
    response = agent.get("/api/agents/tasks/pull")
    assert (response.status_code, response.json()) == (
        200, {"success": True, "message": "Queue is empty", "task": None},
    )  # fmt: skip


@pytest.mark.parametrize("result", [None, {}, {"text": "pong"}, {"a": [1, {"b": "ü"}]}])
def test_a_completed_task(
    submitter: httpx.Client, agent: httpx.Client, name: str, result: dict[str, Any] | None
) -> None:
    task_id = submit(submitter, name)
    task = pull(agent)
    response = complete(agent, task, result=result, error="ignored")
    assert (response.status_code, response.json()) == (
        200, {"success": True, "message": "Task completed successfully"},
    )  # fmt: skip
    shown = show(submitter, task_id)
    assert (shown["status"], shown["result"], shown["error_message"]) == ("completed", result or {}, None)
    assert abs(seconds(shown["completed_at"]) - time.time()) < 5
    assert (shown["lease_until"], shown["assigned_to"]) == (None, name)
    assert complete(agent, task, result={"late": 1}).status_code == 200
    assert complete(agent, task, success=False).json()["message"] == "Task already completed"
    assert show(submitter, task_id) == shown
    assert pull(agent) is None


@pytest.mark.parametrize(
    "body",
    [
        b"", b"{", b"[]", b"\xff", b'{"type": NaN}', {}, {"type": None}, {"type": 1},
        {"type": ""}, {"type": "two words"},
        {"type": "x" * 65}, {"type": "1"}, {"type": "ping", "payload": "text"}, {"type": "ping", "payload": [1]},
        {"type": "ping", "payload": {"agent_hint": 1}}, {"type": "ping", "payload": {"agent_hint": "two words"}},
        {"type": "ping", "max_attempts": 0}, {"type": "ping", "max_attempts": 101},
        {"type": "ping", "max_attempts": "5"},
        {"type": "ping", "max_attempts": True}, b'{"type": "ping", "payload": {"text": "\\ud800"}}',
    ],
)  # fmt: skip
def test_a_submission_that_is_none(submitter: httpx.Client, body: Any) -> None:
    content = {"content": body} if isinstance(body, bytes) else {"json": body}
    assert submitter.post("/api/tasks", **content).status_code == 422


def test_only_listed_types_are_accepted(start_broker: Callable[..., Broker]) -> None:
    client = dialect.submitter(start_broker(**SETTINGS, BROKER_COMMANDS="ping, exec"))
    assert client.post("/api/tasks", json={"type": "exec"}).status_code == 200
    assert client.post("/api/tasks", json={"type": "build"}).status_code == 422


def test_objects_leave_room_for_what_is_around_them(submitter: httpx.Client, agent: httpx.Client, name: str) -> None:
    fits, too_deep = ({"a": json.loads("[" * depth + "]" * depth)} for depth in (29, 30))
    task_id = submit(submitter, name, payload=fits)
    response = submitter.post("/api/tasks", json={"type": "ping", "payload": too_deep})
    assert (response.status_code, response.json()["detail"][0]["type"]) == (422, "json_nesting")
    task = pull(agent)
    assert task["payload"] == {"agent_hint": name, **fits}
    response = complete(agent, task, result=too_deep)
    assert (response.status_code, response.json()["detail"][0]["type"]) == (422, "json_nesting")
    assert complete(agent, task, result=fits).status_code == 200
    assert show(submitter, task_id)["result"] == fits


def test_sizes(submitter: httpx.Client, agent: httpx.Client, name: str) -> None:
    most = 262144 - len(f'{{"agent_hint": "{name}", "a": ""}}')
    submit(submitter, name, payload={"a": "x" * most})
    payload = {"agent_hint": name, "a": "x" * (most + 1)}
    response = submitter.post("/api/tasks", json={"type": "ping", "payload": payload})
    assert detail(response) == (413, "payload too large")
    task = pull(agent)
    assert detail(complete(agent, task, result={"text": "x" * 262145})) == (413, "result too large")
    assert detail(complete(agent, task, success=False, error="x" * 262145)) == (413, "error too large")
    assert detail(submitter.post("/api/tasks", content=b" " * 524289)) == (413, "request body too large")
    assert complete(agent, task, result={"text": "x" * 262144}).status_code == 200


@pytest.mark.parametrize(
    "body",
    [
        b"", b"[]", {}, {"lease_token": "x"}, {"success": True}, {"success": 1, "lease_token": "x"},
        {"success": True, "lease_token": 1}, {"success": True, "lease_token": "x", "result": "text"},
        {"success": False, "lease_token": "x", "error": 1},
    ],
)  # fmt: skip
def test_a_report_that_is_none(submitter: httpx.Client, agent: httpx.Client, name: str, body: Any) -> None:
    task_id = submit(submitter, name)
    pull(agent)
    content = {"content": body} if isinstance(body, bytes) else {"json": body}
    assert agent.post(f"/api/agents/tasks/{task_id}/complete", **content).status_code == 422
    assert show(submitter, task_id)["status"] == "processing"


@pytest.mark.parametrize(
    "query",
    [
        {"agent_id": "two words"}, {"lease_seconds": "29"}, {"lease_seconds": "3601"}, {"lease_seconds": "1.5"},
        {"lease_seconds": ""}, {"wait": "26"}, {"wait": "-1"}, {"wait": "x"},
    ],
)  # fmt: skip
def test_a_pull_that_is_none(submitter: httpx.Client, agent: httpx.Client, name: str, query: dict[str, str]) -> None:
    task_id = submit(submitter, name)
    response = agent.get("/api/agents/tasks/pull", params=query)
    assert (response.status_code, response.json()["detail"][0]["loc"]) == (422, ["query", next(iter(query))])
    assert show(submitter, task_id)["status"] == "pending"


def test_the_agent_must_be_named(tasks: Broker) -> None:
    response = tasks.client(BEARER | {"X-API-Key": "key-of-agent1"}).get("/api/agents/tasks/pull")
    assert (response.status_code, response.json()["detail"][0]["loc"]) == (422, ["query", "agent_id"])


def test_the_list_is_filtered_and_comes_in_pages(submitter: httpx.Client, agent: httpx.Client, name: str) -> None:
    ids = [submit(submitter, name, "even" if number % 2 == 0 else "odd") for number in range(6)]
    for success in (True, True, False):
        complete(agent, pull(agent), success=success)
    pull(agent)

    def listed(**query: Any) -> list[int]:
        response = submitter.get("/api/tasks", params={"agent": name, **query})
        assert response.status_code == 200
        return [ids.index(task["id"]) for task in response.json()]

    assert listed() == [5, 4, 3, 2, 1, 0]
    assert listed(status="completed") == [1, 0]
    assert listed(status="processing") == [3]
    assert listed(status="pending") == [5, 4, 2]
    assert listed(status="pending", type="odd") == [5]
    assert listed(type="even") == [4, 2, 0]
    assert listed(limit=2) == [5, 4]
    assert [task["id"] for task in submitter.get("/api/tasks", params={"limit": 1}).json()] == [ids[5]]
    pages, query = [], {"agent": name, "limit": "4"}
    while True:
        response = submitter.get("/api/tasks", params=query)
        pages.append([ids.index(task["id"]) for task in response.json()])
        if "x-next-cursor" not in response.headers:
            break
        query["cursor"] = response.headers["x-next-cursor"]
    assert pages == [[5, 4, 3, 2], [1, 0]]
    assert submitter.get("/api/tasks", params={"agent": unused()}).json() == []


@pytest.mark.parametrize(
    "query",
    [
        {"status": "queued"}, {"status": ""}, {"agent": "two words"}, {"type": "two words"}, {"limit": "0"},
        {"limit": "201"}, {"cursor": "x"},
    ],
)  # fmt: skip
def test_a_list_that_is_none(submitter: httpx.Client, query: dict[str, str]) -> None:
    response = submitter.get("/api/tasks", params=query)
    assert (response.status_code, response.json()["detail"][0]["loc"]) == (422, ["query", next(iter(query))])


def test_what_is_not_there(submitter: httpx.Client, agent: httpx.Client) -> None:
    none = {"id": "none", "lease_token": "x"}
    assert detail(submitter.get("/api/tasks/none")) == (404, "Task not found")
    assert detail(complete(agent, none)) == (404, "Task not found")


def test_the_state_of_the_queue(start_broker: Callable[..., Broker], name: str) -> None:
    broker = start_broker(**SETTINGS | {"TASKS_RETRY_SECONDS": "60"})
    submitter, agent = dialect.submitter(broker), dialect.agent(broker, name)

    def survey() -> Any:
        return submitter.get("/api/health/sequence-worker").json()

    before = survey()
    counted = ("queue_depth", "delayed", "processing", "dead_letters")
    for attempts in (1, 5, 5, 5):
        submit(submitter, name, max_attempts=attempts)
    for _ in range(2):
        complete(agent, pull(agent), success=False)
    pull(agent)
    after = survey()
    assert [after[key] - before[key] for key in counted] == [2, 1, 1, 1]
    assert after["status"] == "ok"
    worker = next(worker for worker in after["workers"] if worker["agent_id"] == name)
    assert worker["online"] is True
    assert abs(seconds(worker["last_seen"]) - time.time()) < 5


def test_how_old_the_queue_is(start_broker: Callable[..., Broker]) -> None:
    broker = start_broker(**SETTINGS, LEASE_SECONDS="61")
    submitter, agent = dialect.submitter(broker), dialect.agent(broker, "agent1")

    def age() -> Any:
        return submitter.get("/api/health/sequence-worker").json()["oldest_age_seconds"]

    assert age() is None
    submit(submitter, "agent1")
    time.sleep(2.1)
    began = time.monotonic()
    submit(submitter, "agent1")
    assert 2 <= age() < 6
    complete(agent, pull(agent), success=False)
    assert age() <= time.monotonic() - began
