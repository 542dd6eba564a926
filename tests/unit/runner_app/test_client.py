"""The jobs client against a server that misbehaves as told."""

from __future__ import annotations

import asyncio
import json
import socket
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from runner_app.clients.backoff import Backoff
from runner_app.clients.client import LeaseLostError, RefusedError, UnauthorizedError, UnavailableError
from runner_app.clients.identity import Identity
from runner_app.clients.jobs import JobsClient
from runner_app.job import Job
from tests.unit.runner_app.scripted import Server, answer, listening

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

JOB = Job(id="j1", command="exec", payload="", lease_epoch=2, lease_seconds=60, max_deliveries=5)
IDENTITY = Identity(token="t", worker_id="w1", capabilities=("gpu", "a,b"), version="1.2")


@asynccontextmanager
async def serving(*script: bytes | None) -> AsyncIterator[tuple[JobsClient, Server]]:
    async with listening(*script) as (url, server), JobsClient(url, IDENTITY) as client:
        yield client, server


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have a watch rest for no time."""
    monkeypatch.setattr("runner_app.clients.jobs.Backoff", lambda **_: Backoff(0, 0))


def test_every_call_says_who_asks_and_for_which_lease() -> None:
    async def scene() -> None:
        async with serving(answer("200 OK", '{"job": null}'), *[answer("200 OK")] * 4) as (client, server):
            assert await client.next_job(25) is None
            await client.heartbeat(JOB)
            await client.result(JOB, "r")
            await client.fail(JOB, "e")
            await client.release(JOB, "why")
        assert server.requests[0].startswith("GET /jobs/next?wait=25 ")
        for request in server.requests:
            lines = request.lower()
            for line in (
                "x-worker-token: t",
                "x-worker-id: w1",
                'x-worker-caps: ["gpu", "a,b"]',
                "x-runner-version: 1.2",
            ):
                assert line in lines
        assert all('"lease_epoch":2' in request for request in server.requests[1:])

    asyncio.run(scene())


@pytest.mark.parametrize(
    ("status", "error"),
    [
        ("401 Unauthorized", UnauthorizedError),
        ("403 Forbidden", UnauthorizedError),
        ("404 Not Found", LeaseLostError),
        ("409 Conflict", LeaseLostError),
        ("413 Content Too Large", RefusedError),
        ("422 Unprocessable", RefusedError),
        ("429 Too Many Requests", UnavailableError),
        ("500 Oops", UnavailableError),
        ("503 Unavailable", UnavailableError),
    ],
)
def test_what_an_answer_means(status: str, error: type[Exception]) -> None:
    async def scene() -> None:
        async with serving(answer(status, '{"detail": "because"}', "Retry-After: 7\r\n")) as (client, _):
            with pytest.raises(error, match="because") as caught:
                await client.heartbeat(JOB)
            assert type(caught.value) is error
            if type(caught.value) is UnavailableError:
                assert caught.value.retry_after == 7

    asyncio.run(scene())


@pytest.mark.parametrize("body", ["<html>", "[]", ""])
def test_something_else_than_a_broker_is_not_believed(body: str) -> None:
    async def scene() -> None:
        async with serving(answer("200 OK", body)) as (client, _):
            with pytest.raises(UnavailableError, match="is this a broker"):
                await client.heartbeat(JOB)

    asyncio.run(scene())


def test_a_kept_connection_that_died_is_tried_once_more() -> None:
    async def scene() -> None:
        async with serving(answer("200 OK"), None, answer("200 OK")) as (client, server):
            await client.heartbeat(JOB)
            await client.heartbeat(JOB)
            assert len(server.requests) == 3

    asyncio.run(scene())


def test_a_new_connection_that_dies_is_not() -> None:
    async def scene() -> None:
        async with serving(None, answer("200 OK")) as (client, server):
            with pytest.raises(UnavailableError, match="does not answer"):
                await client.heartbeat(JOB)
            assert len(server.requests) == 1

    asyncio.run(scene())


def test_a_broker_that_is_not_there() -> None:
    async def scene() -> None:
        async with JobsClient("http://127.0.0.1:1", IDENTITY) as nobody:
            with pytest.raises(UnavailableError, match=r"127\.0\.0\.1:1"):
                await nobody.probe()

    asyncio.run(scene())


def test_no_proxy_is_taken_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("NO_PROXY", "")

    async def scene() -> None:
        async with serving(answer("200 OK")) as (client, _):
            await client.heartbeat(JOB)

    asyncio.run(scene())


def test_waiting_grows_to_a_bound_and_begins_again() -> None:
    backoff = Backoff(first=1, most=8)
    for full in (1, 2, 4, 8, 8):
        assert full / 2 <= backoff.next() <= full
    assert backoff.next(at_least=30) == 30
    backoff.reset()
    assert backoff.next() <= 1
    assert len({Backoff(first=1, most=8).next() for _ in range(20)}) > 1


def test_what_is_held_is_said() -> None:
    async def scene() -> None:
        async with serving(answer("200 OK", '{"released": []}')) as (client, server):
            await client.held([("j1", 2), ("j2", 1)])
        assert server.requests[0].startswith("POST /jobs/held ")
        assert '{"held":[{"id":"j1","lease_epoch":2},{"id":"j2","lease_epoch":1}]}' in server.requests[0]

    asyncio.run(scene())


@pytest.mark.parametrize("status", ["404 Not Found", "405 Method Not Allowed"])
def test_a_broker_that_asks_nobody_what_they_hold_is_worked_with(status: str) -> None:
    async def scene() -> None:
        async with serving(answer(status)) as (client, _):
            await client.held([])

    asyncio.run(scene())


@pytest.mark.parametrize(("status", "error"), [("503 Down", UnavailableError), ("422 No", RefusedError)])
def test_who_could_not_say_what_it_holds_knows(status: str, error: type[Exception]) -> None:
    async def scene() -> None:
        async with serving(answer(status)) as (client, _):
            with pytest.raises(error):
                await client.held([])

    asyncio.run(scene())


def test_a_claim_without_an_answer_is_not_repeated() -> None:
    """A job may have been claimed; the next claim must come after ``held``."""

    async def scene() -> None:
        async with serving(answer("200 OK", '{"job": null}'), None, answer("200 OK", '{"job": null}')) as (
            client,
            server,
        ):
            await client.next_job(0)
            with pytest.raises(UnavailableError):
                await client.next_job(0)
            assert len(server.requests) == 2

    asyncio.run(scene())


def test_a_success_after_a_failure_raises_doubt() -> None:
    async def scene() -> None:
        async with serving(answer("200 OK"), None, None, answer("200 OK"), answer("200 OK")) as (client, _):
            await client.heartbeat(JOB)
            assert not client.doubt.is_set()
            with pytest.raises(UnavailableError):
                await client.heartbeat(JOB)
            assert not client.doubt.is_set()
            await client.heartbeat(JOB)
            assert client.doubt.is_set()

    asyncio.run(scene())


def test_a_heartbeat_that_is_answered_late_renews_nothing() -> None:
    """Within a twelfth of the lease: the dead-man timer leaves no more."""

    async def scene() -> None:
        with socket.create_server(("127.0.0.1", 0)) as silent:
            async with _client_of(silent) as client, asyncio.timeout(5):
                with pytest.raises(UnavailableError):
                    await client.heartbeat(replace(JOB, lease_seconds=6))

    asyncio.run(scene())


def test_a_call_that_is_given_up_is_reset() -> None:
    """So the kernel forgets what it has not sent, and tells the broker."""

    async def scene() -> None:
        with socket.create_server(("127.0.0.1", 0)) as silent:
            async with _client_of(silent) as client:
                call = asyncio.create_task(client.next_job(25))
                connection, _ = await asyncio.to_thread(silent.accept)
                with connection:
                    connection.settimeout(5)
                    assert await asyncio.to_thread(connection.recv, 65536)
                    call.cancel()
                    await asyncio.wait({call})
                    with pytest.raises(ConnectionResetError):
                        connection.recv(1)

    asyncio.run(scene())


def _shown(status: str, epoch: int = 2, **more: object) -> bytes:
    return answer(
        "200 OK", json.dumps({"status": status, "lease_epoch": epoch, "outcome": None, "error": None, **more})
    )


@pytest.mark.parametrize(
    ("reply", "why"),
    [
        (_shown("failed", outcome="cancelled", error="not wanted"), "it is cancelled (lease 2): not wanted"),
        (_shown("done", outcome="done"), "it is done (lease 2): no reason given"),
        (_shown("queued"), "it is queued (lease 2): no reason given"),
        (_shown("running", 3), "it is running (lease 3): no reason given"),
        (answer("404 Not Found", '{"detail": "no such job"}'), "404 no such job"),
    ],
)
def test_a_job_is_watched_until_it_is_not_ours(reply: bytes, why: str, impatient: None) -> None:
    """Whatever comes in between: an answer that it runs, none, an error, or what is no job."""
    between = (_shown("running"), None, answer("503 Down"), answer("401 No"), answer("405 No"), answer("200 OK"))

    async def scene() -> None:
        async with serving(*between, reply) as (client, server), asyncio.timeout(5):
            assert await client.revoked(JOB) == why
            assert not client.doubt.is_set()
            await asyncio.sleep(0)
            assert server.script == []
            assert all(request.startswith("GET /jobs/j1?wait=25 ") for request in server.requests)

    asyncio.run(scene())


def test_a_watch_that_is_answered_at_once_waits_longer_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """So a broker that knows no wait is not asked without end."""
    pauses: list[float] = []

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)

    monkeypatch.setattr("runner_app.clients.jobs.asyncio.sleep", sleep)

    async def scene() -> None:
        async with serving(*[_shown("running")] * 6, _shown("failed")) as (client, _):
            await client.revoked(JOB)

    asyncio.run(scene())
    assert [1 <= pause / full <= 2 for pause, full in zip(pauses, (0.5, 1, 2, 4, 5, 5), strict=True)] == [True] * 6


def test_a_watch_or_a_report_that_fails_casts_no_doubt_on_the_work(impatient: None) -> None:
    async def scene() -> None:
        script = (answer("200 OK"), None, _shown("failed"), None, None, answer("200 OK"))
        async with serving(*script) as (client, server), asyncio.timeout(5):
            await client.heartbeat(JOB)
            await client.revoked(JOB)
            with pytest.raises(UnavailableError):
                await client._report(JOB, {"progress": 1})
            await client.heartbeat(JOB)
            assert not client.doubt.is_set()
            assert server.script == []

    asyncio.run(scene())


def test_what_a_job_says_is_told_under_its_lease(tmp_path: Path) -> None:
    (tmp_path / "stdout").write_text("one\n")

    async def scene() -> None:
        async with serving(answer("200 OK")) as (client, server):
            await client.live(JOB, tmp_path, adopted=False)(ended=False)
        assert server.requests[0].startswith("POST /jobs/j1/log ")
        assert server.requests[0].endswith('{"text":"one\\n","offset":0,"lease_epoch":2}')

    asyncio.run(scene())


def _client_of(server: socket.socket) -> JobsClient:
    return JobsClient(f"http://127.0.0.1:{server.getsockname()[1]}", IDENTITY)
