"""What the seed's README and code promise, call by call."""

from __future__ import annotations

import re
import subprocess
import uuid
from typing import TYPE_CHECKING, Any

import pytest

from tests.contract.harness import caps, claim, submit

if TYPE_CHECKING:
    import httpx

    from tests.contract.harness import Endpoint

SEED_KEYS = [
    "id", "created_at", "started_at", "finished_at", "lease_until", "status",
    "command", "payload", "result", "error", "worker_id", "requires",
]  # fmt: skip
NATIVE_KEYS = [
    "agent", "dialect", "attempts", "max_deliveries", "lease_epoch", "lease_seconds", "outcome", "duration_ms",
    "priority", "not_before", "idempotency_key", "progress", "progress_note",
]  # fmt: skip


def test_health_needs_no_token_and_says_nothing_else(broker: Endpoint) -> None:
    response = broker.client().get("/health")
    assert (response.status_code, response.json()) == (200, {"ok": True, "ts_bound": True})


def test_a_submission_is_answered_with_id_and_status(bot: httpx.Client, cap: str) -> None:
    response = bot.post("/jobs", json={"command": "ping", "payload": "hello", "requires": caps(cap)})
    body = response.json()
    assert response.status_code == 200
    assert list(body) == ["id", "status"]
    assert body["status"] == "queued"
    assert uuid.UUID(body["id"]).version == 4


def test_a_job_has_the_seeds_keys_first_then_the_native_ones(bot: httpx.Client, cap: str) -> None:
    job = bot.get(f"/jobs/{submit(bot, requires=caps(cap))}").json()
    assert list(job) == SEED_KEYS + NATIVE_KEYS


def test_a_queued_job(bot: httpx.Client, cap: str) -> None:
    job = bot.get(f"/jobs/{submit(bot, payload='hello', requires=caps(cap))}").json()
    created = job.pop("created_at")
    assert isinstance(created, int)
    assert job == {
        "id": job["id"],
        "started_at": None,
        "finished_at": None,
        "lease_until": None,
        "status": "queued",
        "command": "ping",
        "payload": "hello",
        "result": None,
        "error": None,
        "worker_id": None,
        "requires": f'{{"caps": ["{cap}"]}}',
        "agent": None,
        "dialect": "jobs",
        "attempts": 0,
        "max_deliveries": 5,
        "lease_epoch": 0,
        "lease_seconds": 60,
        "outcome": None,
        "duration_ms": None,
        "priority": 0,
        "not_before": None,
        "idempotency_key": None,
        "progress": None,
        "progress_note": None,
    }


def test_a_claim_starts_a_lease_of_sixty_seconds(bot: httpx.Client, worker: httpx.Client, cap: str) -> None:
    submit(bot, requires=caps(cap))
    job = claim(worker)
    assert job["status"] == "running"
    assert job["worker_id"] == f"w-{cap}"
    assert job["lease_until"] - job["started_at"] == 60
    assert (job["attempts"], job["lease_epoch"]) == (1, 1)
    assert bot.get(f"/jobs/{job['id']}").json() == job


def test_an_empty_queue_gives_null(worker: httpx.Client) -> None:
    response = worker.get("/jobs/next")
    assert (response.status_code, response.json()) == (200, {"job": None})
    assert response.elapsed.total_seconds() < 2


def test_jobs_come_in_the_order_of_submission(bot: httpx.Client, worker: httpx.Client, cap: str) -> None:
    ids = [submit(bot, requires=caps(cap)) for _ in range(5)]
    assert [claim(worker)["id"] for _ in range(5)] == ids
    assert claim(worker) is None


def test_a_result_ends_the_job_and_its_repetition_changes_nothing(
    bot: httpx.Client, worker: httpx.Client, job: Any
) -> None:
    job_id = job["id"]
    for result in ("first", "second"):
        response = worker.post(f"/jobs/{job_id}/result", json={"result": result})
        assert (response.status_code, response.json()) == (200, {"ok": True, "status": "done"})
    ended = bot.get(f"/jobs/{job_id}").json()
    assert (ended["status"], ended["outcome"], ended["result"], ended["error"]) == ("done", "done", "first", None)
    assert ended["lease_until"] is None
    assert ended["finished_at"] >= ended["started_at"]
    assert 0 <= ended["duration_ms"] < 30_000


def test_a_failure_ends_the_job_and_its_repetition_changes_nothing(
    bot: httpx.Client, worker: httpx.Client, job: Any
) -> None:
    job_id = job["id"]
    for error in ("first", "second"):
        response = worker.post(f"/jobs/{job_id}/fail", json={"error": error})
        assert (response.status_code, response.json()) == (200, {"ok": True, "status": "failed"})
    ended = bot.get(f"/jobs/{job_id}").json()
    assert (ended["status"], ended["outcome"], ended["result"], ended["error"]) == ("failed", "failed", None, "first")


