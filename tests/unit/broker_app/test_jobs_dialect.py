"""The jobs dialect's pure functions: request → command, job → response, error → response."""

from __future__ import annotations

from typing import Any

import pytest

from broker_app.agents import Role
from broker_app.dialects import Arrived, Identity, jobs_answers
from broker_app.dialects.jobs import JOBS, credentials, identity
from broker_app.errors import (
    BrokerError,
    JobNotFoundError,
    LeaseLostError,
    MalformedError,
    NotRunningError,
    QueueFullError,
    StorageFailedError,
    StorageFullError,
    TooManySubmissionsError,
    UnauthorisedError,
    WrongIdentityError,
)
from broker_app.queue.commands import Browse, Claim, Fail, Finish, ListAgents, Look, Release, Renew, Submit
from broker_app.queue.job import Job, Lease, Route, Status, deliver, expire, finish
from broker_app.settings import Settings

SETTINGS = Settings.from_environment({"LEASE_SECONDS": "7"})
CALLS = {(call.method, call.path): call for call in JOBS.calls}
QUEUED = Job(id="j", dialect="jobs", command="ping", created_at=10.9, lease_seconds=7, max_deliveries=1)
RUNNING = deliver(QUEUED, "w", 11.2)


def parse(call: str, *, body: str = "", **parts: dict[str, str]) -> Any:
    method, path = call.split()
    arrived = Arrived(
        path={"id": "j"}, query=parts.get("query", {}), headers=parts.get("headers", {}), body=body.encode()
    )
    return CALLS[method, path].parse(arrived, SETTINGS)


@pytest.mark.parametrize(
    ("call", "parts", "command"),
    [
        ("POST /jobs", {"body": '{"command":"ping"}'}, Submit("ping", "", None, Route(), 5, 7, "jobs")),
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
    ],
)
def test_a_job_is_an_object(job: Job, expected: dict[str, object]) -> None:
    shown = jobs_answers.job_object(job)
    assert {key: shown[key] for key in expected} == expected


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
    answer = JOBS.refuse(error, CALLS["POST", "/jobs"], command)
    assert (answer.status, answer.body) == (status, body)
    assert ("retry-after" in answer.headers) == (status in (429, 503, 507))


def test_the_rate_limit_says_when() -> None:
    answer = JOBS.refuse(TooManySubmissionsError(1.5), CALLS["POST", "/jobs"], None)
    assert answer.headers == {"retry-after": "2"}


def test_an_unknown_error_is_not_hidden() -> None:
    with pytest.raises(BrokerError):
        JOBS.refuse(BrokerError("unknown"), CALLS["POST", "/jobs"], None)
