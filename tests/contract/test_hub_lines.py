"""The hub dialect over WebSocket: an agent's line, its tasks, what it says of itself, and messages."""

from __future__ import annotations

import json
import signal
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus

from tests.contract.harness import claim, submit
from tests.contract.lines import assign, line, register

if TYPE_CHECKING:
    from collections.abc import Callable

    import httpx

    from tests.contract.harness import Broker, Endpoint


@pytest.fixture
def admin(broker: Endpoint) -> httpx.Client:
    return broker.admin()


@pytest.fixture
def url(admin: httpx.Client, cap: str) -> str:
    """Where an agent with this test's name connects to."""
    return register(admin, cap, capabilities=[cap])


def job(broker: Endpoint, job_id: str) -> Any:
    return broker.bot().get(f"/jobs/{job_id}").json()


# --- who may have a line


def test_the_token_may_be_in_a_header(broker: Endpoint, admin: httpx.Client, url: str, cap: str) -> None:
    bare, _, token = url.rpartition("/")
    with line(bare, cap, additional_headers={"Authorization": f"Bearer {token}"}) as agent:
        assign(admin, cap)
        assert agent.task()["type"] == "ping"


@pytest.mark.parametrize("token", ["wrong", "", "admin", "bot"])
def test_a_bad_token_closes_the_line(broker: Endpoint, url: str, cap: str, token: str) -> None:
    token = {"admin": broker.admin_token, "bot": broker.bot_token}.get(token, token)
    bare = url.rpartition("/")[0]
    with line(f"{bare}/{token}" if token else bare, cap) as agent:
        assert agent.closed_with() == 4401


def test_anothers_token_closes_the_line(admin: httpx.Client, url: str, cap: str) -> None:
    other = register(admin, f"{cap}-other")
    with line(url.rpartition("/")[0] + "/" + other.rpartition("/")[2], cap) as agent:
        assert agent.closed_with() == 4403


def test_a_removed_agents_line_is_closed_and_its_token_opens_none(admin: httpx.Client, url: str, cap: str) -> None:
    with line(url, cap) as agent:
        agent.ask("health")
        admin.delete(f"/agents/{cap}")
        assert agent.closed_with() == 4410
    with line(url, cap) as agent:
        assert agent.closed_with() == 4401


@pytest.mark.parametrize("use", ["health", "response", "post"])
def test_a_line_whose_token_is_revoked_is_closed_before_anything_is_done(
    new_broker: Callable[..., Broker], use: str
) -> None:
    broker = new_broker().start()
    url, other = register(broker.admin(), "a"), register(broker.admin(), "b")
    task_id = assign(broker.admin(), "a")
    with line(url, "a") as agent, line(other, "b") as sender:
        agent.task()
        assert broker.command("token", "revoke", "a").returncode == 0
        time.sleep(1)
        if use == "post":
            sender.ask("log", "a")
        else:
            agent.send(use, taskId=task_id, success=True)
        with pytest.raises(ConnectionClosed):
            agent.next()
        assert agent.closed_with() == 4401
    assert job(broker, task_id)["status"] == "running"


def test_a_new_line_takes_the_place_of_the_earlier_one(admin: httpx.Client, url: str, cap: str) -> None:
    with line(url, cap) as early, line(url, cap) as late:
        assert early.closed_with() == 4409
        assign(admin, cap)
        assert late.task()["type"] == "ping"


# --- tasks


def test_a_task_is_pushed_the_moment_it_exists(broker: Endpoint, admin: httpx.Client, url: str, cap: str) -> None:
    with line(url, cap) as agent:
        agent.ask("health")
        task_id = assign(admin, cap, type="exec", command="ls")
        began = time.monotonic()
        envelope = agent.next()
        assert time.monotonic() - began < 2
    shown = job(broker, task_id)
    lease = {"leaseEpoch": 1, "leaseSeconds": shown["lease_seconds"], "maxDeliveries": 5}
    assert envelope["payload"] == {"type": "exec", "command": "ls", "taskId": task_id, **lease}
    assert envelope.keys() == {"id", "from", "to", "type", "timestamp", "payload"}
    assert (envelope["from"], envelope["to"], envelope["type"]) == ("hub", cap, "task")
    assert abs(envelope["timestamp"] / 1000 - time.time()) < 30
    assert (shown["status"], shown["worker_id"]) == ("running", cap)