def test_a_result_after_a_failure_is_ignored_with_a_note(bot: httpx.Client, worker: httpx.Client, job: Any) -> None:
    job_id = job["id"]
    worker.post(f"/jobs/{job_id}/fail", json={"error": "e"})
    response = worker.post(f"/jobs/{job_id}/result", json={"result": "r"})
    note = {"ok": True, "status": "failed", "note": "already failed; result ignored"}
    assert (response.status_code, response.json()) == (200, note)


def test_a_failure_after_a_result_is_ignored_with_a_note(bot: httpx.Client, worker: httpx.Client, job: Any) -> None:
    job_id = job["id"]
    worker.post(f"/jobs/{job_id}/result", json={"result": "r"})
    response = worker.post(f"/jobs/{job_id}/fail", json={"error": "e"})
    assert (response.status_code, response.json()) == (
        200,
        {"ok": True, "status": "done", "note": "already done; fail ignored"},
    )


@pytest.mark.parametrize("body", [{}, {"error": ""}, {"error": "  "}])
def test_a_failure_without_words_is_unknown(
    bot: httpx.Client, worker: httpx.Client, job: Any, body: dict[str, str]
) -> None:
    job_id = job["id"]
    worker.post(f"/jobs/{job_id}/fail", json=body)
    assert bot.get(f"/jobs/{job_id}").json()["error"] == "unknown"


def test_a_result_of_a_queued_job_is_refused(bot: httpx.Client, worker: httpx.Client, cap: str) -> None:
    response = worker.post(f"/jobs/{submit(bot, requires=caps(cap))}/result", json={"result": "r"})
    assert (response.status_code, response.json()) == (400, {"detail": "job not in running state: queued"})


def test_a_job_that_was_never_claimed_can_be_failed(bot: httpx.Client, worker: httpx.Client, cap: str) -> None:
    job_id = submit(bot, requires=caps(cap))
    response = worker.post(f"/jobs/{job_id}/fail", json={"error": "e"})
    assert (response.status_code, response.json()) == (200, {"ok": True, "status": "failed"})
    assert claim(worker) is None
    assert bot.get(f"/jobs/{job_id}").json()["duration_ms"] is None


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ({}, ""),
        ({"payload": None}, ""),
        ({"payload": ""}, ""),
        ({"payload": "x", "priority": 9, "id": "mine"}, "x"),
        ({"payload": "nul \x00, tab \t, € and 🦞"}, "nul \x00, tab \t, € and 🦞"),
        ({"payload": "x" * 262144}, "x" * 262144),
    ],
)
def test_payloads_are_kept_as_they_are(bot: httpx.Client, cap: str, given: dict[str, Any], kept: str) -> None:
    job = bot.get(f"/jobs/{submit(bot, requires=caps(cap), **given)}").json()
    assert job["payload"] == kept
    assert job["id"] != "mine"


def test_a_result_is_kept_as_it_is(bot: httpx.Client, worker: httpx.Client, job: Any) -> None:
    job_id = job["id"]
    result = 'nul \x00, quote ", newline \n, € and 🦞'
    worker.post(f"/jobs/{job_id}/result", json={"result": result})
    assert bot.get(f"/jobs/{job_id}").json()["result"] == result


def test_the_content_type_is_not_looked_at(bot: httpx.Client) -> None:
    response = bot.post("/jobs", content=b'{"command":" ping "}', headers={"Content-Type": "text/plain"})
    assert response.status_code == 200


def test_a_job_can_be_read_by_bot_and_worker(bot: httpx.Client, worker: httpx.Client, cap: str) -> None:
    job_id = submit(bot, requires=caps(cap))
    assert bot.get(f"/jobs/{job_id}").json() == worker.get(f"/jobs/{job_id}").json()


