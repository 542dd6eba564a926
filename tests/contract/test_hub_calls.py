"""The hub dialect over HTTP: agents are registered, listed, shown, given tasks, cordoned and removed."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from tests.contract import tasks as tasks_dialect
from tests.contract.harness import claim, submit
from tests.contract.lines import assign, line, register

if TYPE_CHECKING:
    from collections.abc import Callable

    import httpx

    from tests.contract.harness import Broker, Endpoint

UNPROVOKED = {503, 507}
TOO_MANY_AGENTS = ("POST", "/agents/register", 429)
DEEPEST = "[" * 29 + "]" * 29  # in an object of a job


@pytest.fixture
def admin(broker: Endpoint) -> httpx.Client:
    return broker.admin()


def as_agent(broker: Endpoint, url: str) -> httpx.Client:
    """The agent over HTTP, by the token in its URL."""
    return broker.client({"X-Worker-Token": url.rpartition("/")[2]})


def ids(client: httpx.Client, query: str) -> list[str]:
    return [agent["id"] for agent in client.get(f"/agents?{query}").json()["agents"]]


def test_a_registration_is_answered_with_agent_token_and_url(broker: Endpoint, admin: httpx.Client, cap: str) -> None:
    metadata = {"type": "builder", "capabilities": ["docker", "build"], "cpu": 2, "memory": "4G"}
    answer = admin.post("/agents/register", json={"agentId": cap, "metadata": metadata}).json()
    assert answer["agent"] == {
        "id": cap, "status": "offline", "last_seen": None, "runner_version": None,
        "capabilities": ["build", "docker"], "running": [], "type": "builder",
        "metadata": {"cpu": 2, "memory": "4G"}, "health": None, "cordoned": False,
    }  # fmt: skip
    assert answer["wsUrl"] == f"{broker.url.replace('http', 'ws')}/agent/{cap}/{answer['token']}"
    assert admin.get(f"/agents/{cap}/status").json() == {"agent": answer["agent"]}
    assert as_agent(broker, answer["wsUrl"]).get("/jobs/none").status_code == 404


def test_only_an_admin_registers_cordons_and_removes(broker: Endpoint, admin: httpx.Client, cap: str) -> None:
    register(admin, cap)
    for client in (broker.bot(), broker.client(), broker.worker(cap), broker.client({"Authorization": "Bearer x"})):
        for method, call in (("POST", "register"), ("POST", f"{cap}/cordon"), ("DELETE", cap)):
            answer = client.request(method, f"/agents/{call}", json={"agentId": "x"})
            assert (answer.status_code, list(answer.json())) == (401, ["error"])
    assert admin.get(f"/agents/{cap}/status").status_code == 200


def test_a_bot_may_read_and_give_tasks(broker: Endpoint, admin: httpx.Client, cap: str) -> None:
    register(admin, cap)
    for client in (broker.bot(), broker.client({"Authorization": f"bearer {broker.bot_token}"})):
        assert client.get(f"/agents/{cap}/status").status_code == 200
        assert client.post(f"/agents/{cap}/task", json={"type": "ping"}).status_code == 200


def test_a_second_registration_mints_a_second_token_and_a_third_is_refused(
    broker: Endpoint, admin: httpx.Client, cap: str
) -> None:
    urls = [register(admin, cap, type="a"), register(admin, cap, type="b")]
    assert admin.post("/agents/register", json={"agentId": cap, "metadata": {"type": "c"}}).status_code == 409
    for url in urls:
        assert as_agent(broker, url).get("/jobs/none").status_code == 404
    assert admin.get(f"/agents/{cap}/status").json()["agent"]["type"] == "b"


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"agentId": ""},
        {"agentId": "a b"},
        {"agentId": "hub"},
        {"agentId": 1},
        {"agentId": "x", "metadata": []},
        {"agentId": "x", "metadata": {"type": 1}},
        {"agentId": "x", "metadata": {"type": "a b"}},
        {"agentId": "x", "metadata": {"capabilities": "build"}},
        {"agentId": "x", "metadata": {"capabilities": ["a b"]}},
        {"agentId": "x", "metadata": {"note": "x" * 17000}},
    ],
    ids=lambda body: json.dumps(body)[:60],
)
def test_a_malformed_registration_is_refused(admin: httpx.Client, body: Any) -> None:
    assert admin.post("/agents/register", json=body).status_code == 400
    assert "x" not in ids(admin, "")


def test_agents_are_listed_by_status_and_type(admin: httpx.Client, cap: str) -> None:
    there, away = f"{cap}-there", f"{cap}-away"
    register(admin, away, type=cap)
    with line(register(admin, there, type=cap), there) as agent:
        agent.ask("health")
        assert ids(admin, f"type={cap}") == [away, there]
        assert ids(admin, f"type={cap}&status=online") == [there]
        assert ids(admin, f"type={cap}&status=offline") == [away]
        assert ids(admin, f"type={cap}-") == []


def test_a_task_for_an_agent_that_is_away_is_a_job_for_it_alone(
    broker: Endpoint, admin: httpx.Client, cap: str
) -> None:
    url = register(admin, cap)
    task_id = assign(admin, cap, type="exec", command="ls -la", timeout=30000)
    job = admin.get(f"/agents/{cap}/status").json()["agent"]
    assert job["running"] == []
    assert claim(broker.worker("another")) is None
    claimed = claim(as_agent(broker, url))
    assert (claimed["id"], claimed["command"], claimed["agent"]) == (task_id, "exec", cap)
    assert json.loads(claimed["payload"]) == {"command": "ls -la", "timeout": 30000}
    assert admin.get(f"/agents/{cap}/status").json()["agent"]["running"] == [task_id]


@pytest.mark.parametrize(
    ("body", "payload"),
    [
        ({}, ""),
        ({"text": "hello"}, "hello"),
        ({"text": 1}, '{"text": 1}'),
        ({"x": json.loads(DEEPEST)}, f'{{"x": {DEEPEST}}}'),
    ],
)
def test_what_is_beside_the_type_is_the_payload(
    broker: Endpoint, admin: httpx.Client, cap: str, body: dict[str, Any], payload: str
) -> None:
    register(admin, cap)
    task_id = assign(admin, cap, **body)
    job = broker.bot().get(f"/jobs/{task_id}").json()
    assert (job["payload"], job["dialect"]) == (payload, "hub")


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"type": 1},
        {"type": "No"},
        {"type": "ping", "x": "x" * 262144},
        {"type": "ping", "x": [json.loads(DEEPEST)]},
    ],
    ids=str,
)
def test_a_malformed_task_is_refused(admin: httpx.Client, cap: str, body: Any) -> None:
    register(admin, cap)
    assert admin.post(f"/agents/{cap}/task", json=body).status_code == 400


def test_what_is_about_an_unknown_agent_is_refused(admin: httpx.Client) -> None:
    for method, call in (("GET", "status"), ("POST", "task"), ("POST", "cordon"), ("POST", "uncordon"), ("DELETE", "")):
        answer = admin.request(method, f"/agents/nobody/{call}".rstrip("/"), json={"type": "ping"})
        assert (answer.status_code, answer.json()) == (404, {"error": "agent not found"})


def test_a_removed_agent_has_no_token_and_its_jobs_are_cancelled_with_the_reason(
    broker: Endpoint, admin: httpx.Client, cap: str
) -> None:
    agent = as_agent(broker, register(admin, cap))
    running, queued = assign(admin, cap), assign(admin, cap)
    assert claim(agent)["id"] == running
    removed = admin.delete(f"/agents/{cap}").json()
    assert (sorted(removed["cancelled"]), removed["requeued"]) == (sorted([running, queued]), [])
    assert agent.get("/jobs/next").status_code == 401
    for job_id in (running, queued):
        job = broker.bot().get(f"/jobs/{job_id}").json()
        assert (job["status"], job["outcome"], job["error"]) == ("failed", "cancelled", f"agent {cap} was removed")
    assert cap not in ids(admin, "")
    assert admin.delete(f"/agents/{cap}").status_code == 404


def test_an_agent_whose_key_is_configured_is_not_removed(
    tasks: Broker, submitter: httpx.Client, agent: httpx.Client, name: str
) -> None:
    task_id = tasks_dialect.submit(submitter, name)
    answer = tasks.admin().delete(f"/agents/{name}")
    assert (answer.status_code, "AGENT_API_KEYS" in answer.json()["error"]) == (409, True)
    assert tasks_dialect.pull(agent)["id"] == task_id


def test_the_jobs_of_a_removed_agent_can_be_left_to_others(broker: Endpoint, admin: httpx.Client, cap: str) -> None:
    agent = as_agent(broker, register(admin, cap))
    queued = [submit(broker.bot(), agent=cap, requires={"caps": [cap]}) for _ in range(2)]
    agent.headers["X-Worker-Caps"] = cap
    assert claim(agent)["id"] == queued[0]
    removed = admin.delete(f"/agents/{cap}?requeue=1").json()
    assert (sorted(removed["requeued"]), removed["cancelled"]) == (sorted(queued), [])
    assert [claim(broker.worker("another", cap))["id"] for _ in queued] == queued


def test_a_removed_agent_can_be_registered_again_without_what_was_known(admin: httpx.Client, cap: str) -> None:
    register(admin, cap, type="a", note="x")
    admin.post(f"/agents/{cap}/cordon")
    admin.delete(f"/agents/{cap}")
    register(admin, cap)
    agent = admin.get(f"/agents/{cap}/status").json()["agent"]
    assert (agent["type"], agent["metadata"], agent["cordoned"]) == (None, {}, False)


def test_a_cordoned_agent_gets_no_new_work(broker: Endpoint, admin: httpx.Client, cap: str) -> None:
    agent = as_agent(broker, register(admin, cap))
    held, waiting = assign(admin, cap), assign(admin, cap)
    assert claim(agent)["id"] == held
    assert admin.post(f"/agents/{cap}/cordon").json()["agent"]["cordoned"] is True
    assert claim(agent) is None
    assert agent.post(f"/jobs/{held}/result", json={"result": ""}).status_code == 200
    assert admin.post(f"/agents/{cap}/uncordon").json()["agent"]["cordoned"] is False
    assert claim(agent)["id"] == waiting


def test_what_is_known_of_agents_outlives_the_broker(new_broker: Callable[..., Broker]) -> None:
    broker = new_broker().start()
    register(broker.admin(), "a", type="builder", capabilities=["x"], note="n")
    broker.admin().post("/agents/a/cordon")
    broker.restart()
    agent = broker.admin().get("/agents/a/status").json()["agent"]
    assert (agent["type"], agent["capabilities"], agent["metadata"]) == ("builder", ["x"], {"note": "n"})
    assert agent["cordoned"] is True


def samples(broker: Endpoint) -> dict[str, float]:
    """What /metrics says, by name and labels."""
    text = broker.client().get("/metrics").text
    lines = [text.rpartition(" ") for text in text.splitlines() if not text.startswith("#")]
    return {name: float(value) for name, _, value in lines}


def test_metrics(new_broker: Callable[..., Broker]) -> None:
    broker = new_broker().start()
    admin = broker.admin()
    url = register(admin, "a")
    register(admin, "b")
    tasks = [assign(admin, "a"), assign(admin, "a"), assign(admin, "b")]
    with line(url, "a") as agent:
        task = agent.task()
        agent.done(task)
        agent.task()
        found = samples(broker)
    assert found['vm_hub_messages_total{direction="in",type="response"}'] == 1
    assert found['vm_hub_messages_total{direction="out",type="task"}'] == 2
    assert (found['vm_hub_agents{status="online"}'], found['vm_hub_agents{status="offline"}']) == (1, 1)
    assert found["vm_hub_active_tasks"] == found['openclaw_jobs{state="running"}'] == 1
    assert found['openclaw_jobs{state="ready"}'] == 1
    assert found["openclaw_jobs_submitted_total"] == len(tasks)
    assert (found["openclaw_jobs_delivered_total"], found["openclaw_jobs_done_total"]) == (2, 1)
    assert found["openclaw_leases_lost_total"] == 0
    assert 0 <= found["openclaw_oldest_ready_job_seconds"] < 30


def test_every_documented_status_can_be_had(start_broker: Callable[..., Broker]) -> None:
    broker = start_broker(MAX_QUEUED_JOBS="3", AGENT_API_KEYS="configured=key")
    seen: set[tuple[str, str, int]] = set()

    def note(response: httpx.Response) -> None:
        found = broker.document.operation(response.request.method, response.request.url.path)
        assert found is not None
        seen.add((response.request.method, found[0], response.status_code))

    admin, nobody = broker.admin(), broker.client()
    for client in (admin, nobody):
        client.event_hooks["response"].append(note)
    nobody.get("/metrics")
    for body in ({"agentId": "a"}, {"agentId": "a"}, {"agentId": "a"}, {}):
        admin.post("/agents/register", json=body)
    calls = "POST register,GET a/status,GET a/log,POST a/task,POST a/cordon,POST a/uncordon,DELETE a"
    for method, _, path in (call.partition(" ") for call in calls.split(",")):
        nobody.request(method, f"/agents/{path}")
        admin.request(method, f"/agents/{path}", content=b" " * 600_000)
        if path != "register":
            admin.request(method, f"/agents/n{path}", json={"type": "ping"})
        if method != "DELETE":
            admin.request(method, f"/agents/{path}", json={"type": "ping"})
    admin.post("/agents/a/task", json={})
    admin.delete("/agents/a?requeue=x")
    admin.delete("/agents/configured")
    admin.get("/agents/a/log?lines=0")
    while admin.post("/agents/a/task", json={"type": "ping"}).status_code == 200:
        pass
    admin.delete("/agents/a")
    promised = {entry for entry in broker.document.statuses() if entry[2] not in UNPROVOKED} - {TOO_MANY_AGENTS}
    assert seen == {entry for entry in promised if entry[1].startswith(("/agents/", "/metrics"))}