def test_a_task_for_an_agent_that_is_away_is_delivered_when_it_comes(admin: httpx.Client, url: str, cap: str) -> None:
    first, second = assign(admin, cap), assign(admin, cap)
    with line(url, cap) as agent:
        task = agent.task()
        assert task["taskId"] == first
        assert agent.silent()
        assert agent.done(task)["status"] == "completed"
        assert agent.task()["taskId"] == second


def test_a_job_of_another_dialect_is_a_task(broker: Endpoint, url: str, cap: str) -> None:
    job_id = submit(broker.bot(), requires={"caps": [cap]}, payload="hello", max_deliveries=3)
    with line(url, cap) as agent:
        task = agent.task()
    assert (task.pop("leaseEpoch"), task.pop("leaseSeconds")) == (1, job(broker, job_id)["lease_seconds"])
    assert task.pop("maxDeliveries") == 3
    assert task == {"type": "ping", "text": "hello", "taskId": job_id}


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ({"success": True, "result": "text"}, {"status": "done", "result": "text", "error": None}),
        ({"success": True, "result": {"a": 1}}, {"status": "done", "result": '{"a": 1}'}),
        ({"success": True, "result": {"text": "t"}}, {"status": "done", "result": "t"}),
        ({"success": True, "result": [1]}, {"status": "done", "result": "[1]"}),
        ({"success": True}, {"status": "done", "result": ""}),
        ({"success": False, "error": "e"}, {"status": "failed", "outcome": "failed", "error": "e"}),
        ({"success": False}, {"status": "failed", "error": "unknown"}),
        ({"released": True}, {"status": "queued", "attempts": 0}),
    ],
    ids=str,
)
def test_a_response_ends_the_job(
    broker: Endpoint, admin: httpx.Client, url: str, said: dict[str, Any], shown: dict[str, Any]
) -> None:
    cap = url.split("/")[-2]
    task_id = assign(admin, cap)
    with line(url, cap) as agent:
        agent.task()
        if "released" in said:
            admin.post(f"/agents/{cap}/cordon")
        answer = agent.ask("response", taskId=task_id, **said)
        word = {"done": "completed", "failed": "failed", "queued": "sent"}[shown["status"]]
        assert (answer["taskId"], answer["status"]) == (task_id, word)
    found = job(broker, task_id)
    assert {key: found[key] for key in shown} == shown


def test_a_response_that_is_sent_again_changes_nothing(broker: Endpoint, url: str, admin: Any, cap: str) -> None:
    assign(admin, cap)
    with line(url, cap) as agent:
        task = agent.task()
        assert agent.done(task, "first")["status"] == "completed"
        again = [agent.done(task, "second"), agent.ask("response", taskId=task["taskId"], success=False)]
        assert [(answer["status"], "error" in answer) for answer in again] == [("completed", False)] * 2
    assert job(broker, task["taskId"])["result"] == "first"


def test_a_stale_lease_is_refused(broker: Endpoint, admin: httpx.Client, url: str, cap: str) -> None:
    assign(admin, cap)
    with line(url, cap) as agent:
        task = agent.task()
        answer = agent.ask("response", taskId=task["taskId"], leaseEpoch=2, success=True)
        assert "stale" in answer["error"]
        assert answer["taskId"] == task["taskId"]
        assert "error" in agent.ask("response", taskId="none", success=True)
    assert job(broker, task["taskId"])["status"] == "running"


def test_another_agents_job_cannot_be_ended(broker: Endpoint, admin: httpx.Client, url: str, cap: str) -> None:
    task_id = assign(admin, cap)
    with line(url, cap) as agent, line(register(admin, f"{cap}-other"), f"{cap}-other") as other:
        agent.task()
        assert "error" in other.ask("response", taskId=task_id, success=True, result="stolen")
    assert job(broker, task_id)["status"] == "running"


@pytest.mark.parametrize("epoch", [{}, {"leaseEpoch": 0}], ids=["no epoch", "epoch 0"])
def test_a_job_that_nobody_was_given_cannot_be_ended(
    broker: Endpoint, admin: httpx.Client, url: str, cap: str, epoch: dict[str, Any]
) -> None:
    task_id = assign(admin, cap)
    other = register(admin, f"{cap}-other")
    for name, whose in ((cap, f"{url}?slots=0"), (f"{cap}-other", other)):
        with line(whose, name) as agent:
            answer = agent.ask("response", taskId=task_id, success=False, **epoch)
            assert (answer["status"], "error" in answer) == ("sent", True)
    assert job(broker, task_id)["status"] == "queued"


