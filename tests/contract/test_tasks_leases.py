"""The tasks dialect: leases, owners, tries and dead letters."""

from __future__ import annotations

import re
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from typing import TYPE_CHECKING, Any

import pytest

from tests.contract import tasks as dialect
from tests.contract.tasks import complete, heartbeat, lose, pull, show, submit, until, unused

if TYPE_CHECKING:
    from collections.abc import Callable

    import httpx

    from tests.contract.harness import Broker

REPORTS: dict[str, Callable[..., Any]] = {
    "heartbeat": heartbeat,
    "success": complete,
    "failure": lambda client, task: complete(client, task, success=False),
}


@pytest.fixture
def task(submitter: httpx.Client, agent: httpx.Client, name: str) -> Any:
    submit(submitter, name)
    return pull(agent)


@pytest.fixture
def admin(tasks: Broker, name: str) -> httpx.Client:
    token = tasks.command("token", "mint", name, "--role", "admin").stdout.strip()
    return tasks.client({"Authorization": f"Bearer {token}"})


def left(time_of: str) -> float:
    return datetime.fromisoformat(time_of).timestamp() - time.time()


def refused(response: httpx.Response) -> tuple[int, str]:
    return response.status_code, response.json()["detail"]


@pytest.mark.parametrize(("query", "length"), [({}, 300), ({"lease_seconds": 30}, 30), ({"lease_seconds": 3600}, 3600)])
def test_how_long_a_lease_is(
    submitter: httpx.Client, agent: httpx.Client, name: str, query: dict[str, int], length: int
) -> None:
    submit(submitter, name)
    assert left(pull(agent, **query)["lease_until"]) == pytest.approx(length, abs=3)


@pytest.mark.parametrize(("query", "length"), [({}, 300), ({"lease_seconds": 900}, 900)])
def test_a_heartbeat_renews(
    submitter: httpx.Client, agent: httpx.Client, task: Any, query: dict[str, int], length: int
) -> None:
    before = show(submitter, task["id"])
    time.sleep(0.01)
    response = heartbeat(agent, task, **query)
    assert (response.status_code, response.json()) == (200, {"success": True, "message": "Heartbeat accepted"})
    shown = show(submitter, task["id"])
    assert left(shown["lease_until"]) == pytest.approx(length, abs=3)
    assert shown["last_heartbeat_at"] > before["last_heartbeat_at"]


@pytest.mark.parametrize("query", [{"lease_seconds": 29}, {"lease_seconds": 3601}])
def test_a_heartbeat_has_its_bounds(agent: httpx.Client, task: Any, query: dict[str, int]) -> None:
    assert heartbeat(agent, task, **query).status_code == 422
    assert agent.post(f"/api/agents/tasks/{task['id']}/heartbeat", json={}).status_code == 422


@pytest.mark.parametrize("report", REPORTS)
def test_only_the_owner_may_touch_a_task(tasks: Broker, submitter: httpx.Client, task: Any, report: str) -> None:
    other = dialect.agent(tasks, unused())
    assert refused(REPORTS[report](other, task)) == (403, "Task is owned by a different agent")
    assert show(submitter, task["id"])["status"] == "processing"


@pytest.mark.parametrize("report", REPORTS)
@pytest.mark.parametrize("token", ["", "wrong", "epoch-99", "-1", None])
def test_a_lease_token_that_is_none(
    submitter: httpx.Client, agent: httpx.Client, task: Any, report: str, token: str | None
) -> None:
    token = task["lease_token"] + "0" if token is None else token
    assert refused(REPORTS[report](agent, task | {"lease_token": token})) == (401, "Invalid lease token")
    assert show(submitter, task["id"])["status"] == "processing"


@pytest.mark.parametrize("report", REPORTS)
def test_a_task_that_nobody_was_given_cannot_be_ended(
    tasks: Broker, submitter: httpx.Client, task: Any, *, name: str, report: str
) -> None:
    waiting = {"id": submit(submitter, name), "lease_token": re.sub("[0-9]+", "0", task["lease_token"])}
    for client in (dialect.agent(tasks, name), dialect.agent(tasks, unused())):
        assert refused(REPORTS[report](client, waiting)) == (409, "Task not in processing state (pending)")
    assert show(submitter, waiting["id"])["status"] == "pending"


