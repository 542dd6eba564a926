"""Submitters and agents of the tasks dialect, on brokers whose first back-off takes two seconds."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import httpx

    from tests.contract.harness import Endpoint

GLOBAL_KEY = "global-key"
_NAMES = [f"agent{number}" for number in range(1, 401)]
SETTINGS = {
    "API_KEY": GLOBAL_KEY,
    "AGENT_API_KEYS": ",".join(f"{name}=key-of-{name}" for name in _NAMES),
    "TASKS_RETRY_SECONDS": "2",
}
_unused = iter(_NAMES)


def unused() -> str:
    """An agent that no other test has."""
    return next(_unused)


def submitter(broker: Endpoint) -> httpx.Client:
    """Who has the global key."""
    return broker.client({"Authorization": f"Bearer {GLOBAL_KEY}"})


def agent(broker: Endpoint, name: str, **headers: str) -> httpx.Client:
    """An agent with its key, which says who it is in every query."""
    client = broker.client({"Authorization": f"Bearer {GLOBAL_KEY}", "X-API-Key": f"key-of-{name}", **headers})
    client.params = client.params.merge({"agent_id": name})
    return client


def submit(client: httpx.Client, name: str, kind: str = "ping", **fields: Any) -> str:
    """Queue a task that only this agent gets; returns its id."""
    payload = {"agent_hint": name} | fields.pop("payload", {})
    response = client.post("/api/tasks", json={"type": kind, "payload": payload, **fields})
    assert response.status_code == 200, response.text
    return str(response.json()["task"]["id"])


def pull(client: httpx.Client, **query: Any) -> Any:
    """The agent's next task, None if there is none."""
    response = client.get("/api/agents/tasks/pull", params=query)
    assert response.status_code == 200, response.text
    return response.json()["task"]


def complete(client: httpx.Client, task: Any, *, success: bool = True, **fields: Any) -> httpx.Response:
    """Report on a pulled task."""
    body = {"success": success, "lease_token": task["lease_token"], **fields}
    return client.post(f"/api/agents/tasks/{task['id']}/complete", json=body)


def heartbeat(client: httpx.Client, task: Any, **query: Any) -> httpx.Response:
    """Renew the lease of a pulled task."""
    path = f"/api/agents/tasks/{task['id']}/heartbeat"
    return client.post(path, params=query, json={"lease_token": task["lease_token"]})


def show(client: httpx.Client, task_id: str) -> Any:
    """A task as a submitter sees it."""
    return client.get(f"/api/tasks/{task_id}").json()


def lose(broker: Endpoint, name: str) -> None:
    """Have an agent say, by the jobs dialect, that it holds nothing: its leases are lost at once."""
    client = broker.client({"X-Worker-Token": f"key-of-{name}", "X-Worker-Id": name})
    assert client.post("/jobs/held", json={"held": []}).status_code == 200


def until(client: httpx.Client, task_id: str, status: str) -> Any:
    """The task, once it has the status."""
    deadline = time.monotonic() + 10
    while (task := show(client, task_id))["status"] != status:
        assert time.monotonic() < deadline, task
        time.sleep(0.02)
    return task