def test_an_agent_gets_as_many_tasks_as_it_has_slots(admin: httpx.Client, url: str, cap: str) -> None:
    for _ in range(3):
        assign(admin, cap)
    with line(f"{url}?slots=2", cap) as agent:
        tasks = [agent.task(), agent.task()]
        assert agent.silent()
        agent.done(tasks[0])
        agent.task()
    with line(f"{url}?slots=x", cap) as agent:
        assert agent.closed_with() == 1008


def test_who_runs_a_cancelled_job_is_told_at_once_and_given_the_next(
    broker: Endpoint, admin: httpx.Client, url: str, cap: str
) -> None:
    with line(url, cap) as agent:
        first, second = assign(admin, cap), assign(admin, cap)
        agent.task()
        broker.bot().post(f"/jobs/{first}/cancel", json={"reason": "not wanted"}).raise_for_status()
        told, task = sorted((agent.next(), agent.next()), key=lambda envelope: str(envelope["type"]))
        assert (told["type"], told["from"], told["to"]) == ("cancel", "hub", cap)
        assert told["payload"] == {"taskId": first, "leaseEpoch": 1, "reason": "not wanted"}
        assert (task["type"], task["payload"]["taskId"]) == ("task", second)


def test_who_does_not_run_a_cancelled_job_is_told_nothing(
    broker: Endpoint, admin: httpx.Client, url: str, cap: str
) -> None:
    with line(url, cap) as agent:
        assign(admin, cap)
        agent.done(agent.task())
        agent.ask("health", slots=0)
        broker.bot().post(f"/jobs/{assign(admin, cap)}/cancel").raise_for_status()
        assert agent.silent()


# --- leases, and lines that are cut


def test_health_is_kept_and_renews_what_it_lists(new_broker: Callable[..., Broker]) -> None:
    broker = new_broker(LEASE_SECONDS="2").start()
    admin = broker.admin()
    url = register(admin, "a")
    assign(admin, "a")
    with line(url, "a") as agent:
        task = agent.task()
        held = [{"taskId": task["taskId"], "leaseEpoch": task["leaseEpoch"]}]
        for _ in range(8):
            time.sleep(0.5)
            answer = agent.ask("health", cpu=12.5, memory={"used": 1}, disk=3, other=4, tasks=held)
            assert (answer["held"], answer["lost"]) == ([task["taskId"]], [])
        assert agent.done(task)["status"] == "completed"
        health = admin.get("/agents/a/status").json()["agent"]["health"]
    assert abs(health.pop("at") - time.time()) < 10
    assert health == {"cpu": 12.5, "memory": {"used": 1}, "disk": 3}
    assert job(broker, task["taskId"])["attempts"] == 1


def test_health_without_a_list_renews_what_the_line_was_given(new_broker: Callable[..., Broker]) -> None:
    broker = new_broker(LEASE_SECONDS="2").start()
    url = register(broker.admin(), "a")
    assign(broker.admin(), "a")
    with line(url, "a") as agent:
        task = agent.task()
        for _ in range(6):
            time.sleep(0.5)
            agent.ask("health", cpu=1)
        assert agent.done(task)["status"] == "completed"
    assert job(broker, task["taskId"])["attempts"] == 1


def test_a_lost_lease_ends_the_line_and_the_job_is_delivered_on_the_next(new_broker: Callable[..., Broker]) -> None:
    broker = new_broker(LEASE_SECONDS="1").start()
    url = register(broker.admin(), "a")
    assign(broker.admin(), "a")
    with line(url, "a") as agent:
        first = agent.task()
        assert agent.closed_with() == 4408
    with line(url, "a") as agent:
        second = agent.task()
        assert (second["taskId"], second["leaseEpoch"]) == (first["taskId"], 2)
        stale = [{"taskId": first["taskId"], "leaseEpoch": 1}]
        assert agent.ask("health", tasks=stale)["lost"] == [first["taskId"]]
        assert agent.done(second)["status"] == "completed"