@pytest.mark.parametrize("report", REPORTS)
def test_a_stale_lease_token_changes_nothing(
    tasks: Broker, submitter: httpx.Client, agent: httpx.Client, *, name: str, task: Any, report: str
) -> None:
    lose(tasks, name)
    assert refused(REPORTS[report](agent, task)) == (409, "Task not in processing state (pending)")
    again = pull(agent)
    assert (again["id"], again["lease_token"] != task["lease_token"]) == (task["id"], True)
    before = show(submitter, task["id"])
    assert refused(REPORTS[report](agent, task)) == (401, "Invalid lease token")
    assert show(submitter, task["id"]) == before
    lose(tasks, name)
    assert refused(REPORTS[report](agent, task)) == (409, "Task not in processing state (pending)")
    assert complete(agent, pull(agent), result={"a": 1}).status_code == 200
    state = "not in processing state (completed)" if report == "heartbeat" else "already finalized as completed"
    assert refused(REPORTS[report](agent, task)) == (409, f"Task {state}")
    assert show(submitter, task["id"])["result"] == {"a": 1}


def test_a_lost_lease_is_delivered_again_at_once(
    tasks: Broker, submitter: httpx.Client, agent: httpx.Client, name: str, task: Any
) -> None:
    lose(tasks, name)
    shown = show(submitter, task["id"])
    assert (shown["status"], shown["assigned_to"], shown["next_retry_at"]) == ("pending", None, None)
    assert pull(agent)["id"] == task["id"]
    assert show(submitter, task["id"])["attempts"] == 2


def test_a_task_whose_lease_is_lost_too_often_is_dead(
    tasks: Broker, submitter: httpx.Client, agent: httpx.Client, name: str
) -> None:
    task_id = submit(submitter, name, max_attempts=2)
    for _ in range(2):
        task = pull(agent)
        lose(tasks, name)
    shown = show(submitter, task_id)
    assert (shown["status"], shown["attempts"]) == ("dead_letter", 2)
    assert "lease lost" in shown["error_message"]
    assert refused(complete(agent, task)) == (409, "Task already finalized as dead_letter")
    assert refused(heartbeat(agent, task)) == (409, "Task not in processing state (dead_letter)")


def test_a_failure_is_tried_again_later_and_each_time_later(
    submitter: httpx.Client, agent: httpx.Client, name: str
) -> None:
    task_id = submit(submitter, name, max_attempts=3)
    for attempt, delay in ((1, 2), (2, 4)):
        task = pull(agent)
        assert task["max_attempts"] == 3
        began = time.monotonic()
        response = complete(agent, task, success=False, error=f" failure {attempt} ", result={"ignored": 1})
        assert (response.status_code, response.json()) == (200, {"success": True, "message": "Task failure processed"})
        shown = show(submitter, task_id)
        assert (shown["status"], shown["attempts"], shown["error_message"]) == (
            "pending",
            attempt,
            f"failure {attempt}",
        )
        assert (shown["assigned_to"], shown["lease_until"], shown["completed_at"]) == (None, None, None)
        assert 0.85 * delay < left(shown["next_retry_at"]) <= 1.1 * delay
        assert pull(agent) is None
        assert refused(complete(agent, task)) == (409, "Task not in processing state (pending)")
        deadline = time.monotonic() + 10
        while show(submitter, task_id)["next_retry_at"] is not None:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        assert time.monotonic() - began > 0.85 * delay
    task = pull(agent)
    assert show(submitter, task_id)["error_message"] is None
    assert complete(agent, task, success=False).status_code == 200
    shown = show(submitter, task_id)
    assert (shown["status"], shown["attempts"], shown["error_message"]) == ("dead_letter", 3, "task_execution_failed")
    assert shown["completed_at"] is not None
    assert shown["next_retry_at"] is None
    assert pull(agent) is None


def test_the_default_is_five_attempts_and_two_minutes(start_broker: Callable[..., Broker], name: str) -> None:
    settings = {key: value for key, value in dialect.SETTINGS.items() if key != "TASKS_RETRY_SECONDS"}
    broker = start_broker(**settings)
    submitter, agent = dialect.submitter(broker), dialect.agent(broker, name)
    ids = [submit(submitter, name) for _ in range(12)]
    delays = []
    for _ in ids:
        task = pull(agent)
        complete(agent, task, success=False)
        shown = show(submitter, task["id"])
        assert shown["max_attempts"] == 5
        delays.append(round(left(shown["next_retry_at"])))
    assert 107 <= min(delays) < max(delays) <= 132


