"""Every status that the OpenAPI document promises for tasks can be had."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.contract import tasks as dialect
from tests.contract.tasks import SETTINGS, complete, heartbeat, pull, submit
from tests.contract.test_documented_statuses import UNPROVOKED

if TYPE_CHECKING:
    from collections.abc import Callable

    import httpx

    from tests.contract.harness import Broker

LARGE = b" " * 600_000
BAD = {"X-Worker-Caps": "[1]"}


def test_every_documented_status_can_be_had(start_broker: Callable[..., Broker]) -> None:
    broker = start_broker(**SETTINGS, MAX_QUEUED_JOBS="1")
    document = broker.document
    seen: set[tuple[str, str, int]] = set()

    def note(response: httpx.Response) -> None:
        found = document.operation(response.request.method, response.request.url.path)
        assert found is not None
        seen.add((response.request.method, found[0], response.status_code))

    token = broker.command("token", "mint", "root", "--role", "admin").stdout.strip()
    admin = broker.client({"Authorization": f"Bearer {token}"})
    nobody, submitter, agent = broker.client(), dialect.submitter(broker), dialect.agent(broker, "agent1")
    stranger = dialect.agent(broker, "stranger")
    for client in (admin, nobody, submitter, agent, stranger):
        client.event_hooks["response"].append(note)

    nobody.get("/api/health")
    task_id = submit(submitter, "agent1", max_attempts=1)
    submitter.post("/api/tasks", json={"type": "ping"})
    submitter.post("/api/tasks", content=b"")
    submitter.get("/api/tasks?limit=0")
    admin.post(f"/api/tasks/{task_id}/requeue")
    for method, path in (
        ("GET", "/api/health/sequence-worker"),
        ("GET", "/api/tasks"),
        ("POST", "/api/tasks"),
        ("GET", f"/api/tasks/{task_id}"),
        ("POST", f"/api/tasks/{task_id}/requeue"),
    ):
        nobody.request(method, path)
        admin.request(method, path, content=LARGE)
        if method == "GET":
            submitter.get(path)
    submitter.get("/api/tasks/none")
    admin.post("/api/tasks/none/requeue")
    none = {"id": "none", "lease_token": "x"}
    agent.get("/api/agents/tasks/pull", headers=BAD)
    agent.get("/api/agents/tasks/pull", params={"wait": "x"})
    for method, path in (
        ("GET", "/api/agents/tasks/pull"),
        ("POST", f"/api/agents/tasks/{task_id}/heartbeat"),
        ("POST", f"/api/agents/tasks/{task_id}/complete"),
    ):
        nobody.request(method, path)
        stranger.request(method, path)
        agent.request(method, path, content=LARGE)
        agent.request(method, path, headers=BAD)
    for report in (heartbeat, complete):
        report(agent, none)
        report(agent, {"id": task_id, "lease_token": ""})
    task = pull(agent)
    for name in ("heartbeat", "complete"):
        agent.post(f"/api/agents/tasks/{task_id}/{name}", content=b"")
    heartbeat(agent, task)
    complete(agent, task, success=False)
    admin.post(f"/api/tasks/{task_id}/requeue")
    promised = {entry for entry in document.statuses() if entry[2] not in UNPROVOKED}
    assert seen == {entry for entry in promised if entry[1].startswith("/api/")}