def test_an_agent_whose_line_was_cut_keeps_what_it_says_it_holds(
    broker: Endpoint, admin: httpx.Client, url: str, cap: str
) -> None:
    held, forgotten = assign(admin, cap), assign(admin, cap)
    with line(f"{url}?slots=2", cap) as agent:
        first, second = agent.task(), agent.task()
        assert (first["taskId"], second["taskId"]) == (held, forgotten)
        agent.cut()
    with line(f"{url}?slots=2", cap) as agent:
        assert agent.silent()
        mine = [{"taskId": held, "leaseEpoch": first["leaseEpoch"]}]
        agent.send("health", tasks=mine)
        answers = sorted((agent.next() for _ in range(2)), key=lambda envelope: str(envelope["type"]))
        assert (answers[0]["payload"]["held"], answers[0]["payload"]["lost"]) == ([held], [])
        again = answers[1]["payload"]
        assert (again["taskId"], again["leaseEpoch"]) == (forgotten, 2)
        # What was given over this line is not meant by a list that does not have it yet.
        agent.ask("health", tasks=mine)
        assert agent.silent()
        assert [agent.done(task)["status"] for task in (first, again)] == ["completed", "completed"]
    assert [job(broker, job_id)["attempts"] for job_id in (held, forgotten)] == [1, 2]


def test_what_an_agent_ran_before_counts_against_its_slots(admin: httpx.Client, url: str, cap: str) -> None:
    assign(admin, cap)
    assign(admin, cap)
    with line(url, cap) as agent:
        agent.task()
        agent.cut()
    with line(url, cap) as agent:
        assert agent.silent()


def test_an_agent_that_wants_no_more_is_given_nothing_and_keeps_what_it_has(
    broker: Endpoint, admin: httpx.Client, url: str, cap: str
) -> None:
    first, second = assign(admin, cap), assign(admin, cap)
    with line(f"{url}?slots=2", cap) as agent:
        tasks = {task["taskId"]: task for task in (agent.task(), agent.task())}
        agent.ask("health", slots=0)
        released = agent.ask("response", taskId=first, leaseEpoch=tasks[first]["leaseEpoch"], released=True)
        assert released["status"] == "sent"
        assert agent.silent()
        assert (job(broker, first)["status"], job(broker, first)["attempts"]) == ("queued", 0)
        assert agent.done(tasks[second])["status"] == "completed"
        assert agent.silent()
        agent.send("health", slots=1)
        came = {envelope["type"]: envelope["payload"] for envelope in (agent.next(), agent.next())}
        assert came["task"]["taskId"] == first


def test_what_comes_after_an_agent_wanted_no_more_stays_queued(
    broker: Endpoint, admin: httpx.Client, url: str, cap: str
) -> None:
    with line(url, cap) as agent:
        agent.ask("health", slots=0)
        task_id = assign(admin, cap)
        assert agent.silent()
        assert (job(broker, task_id)["status"], job(broker, task_id)["attempts"]) == ("queued", 0)


@pytest.mark.parametrize("slots", [-1, 65, "1", True, 0.5])
def test_a_number_of_slots_that_is_none_is_refused(url: str, cap: str, slots: Any) -> None:
    with line(url, cap) as agent:
        assert "slots" in agent.ask("health", slots=slots)["error"]


def test_what_was_given_on_a_new_line_is_not_taken_back_by_its_greeting(
    broker: Endpoint, admin: httpx.Client, url: str, cap: str
) -> None:
    assign(admin, cap)
    with line(url, cap) as agent:
        task = agent.task()
        agent.ask("health", tasks=[])
        assert agent.done(task)["status"] == "completed"
    assert job(broker, task["taskId"])["attempts"] == 1


def test_a_broker_that_restarts_loses_nothing_of_a_line(new_broker: Callable[..., Broker]) -> None:
    broker = new_broker().start()
    url = register(broker.admin(), "a")
    assign(broker.admin(), "a")
    with line(url, "a") as agent:
        task = agent.task()
        assert broker.signal(signal.SIGTERM) == 0
        assert agent.closed_with() == 1012
    broker.start()
    with line(url, "a") as agent:
        held = [{"taskId": task["taskId"], "leaseEpoch": task["leaseEpoch"]}]
        assert agent.ask("health", tasks=held)["held"] == [task["taskId"]]
        assert agent.done(task)["status"] == "completed"
    assert job(broker, task["taskId"])["attempts"] == 1