@pytest.mark.parametrize(
    ("method", "path", "detail"),
    [
        ("POST", "/jobs", "bad bot token"),
        ("GET", "/jobs", "bad bot token"),
        ("GET", "/agents", "bad bot token"),
        ("GET", "/jobs/next", "bad worker token"),
        ("GET", "/jobs/none", "bad token"),
        ("POST", "/jobs/held", "bad worker token"),
        ("POST", "/jobs/none/result", "bad worker token"),
        ("POST", "/jobs/none/fail", "bad worker token"),
        ("POST", "/jobs/none/heartbeat", "bad worker token"),
        ("POST", "/jobs/none/release", "bad worker token"),
        ("POST", "/jobs/batch", "bad bot token"),
        ("POST", "/jobs/none/cancel", "bad bot token"),
        ("POST", "/jobs/none/requeue", "bad bot token"),
        ("POST", "/jobs/none/log", "bad worker token"),
        ("GET", "/jobs/none/events", "bad bot token"),
        ("GET", "/queue", "bad bot token"),
        ("POST", "/queue/pause", "bad admin token"),
        ("POST", "/queue/resume", "bad admin token"),
    ],
)
def test_the_token_comes_first(broker: Endpoint, method: str, path: str, detail: str) -> None:
    other = {"bad bot token": {"X-Bot-Token": broker.worker_token, "X-Worker-Token": broker.worker_token}}
    bots = {"X-Worker-Token": broker.bot_token, "X-Bot-Token": broker.bot_token}
    wrong = {"bad worker token": bots, "bad admin token": bots}
    nearly = {"X-Bot-Token": broker.bot_token + "x", "X-Worker-Token": broker.worker_token[:-1]}
    for headers in ({}, nearly, {"X-Bot-Token": "", "X-Worker-Token": ""}, (other | wrong).get(detail, {})):
        response = broker.client(headers).request(method, path, content=b"\xff not even JSON")
        assert (response.status_code, response.json()) == (401, {"detail": detail})


@pytest.mark.parametrize("call", ["", "/result", "/fail", "/heartbeat", "/release", "/log"])
def test_an_unknown_job_is_404(worker: httpx.Client, call: str) -> None:
    for job_id in (str(uuid.uuid4()), "none", "%00", "%ff", "x" * 5000):
        path = f"/jobs/{job_id}{call}"
        response = worker.post(path, json={"result": "r"}) if call else worker.get(path)
        assert (response.status_code, response.json()) == (404, {"detail": "job not found"})


@pytest.mark.parametrize(
    ("method", "path", "status", "detail"),
    [
        ("GET", "/", 404, "Not Found"),
        ("GET", "/jobs/", 404, "Not Found"),
        ("GET", "/jobs/a/b", 404, "Not Found"),
        ("DELETE", "/jobs", 405, "Method Not Allowed"),
        ("POST", "/jobs/next", 405, "Method Not Allowed"),
        ("PUT", "/jobs/x/result", 405, "Method Not Allowed"),
    ],
)
def test_unknown_calls(bot: httpx.Client, method: str, path: str, status: int, detail: str) -> None:
    response = bot.request(method, path)
    assert (response.status_code, response.json()) == (status, {"detail": detail})
    assert ("allow" in response.headers) == (status == 405)


def test_a_head_request_claims_nothing(bot: httpx.Client, broker: Endpoint, cap: str) -> None:
    job_id = submit(bot, requires=caps(cap))
    with broker.socket() as sock:
        headers = f"Host: x\r\nX-Worker-Token: {broker.worker_token}\r\nX-Worker-Caps: {cap}\r\n\r\n"
        sock.sendall(f"HEAD /jobs/next HTTP/1.1\r\n{headers}".encode())
        assert sock.recv(4096).startswith(b"HTTP/1.1 405 ")
    assert bot.get(f"/jobs/{job_id}").json()["status"] == "queued"


def test_the_readmes_six_curl_examples(broker: Endpoint) -> None:
    """As printed, but for the address and the tokens."""

    def curl(*arguments: str) -> str:
        return subprocess.run(
            ["curl", "-s", "--max-time", "10", *arguments], capture_output=True, text=True, check=True
        ).stdout

    json_type = ("-H", "Content-Type: application/json")
    bot_token = ("-H", f"X-Bot-Token: {broker.bot_token}")
    worker_token = ("-H", f"X-Worker-Token: {broker.worker_token}")
    jobs = f"{broker.url}/jobs"
    while '"job":{' in curl(f"{jobs}/next", *worker_token):
        pass

    assert curl(f"{broker.url}/health") == '{"ok":true,"ts_bound":true}'
    created = curl("-X", "POST", jobs, *bot_token, *json_type, "-d", '{"command":"ping","payload":"hello"}')
    match = re.fullmatch(r'\{"id":"([0-9a-f-]{36})","status":"queued"\}', created)
    assert match
    job_id = match[1]
    taken = curl(f"{jobs}/next", *worker_token, "-H", "X-Worker-Id: my-worker")
    assert taken.startswith('{"job":{"id":"' + job_id)
    assert '"worker_id":"my-worker"' in taken
    result = curl("-X", "POST", f"{jobs}/{job_id}/result", *worker_token, *json_type, "-d", '{"result":"pong: hello"}')
    assert result == '{"ok":true,"status":"done"}'
    error = '{"error":"worker error message"}'
    failed = curl("-X", "POST", f"{jobs}/{job_id}/fail", *worker_token, *json_type, "-d", error)
    assert failed == '{"ok":true,"status":"done","note":"already done; fail ignored"}'
    assert '"result":"pong: hello"' in curl(f"{jobs}/{job_id}", *bot_token)
