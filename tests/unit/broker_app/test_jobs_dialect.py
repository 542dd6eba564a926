"""The jobs dialect's pure functions: request → command, job → response, error → response."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from broker_app.agents import Role
from broker_app.dialects import Arrived, Identity, jobs_answers
from broker_app.dialects.jobs import JOBS, credentials, identity
from broker_app.errors import (
    BatchTooLargeError,
    BrokerError,
    JobNotFoundError,
    KeyReusedError,
    LeaseLostError,
    MalformedError,
    NotDeadError,
    NotRunningError,
    QueueFullError,
    StorageFailedError,
    StorageFullError,
    TooManySubmissionsError,
    UnauthorisedError,
    WrongIdentityError,
)
from broker_app.queue.commands import (
    Browse,
    Cancel,
    Claim,
    Fail,
    Finish,
    Follow,
    ListAgents,
    Look,
    Pause,
    Release,
    Renew,
    Report,
    Requeue,
    Resume,
    ShowQueue,
    Submit,
    SubmitAll,
)
from broker_app.queue.job import Job, Lease, Outcome, Route, Status, cancel, deliver, expire, finish
from broker_app.queue.store import Counts, Event
from broker_app.queue.store import Pause as Paused
from broker_app.settings import Settings

SETTINGS = Settings.from_environment({"LEASE_SECONDS": "7"})
CALLS = {f"{call.method} {call.path}": call for call in JOBS.calls}
QUEUED = Job(id="j", dialect="jobs", command="ping", created_at=10.9, lease_seconds=7, max_deliveries=1)
RUNNING = deliver(QUEUED, "w", 11.2)
PING = Submit("ping", "", None, Route(), 5, 7, "jobs")


def parse(call: str, *, body: str = "", **parts: dict[str, str]) -> Any:
    arrived = Arrived(
        path={"id": "j"}, query=parts.get("query", {}), headers=parts.get("headers", {}), body=body.encode()
    )
    return CALLS[call].parse(arrived, SETTINGS)


@pytest.mark.parametrize(
    ("call", "parts", "command"),
    [
        ("POST /jobs", {"body": '{"command":"ping"}'}, PING),
        (
            "POST /jobs",
            {"body": '{"command":"ping","priority":-100,"not_before":1.5,"idempotency_key":"k"}'},
            replace(PING, priority=-100, not_before=1.5, idempotency_key="k"),
        ),
        ("POST /jobs", {"body": '{"command":"ping","priority":null,"not_before":null,"idempotency_key":null}'}, PING),
        (
            "POST /jobs",
            {"body": '{"command":"ping"}', "headers": {"idempotency-key": "k"}},
            replace(PING, idempotency_key="k"),
        ),
        (
            "POST /jobs",
            {"body": '{"command":"ping","idempotency_key":"k"}', "headers": {"idempotency-key": "k"}},
            replace(PING, idempotency_key="k"),
        ),
        (
            "POST /jobs/batch",
            {"body": '{"jobs":[{"command":"ping"},{"command":"ping","priority":100}]}'},
            SubmitAll((PING, replace(PING, priority=100))),
        ),
        ("POST /jobs/batch", {"body": '{"jobs":[]}'}, SubmitAll(())),
        ("POST /jobs/{id}/cancel", {}, Cancel("j", "cancelled")),
        ("POST /jobs/{id}/cancel", {"body": '{"reason":"why"}'}, Cancel("j", "why")),
        ("POST /jobs/{id}/requeue", {}, Requeue("j")),
        ("POST /jobs/{id}/log", {"body": "{}"}, Report("j", None)),
        (
            "POST /jobs/{id}/log",
            {"body": '{"text":"t","offset":0,"progress":0,"note":"n","lease_epoch":3}'},
            Report("j", 3, "t", 0, 0, "n"),
        ),
        ("GET /jobs/{id}/events", {}, Follow("j", 0, 200)),
        ("GET /jobs/{id}/events", {"query": {"after": "4", "limit": "3", "wait": "2"}}, Follow("j", 4, 3, 2.0)),
        ("GET /jobs/{id}/events", {"headers": {"last-event-id": "5"}}, Follow("j", 5, 200)),
        (
            "GET /jobs/{id}/events",
            {"query": {"after": "4"}, "headers": {"last-event-id": "5"}},
            Follow("j", 5, 200),
        ),
        ("GET /queue", {}, ShowQueue()),
        ("POST /queue/pause", {}, Pause("")),
        ("POST /queue/pause", {"body": '{"reason":"why"}'}, Pause("why")),
        ("POST /queue/resume", {}, Resume()),
        (
            "GET /jobs",
            {"query": {"outcome": "dead", "status": "failed"}},
            Browse(Status.FAILED, None, 50, None, Outcome.DEAD),
        ),
        ("GET /jobs", {"query": {"outcome": "done"}}, Browse(None, None, 50, None, Outcome.DONE)),
        (
            "POST /jobs",
            {"body": '{"command":"exec","payload":"p","requires":{"caps":["b","a"]},"agent":"x","max_deliveries":1}'},
            Submit("exec", "p", '{"caps": ["b", "a"]}', Route("x", frozenset("ab")), 1, 7, "jobs"),
        ),
        ("GET /jobs", {}, Browse(None, None, 50, None)),
        (
            "GET /jobs",
            {"query": {"status": "done", "agent": "x", "limit": "3", "cursor": "9"}},
            Browse(Status.DONE, "x", 3, 9),
        ),
        ("GET /jobs/next", {}, Claim(0.0)),
        ("GET /jobs/next", {"query": {"wait": "25"}}, Claim(25.0)),
        ("GET /jobs/{id}", {"query": {"wait": "0.5"}}, Look("j", 0.5)),
        ("POST /jobs/{id}/heartbeat", {}, Renew("j", None)),
        ("POST /jobs/{id}/heartbeat", {"body": '{"lease_epoch":3}'}, Renew("j", 3)),
        ("POST /jobs/{id}/heartbeat", {"headers": {"x-lease-epoch": "3"}}, Renew("j", 3)),
        ("POST /jobs/{id}/release", {"body": '{"reason":"drain","lease_epoch":0}'}, Release("j", 0, "drain")),
        ("POST /jobs/{id}/result", {"body": '{"result":"r"}'}, Finish("j", None, "r")),
        (
            "POST /jobs/{id}/result",
            {"body": '{"result":"r","lease_epoch":2}', "headers": {"x-lease-epoch": "2"}},
            Finish("j", 2, "r"),
        ),
        ("POST /jobs/{id}/fail", {"body": '{"error":" e "}'}, Fail("j", None, "e", undelivered=True)),
        ("GET /agents", {}, ListAgents()),
    ],
)
def test_a_request_is_a_command(call: str, parts: dict[str, Any], command: object) -> None:
    assert parse(call, **parts) == command


KEY = {"idempotency-key": "k"}


@pytest.mark.parametrize(
    ("call", "parts", "status", "detail"),
    [
        ("POST /jobs", {"body": '{"command":"ping","priority":101}'}, 400, "priority: Input should be from -100 "),
        ("POST /jobs", {"body": '{"command":"ping","priority":-101}'}, 400, "priority: "),
        ("POST /jobs", {"body": '{"command":"ping","priority":1.0}'}, 400, "priority: "),
        ("POST /jobs", {"body": '{"command":"ping","not_before":-1}'}, 400, "not_before: "),
        ("POST /jobs", {"body": '{"command":"ping","not_before":1763800000000}'}, 400, "not_before: "),
        ("POST /jobs", {"body": '{"command":"ping","not_before":true}'}, 400, "not_before: Input should be a valid "),
        ("POST /jobs", {"body": '{"command":"ping","not_before":"2026-01-01"}'}, 400, "not_before: "),
        ("POST /jobs", {"body": '{"command":"ping","idempotency_key":""}'}, 400, "idempotency_key must match"),
        ("POST /jobs", {"body": '{"command":"ping","idempotency_key":"a b"}'}, 400, "idempotency_key must match"),
        ("POST /jobs", {"body": '{"command":"ping"}', "headers": {"idempotency-key": ""}}, 400, "idempotency_key must"),
        ("POST /jobs", {"body": '{"command":"ping","idempotency_key":"x"}', "headers": KEY}, 400, "Idempotency-Key "),
        ("POST /jobs/batch", {"body": "{}"}, 400, "jobs: Field required"),
        ("POST /jobs/batch", {"body": '{"jobs":[{"command":"ping"},1]}'}, 400, "jobs: "),
        ("POST /jobs/batch", {"body": '{"jobs":[{"command":"ping"},{}]}'}, 400, "jobs[1]: invalid command"),
        (
            "POST /jobs/batch",
            {"body": '{"jobs":[{"command":"ping"},{"command":"ping","priority":"1"}]}'},
            400,
            "jobs[1].priority: ",
        ),
        ("POST /jobs/batch", {"body": json.dumps({"jobs": [{}] * 1001})}, 400, "jobs: List should have at most 1000"),
        ("POST /jobs/batch", {"body": '{"jobs":[]}', "headers": KEY}, 400, "Idempotency-Key "),
        ("POST /jobs/{id}/log", {"body": json.dumps({"text": "x" * 65537})}, 413, "text too large"),
        ("POST /jobs/{id}/log", {"body": json.dumps({"note": "x" * 1025})}, 413, "note too large"),
        ("POST /jobs/{id}/cancel", {"body": json.dumps({"reason": "x" * 1025})}, 413, "reason too large"),
        ("GET /jobs/{id}/events", {"query": {"after": "x"}}, 400, "after must"),
        ("GET /jobs/{id}/events", {"query": {"limit": "201"}}, 400, "limit must"),
        ("GET /jobs/{id}/events", {"headers": {"last-event-id": "x"}}, 400, "Last-Event-ID must"),
        ("GET /jobs", {"query": {"outcome": "lost"}}, 400, "outcome must be one of done, failed, cancelled, dead"),
        ("GET /jobs", {"query": {"outcome": "dead", "status": "queued"}}, 400, "outcome must be one that a job of"),
        ("GET /jobs", {"query": {"outcome": "dead", "status": "done"}}, 400, "outcome must be one that a job of"),
        ("GET /jobs", {"query": {"outcome": "done", "status": "failed"}}, 400, "outcome must be one that a job of"),
    ],
)  # fmt: skip
def test_what_cannot_be_understood_is_named(call: str, parts: dict[str, Any], status: int, detail: str) -> None:
    with pytest.raises(MalformedError) as error:
        parse(call, **parts)
    answer = JOBS.refuse(error.value, CALLS[call], None)
    assert isinstance(answer.body, dict)
    assert (answer.status, answer.body["detail"][: len(detail)]) == (status, detail)


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({}, Identity()),
        ({"x-worker-id": " w "}, Identity(name="w")),
        ({"x-worker-id": "", "x-runner-version": ""}, Identity()),
        ({"x-worker-caps": ""}, Identity(capabilities=())),
        ({"x-worker-caps": "b,a,,b "}, Identity(capabilities=("a", "b"))),
        ({"x-worker-caps": ' ["b", " a "]'}, Identity(capabilities=("a", "b"))),
        ({"x-runner-version": "0.1.0"}, Identity(runner_version="0.1.0")),
    ],
)
def test_who_a_worker_says_it_is(headers: dict[str, str], expected: Identity) -> None:
    assert identity(headers, {}) == expected


def test_tokens_are_taken_by_role() -> None:
    tokens = {Role.BOT: "b", Role.ADMIN: "b", Role.WORKER: "w"}
    assert credentials({"x-bot-token": "b", "x-worker-token": "w"}) == tokens
    assert credentials({"authorization": "Bearer b"}) == {Role.BOT: "b", Role.ADMIN: "b"}
    assert credentials({"x-worker-token": "w"}) == {Role.WORKER: "w"}
    assert credentials({"authorization": "Basic b"}) == {}


@pytest.mark.parametrize(
    ("job", "expected"),
    [
        (QUEUED, {"created_at": 10, "started_at": None, "lease_until": None, "outcome": None, "duration_ms": None}),
        (RUNNING, {"created_at": 10, "started_at": 11, "lease_until": 18, "lease_epoch": 1, "duration_ms": None}),
        (finish(RUNNING, Lease(), "r", 12.345), {"finished_at": 12, "outcome": "done", "duration_ms": 1145}),
        (expire(RUNNING, 18.2), {"status": "failed", "outcome": "dead", "duration_ms": 7000}),
        (QUEUED, {"priority": 0, "not_before": None, "idempotency_key": None, "progress": None, "progress_note": None}),
        (
            replace(QUEUED, priority=3, not_before=12.9, idempotency_key="k", progress=5, progress_note="n"),
            {"priority": 3, "not_before": 12, "idempotency_key": "k", "progress": 5, "progress_note": "n"},
        ),
    ],
)
def test_a_job_is_an_object(job: Job, expected: dict[str, object]) -> None:
    shown = jobs_answers.job_object(job)
    assert {key: shown[key] for key in expected} == expected


@pytest.mark.parametrize(
    ("call", "given", "body"),
    [
        ("POST /jobs/batch", (QUEUED, RUNNING), {"jobs": [{"id": "j", "status": s} for s in ("queued", "running")]}),
        ("POST /jobs/{id}/cancel", cancel(RUNNING, "", 3), {"ok": True, "status": "failed", "outcome": "cancelled"}),
        (
            "POST /jobs/{id}/cancel",
            finish(RUNNING, Lease(), "r", 3),
            {"ok": True, "status": "done", "outcome": "done", "note": "already ended; cancel ignored"},
        ),
        ("POST /jobs/{id}/requeue", QUEUED, {"ok": True, "status": "queued"}),
        ("POST /jobs/{id}/log", RUNNING, {"ok": True}),
        (
            "GET /jobs/{id}/events",
            (RUNNING, (Event(1.5, text="t", offset=0, n=3), Event(2.0, percent=5, note="n", n=4)), 4),
            {
                "status": "running",
                "outcome": None,
                "events": [
                    {"id": 3, "at": 1.5, "type": "log", "offset": 0, "text": "t"},
                    {"id": 4, "at": 2.0, "type": "progress", "progress": 5, "note": "n"},
                ],
                "after": 4,
            },
        ),
        (
            "GET /queue",
            (Counts(1, 2, 3, 4, 5.5), Paused(6.5, "why")),
            {"ready": 1, "delayed": 2, "running": 3, "dead": 4, "oldest": 5, "paused": {"since": 6, "reason": "why"}},
        ),
        (
            "GET /queue",
            (Counts(0, 0, 0, 0, None), None),
            {"ready": 0, "delayed": 0, "running": 0, "dead": 0, "oldest": None, "paused": None},
        ),
        ("POST /queue/pause", None, {"ok": True}),
    ],
)
def test_what_was_done_is_an_answer(call: str, given: Any, body: dict[str, Any]) -> None:
    answer = CALLS[call].render(Resume(), given)
    assert (answer.status, answer.body) == (200, body)


def test_an_admins_call_asks_for_an_admins_token() -> None:
    answer = JOBS.refuse(UnauthorisedError(), CALLS["POST /queue/pause"], None)
    assert (answer.status, answer.body) == (401, {"detail": "bad admin token"})


FENCED, UNFENCED, RENEW = Finish("j", 1, "r"), Fail("j", None, "e"), Renew("j", None)


@pytest.mark.parametrize(
    ("error", "command", "status", "body"),
    [
        (UnauthorisedError(), None, 401, {"detail": "bad bot token"}),
        (WrongIdentityError("m"), None, 403, {"detail": "m"}),
        (JobNotFoundError(), RENEW, 404, {"detail": "job not found"}),
        (NotRunningError(QUEUED), RENEW, 409, {"detail": "job not in running state: queued"}),
        (NotRunningError(QUEUED), UNFENCED, 400, {"detail": "job not in running state: queued"}),
        (LeaseLostError("m", RUNNING, "w"), RENEW, 409, {"detail": "m"}),
        (LeaseLostError("m", RUNNING, "w"), FENCED, 409, {"detail": "m"}),
        (
            LeaseLostError("m", RUNNING, "w"),
            UNFENCED,
            200,
            {"ok": True, "status": "running", "note": "held by another worker; fail ignored"},
        ),
        (NotDeadError(QUEUED), None, 409, {"detail": "job is not dead: queued"}),
        (KeyReusedError("k", "j"), None, 422, {"detail": "idempotency_key 'k' was used for another submission: job j"}),
        (BatchTooLargeError(2), None, 413, {"detail": "batch too large: at most 2 jobs are admitted at once"}),
        (QueueFullError(), None, 429, {"detail": "job queue limit reached"}),
        (TooManySubmissionsError(1.5), None, 429, {"detail": "rate limit exceeded"}),
        (StorageFullError("m"), None, 507, {"detail": "m"}),
        (StorageFailedError("m"), None, 503, {"detail": "m"}),
        (MalformedError("m", status=413), None, 413, {"detail": "m"}),
        (MalformedError("m", field="f"), None, 400, {"detail": "f: m"}),
        (
            MalformedError("m", status=422, field="f", kind="k", given=[1]),
            None,
            422,
            {"detail": [{"type": "k", "loc": ["body", "f"], "msg": "m", "input": [1]}]},
        ),
    ],
)
def test_an_error_is_an_answer(error: Exception, command: Any, status: int, body: dict[str, Any]) -> None:
    answer = JOBS.refuse(error, CALLS["POST /jobs"], command)
    assert (answer.status, answer.body) == (status, body)
    assert ("retry-after" in answer.headers) == (status in (429, 503, 507))


def test_the_rate_limit_says_when() -> None:
    answer = JOBS.refuse(TooManySubmissionsError(1.5), CALLS["POST /jobs"], None)
    assert answer.headers == {"retry-after": "2"}


def test_an_unknown_error_is_not_hidden() -> None:
    with pytest.raises(BrokerError):
        JOBS.refuse(BrokerError("unknown"), CALLS["POST /jobs"], None)