def test_what_an_agent_logs_can_be_read(admin: httpx.Client, url: str, cap: str) -> None:
    with line(url, cap) as agent:
        agent.send("log", taskId="t", lines=["one", "two"])
        agent.send("log", lines=["x" * 5000, "four"])
        agent.ask("health")
    logged = admin.get(f"/agents/{cap}/log").json()["lines"]
    assert [(entry["taskId"], entry["text"][:4096]) for entry in logged] == [
        ("t", "one"), ("t", "two"), (None, "x" * 4096), (None, "four"),
    ]  # fmt: skip
    assert max(len(entry["text"]) for entry in logged) == 4096
    assert admin.get(f"/agents/{cap}/log?lines=1").json()["lines"] == logged[-1:]
    assert admin.get(f"/agents/{cap}/log?after={logged[1]['n']}").json()["lines"] == logged[2:]


def test_the_lines_that_are_kept_are_bounded(admin: httpx.Client, url: str, cap: str) -> None:
    with line(url, cap) as agent:
        for start in (0, 600):
            agent.send("log", lines=[str(n) for n in range(start, start + 600)])
        agent.ask("health")
    logged = admin.get(f"/agents/{cap}/log?lines=1000").json()["lines"]
    assert [int(entry["text"]) for entry in logged] == list(range(200, 1200))


# --- messages


def test_a_message_reaches_another_agent_and_is_no_job(broker: Endpoint, admin: Any, url: str, cap: str) -> None:
    name = f"{cap}-other"
    before = admin.get("/jobs").json()["jobs"][:1]
    with line(url, cap) as agent, line(register(admin, name), name) as other:
        message_id = agent.send("task", name, hello=["world"])
        message = other.next()
        assert agent.next()["payload"] == {"id": message_id, "status": "sent"}
    assert abs(message.pop("timestamp") / 1000 - time.time()) < 30
    assert message == {"id": message_id, "from": cap, "to": name, "type": "task", "payload": {"hello": ["world"]}}
    assert admin.get("/jobs").json()["jobs"][:1] == before


def test_messages_are_kept_in_order_until_the_other_agent_has_them(new_broker: Callable[..., Broker]) -> None:
    broker = new_broker().start()
    admin = broker.admin()
    url, other = register(admin, "a"), register(admin, "b")
    with line(url, "a") as agent:
        sent = [agent.ask("log", "b", n=n)["id"] for n in range(40)]
        agent.raw(id=sent[0], type="log", to="b", payload={"n": 0})
        assert agent.next()["type"] == "ack"
    broker.signal(signal.SIGKILL)
    broker.start()
    with line(other, "b") as agent:
        assert [agent.next()["id"] for _ in sent] == sent
        assert agent.silent()
    with line(url, "a") as agent:
        agent.raw(id=sent[-1], type="log", to="b", payload={})
        assert agent.next()["type"] == "ack"
    with line(other, "b") as agent:
        assert agent.silent()


def test_a_message_to_nobody_is_refused(url: str, cap: str) -> None:
    with line(url, cap) as agent:
        assert agent.ask("task", "nobody-there")["error"] == "agent not found"


def test_the_messages_that_wait_are_bounded(admin: httpx.Client, url: str, cap: str) -> None:
    register(admin, f"{cap}-other")
    with line(url, cap) as agent:
        assert "too large" in agent.ask("log", f"{cap}-other", text="x" * 65536)["error"]
        assert agent.ask("log", f"{cap}-other", text="x" * 60000)["status"] == "sent"


# --- what is malformed, or too much