def test_a_failed_task_hides_no_other_and_survives_a_restart(
    tasks: Broker, submitter: httpx.Client, agent: httpx.Client, name: str
) -> None:
    first, second = submit(submitter, name), submit(submitter, name)
    complete(agent, pull(agent), success=False)
    assert pull(agent)["id"] == second
    tasks.restart()
    assert show(submitter, second)["status"] == "processing"
    assert show(submitter, first)["status"] == "pending"
    assert pull(agent, wait=6)["id"] == first


def test_a_waiting_agent_gets_a_new_task_and_one_whose_time_has_come(
    submitter: httpx.Client, agent: httpx.Client, name: str
) -> None:
    with ThreadPoolExecutor() as pool:
        waiting = pool.submit(pull, agent, wait=8, lease_seconds=60)
        time.sleep(0.2)
        task_id = submit(submitter, name)
        task = waiting.result(4)
        assert (task["id"], round(left(task["lease_until"]), -1)) == (task_id, 60)
        waiting = pool.submit(pull, agent, wait=8)
        complete(agent, task, success=False)
        assert waiting.result(6)["id"] == task_id


def test_a_wait_ends(agent: httpx.Client) -> None:
    began = time.monotonic()
    assert pull(agent, wait=0.5) is None
    assert 0.4 < time.monotonic() - began < 4


def test_many_agents_get_each_task_once(tasks: Broker, submitter: httpx.Client) -> None:
    ids = {submitter.post("/api/tasks", json={"type": "ping"}).json()["task"]["id"] for _ in range(30)}
    got: list[str] = []
    lock = threading.Lock()

    def work(client: httpx.Client) -> None:
        while (task := pull(client)) is not None:
            with lock:
                got.append(task["id"])
            assert complete(client, task).status_code == 200

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(work, [dialect.agent(tasks, unused()) for _ in range(6)]))
    assert sorted(got) == sorted(ids)


def test_the_oldest_task_comes_first_and_only_to_its_agent(
    tasks: Broker, submitter: httpx.Client, agent: httpx.Client, name: str
) -> None:
    ids = [submit(submitter, name) for _ in range(3)]
    assert pull(dialect.agent(tasks, unused())) is None
    assert [pull(agent)["id"] for _ in ids] == ids


def test_an_agent_has_what_its_header_says(tasks: Broker, name: str) -> None:
    """Capabilities are those of the jobs dialect; tasks cannot ask for them, jobs can."""
    needy = tasks.bot().post("/jobs", json={"command": "ping", "agent": name, "requires": {"caps": ["gpu"]}}).json()
    assert pull(dialect.agent(tasks, name)) is None
    assert pull(dialect.agent(tasks, name, **{"X-Worker-Caps": "gpu"}))["id"] == needy["id"]


def test_a_dead_letter_is_queued_again(
    submitter: httpx.Client, admin: httpx.Client, agent: httpx.Client, name: str
) -> None:
    task_id = submit(submitter, name, max_attempts=1)
    early = pull(agent)
    complete(agent, early, success=False)
    until(submitter, task_id, "dead_letter")
    answer = admin.post(f"/api/tasks/{task_id}/requeue")
    assert (answer.status_code, answer.json()["message"]) == (200, "Task requeued")
    shown = show(submitter, task_id)
    assert answer.json()["task"] == shown
    assert (shown["status"], shown["attempts"], shown["error_message"], shown["completed_at"]) == (
        "pending", 0, None, None,
    )  # fmt: skip
    again = pull(agent)
    assert again["id"] == task_id
    assert refused(complete(agent, early)) == (401, "Invalid lease token")
    assert complete(agent, again).status_code == 200
    assert refused(admin.post(f"/api/tasks/{task_id}/requeue")) == (409, "Task is not a dead letter (completed)")


def test_only_an_admin_requeues_and_only_the_dead(submitter: httpx.Client, admin: httpx.Client, name: str) -> None:
    task_id = submit(submitter, name)
    assert submitter.post(f"/api/tasks/{task_id}/requeue").status_code == 401
    assert refused(admin.post(f"/api/tasks/{task_id}/requeue")) == (409, "Task is not a dead letter (pending)")
    assert admin.post("/api/tasks/none/requeue").status_code == 404