@pytest.mark.parametrize(
    "text",
    [
        "no json",
        "[]",
        "{}",
        '{"id": "", "type": "health"}',
        '{"id": "1", "type": "other"}',
        '{"id": "1", "type": "task", "to": "hub"}',
        '{"id": "1", "type": "health", "payload": []}',
        '{"id": "1", "type": "health", "from": "another"}',
        '{"id": "1", "type": "health", "to": "a b"}',
        '{"id": "1", "type": "health", "payload": {"cpu": "many"}}',
        '{"id": "1", "type": "health", "payload": {"cpu": {"x": "' + "x" * 5000 + '"}}}',
        '{"id": "1", "type": "health", "payload": {"tasks": [{"taskId": "x"}]}}',
        '{"id": "1", "type": "response", "payload": {"taskId": "x"}}',
        '{"id": "1", "type": "response", "payload": {"success": true}}',
        '{"id": "1", "type": "log", "payload": {"lines": "x"}}',
        '{"id": "\\ud800", "type": "health"}',
    ],
    ids=lambda text: text[:70],
)
def test_a_malformed_envelope_is_told_so_and_the_line_stays(url: str, cap: str, text: str) -> None:
    with line(url, cap) as agent:
        agent.connection.send(text)
        envelope = agent.next()
        assert (envelope["type"], envelope["from"]) == ("error", "hub")
        assert envelope["payload"]["error"]
        agent.connection.send(b"bytes")
        assert agent.next()["type"] == "error"
        assert "error" not in agent.ask("health")


def test_an_envelope_is_bounded(start_broker: Callable[..., Broker], cap: str) -> None:
    broker = start_broker(MAX_REQUEST_BODY_BYTES="4096")
    with line(register(broker.admin(), cap), cap) as agent:
        agent.send("log", lines=["x" * 5000])
        assert agent.closed_with() == 1009


def test_a_result_is_bounded(start_broker: Callable[..., Broker], cap: str) -> None:
    broker = start_broker(MAX_RESULT_BYTES="100")
    url = register(broker.admin(), cap)
    assign(broker.admin(), cap)
    with line(url, cap) as agent:
        task = agent.task()
        assert "too large" in agent.done(task, "x" * 101)["error"]
        assert agent.done(task, "x" * 100)["status"] == "completed"


def test_who_sends_too_fast_is_read_no_faster(url: str, cap: str) -> None:
    with line(url, cap) as agent:
        began = time.monotonic()
        for _ in range(160):
            agent.send("health")
        for _ in range(160):
            agent.next()
        assert time.monotonic() - began > 1


def test_no_token_is_in_the_log_or_beside_the_database(new_broker: Callable[..., Broker]) -> None:
    broker = new_broker().start()
    url = register(broker.admin(), "a")
    tokens = [url.rpartition("/")[2], broker.admin_token, "wrong-secret"]
    assign(broker.admin(), "a", secret="payload-secret")
    with line(url, "a") as agent:
        agent.done(agent.task(), "result-secret")
        agent.connection.send("no json")
        agent.next()
    with line(url.replace(tokens[0], "wrong-secret"), "a") as agent:
        assert agent.closed_with() == 4401
    for path in (f"/agent/a/{tokens[0]}", f"/agent/a/{tokens[0]}/more", f"/agents/{tokens[0]}"):
        broker.client().post(path)
    with suppress(ConnectionClosed, InvalidStatus), line(f"{url}/more", "a"):
        pass
    broker.close()
    kept = [file for file in broker.log.parent.iterdir() if file.is_file()]
    text = b"".join(file.read_bytes() for file in kept if not file.name.startswith("broker.db") or "audit" in file.name)
    for secret in (*tokens, "payload-secret", "result-secret"):
        assert secret.encode() not in text
    assert all(token.encode() not in file.read_bytes() for token in tokens for file in kept)


def test_every_change_leaves_a_line_in_the_trail(new_broker: Callable[..., Broker]) -> None:
    broker = new_broker().start()
    admin = broker.admin()
    url = register(admin, "a")
    task_id = assign(admin, "a")
    with line(url, "a") as agent:
        agent.done(agent.task())
        agent.ask("response", taskId=task_id, leaseEpoch=9, success=True)
    claim(broker.worker("a"))
    admin.get("/agents")
    admin.delete("/agents/a")
    (trail,) = broker.log.parent.glob("*.audit.jsonl")
    entries = [json.loads(text) for text in trail.read_text().splitlines()]
    assert [(entry["who"], entry["what"], entry["outcome"].partition(":")[0]) for entry in entries[-6:]] == [
        ("admin", "register", "done"),
        ("admin", "assign", "done"),
        ("a", "claim", "done"),
        ("a", "finish", "done"),
        ("a", "finish", "refused"),
        ("admin", "remove", "done"),
    ]
    assert all(entry["where"].startswith("127.0.0.1:") and entry["when"] for entry in entries[-6:])
    assert entries[-3]["job"] == task_id
    assert (trail.stat().st_mode & 0o777) == 0o600
