"""The tasks client against a server that misbehaves as told."""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest

from runner_app.clients.client import LeaseLostError, RefusedError, UnauthorizedError, UnavailableError
from runner_app.clients.tasks import Agent, TasksClient
from runner_app.job import Job
from tests.unit.runner_app.scripted import Server, answer, listening

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

JOB = Job(id="j1", command="exec", payload="", lease_epoch=2, lease_seconds=300, max_deliveries=5)
TASK = {
    "id": "j1",
    "type": "ping",
    "lead_id": None,
    "payload": {"text": "hello"},
    "lease_token": "epoch-7",
    "max_attempts": 3,
}


@asynccontextmanager
async def serving(*script: bytes | None, global_key: str = "global") -> AsyncIterator[tuple[TasksClient, Server]]:
    agent = Agent("agent1", "own", global_key, ("gpu",), "1.2")
    async with listening(*script) as (url, server), TasksClient(url, agent, 300) as client:
        yield client, server


def pulled(task: Any) -> bytes:
    return answer("200 OK", json.dumps({"success": True, "message": None, "task": task}))


def test_the_seeds_calls() -> None:
    async def scene() -> None:
        async with serving(pulled(TASK), *[answer("200 OK")] * 5) as (client, server):
            assert await client.next_job(25) == Job("j1", "ping", "hello", 7, 300, 3)
            await client.heartbeat(JOB)
            await client.result(JOB, "pong")
            await client.result(JOB, '{"exit_code": 0}')
            await client.fail(JOB, "why")
            await client.release(JOB, "because")
        lines = [request.splitlines() for request in server.requests]
        assert [line[0] for line in lines] == [
            "GET /api/agents/tasks/pull?agent_id=agent1&lease_seconds=300&wait=25 HTTP/1.1",
            "POST /api/agents/tasks/j1/heartbeat?agent_id=agent1&lease_seconds=300 HTTP/1.1",
            *["POST /api/agents/tasks/j1/complete?agent_id=agent1 HTTP/1.1"] * 3,
            "POST /api/agents/tasks/j1/heartbeat?agent_id=agent1&lease_seconds=30 HTTP/1.1",
        ]
        assert [json.loads(line[-1]) for line in lines[1:]] == [
            {"lease_token": "epoch-2"},
            {"success": True, "result": {"text": "pong"}, "lease_token": "epoch-2"},
            {"success": True, "result": {"exit_code": 0}, "lease_token": "epoch-2"},
            {"success": False, "error": "why", "lease_token": "epoch-2"},
            {"lease_token": "epoch-2"},
        ]
        for line in lines:
            assert {"Authorization: Bearer global", "X-API-Key: own", 'X-Worker-Caps: ["gpu"]'} <= set(line)

    asyncio.run(scene())


def test_an_agent_needs_no_key_but_its_own() -> None:
    async def scene() -> None:
        async with serving(pulled(None), global_key="") as (client, server):
            assert await client.next_job(0) is None
        assert "Authorization: Bearer own" in server.requests[0]

    asyncio.run(scene())


@pytest.mark.parametrize(
    ("status", "detail", "error", "words"),
    [
        ("401 Unauthorized", "Invalid or missing API key", UnauthorizedError, "check AIDSEC_GLOBAL_API_KEY and"),
        ("403 Forbidden", "unknown agent", UnauthorizedError, "check AIDSEC_AGENT_ID"),
        ("401 Unauthorized", "Invalid lease token", LeaseLostError, "Invalid lease token"),
        ("403 Forbidden", "Task is owned by a different agent", LeaseLostError, "different agent"),
        ("404 Not Found", "Task not found", LeaseLostError, "not found"),
        ("409 Conflict", "Task already finalized as failed", LeaseLostError, "finalized"),
        ("422 Unprocessable", "result", RefusedError, "result"),
        ("503 Unavailable", "later", UnavailableError, "later"),
    ],
)
def test_keys_that_are_wrong_are_no_lost_lease(status: str, detail: str, error: type[Exception], words: str) -> None:
    async def scene() -> None:
        async with serving(answer(status, json.dumps({"detail": detail}))) as (client, _):
            with pytest.raises(error, match=words) as caught:
                await client.result(JOB, "x")
            assert type(caught.value) is error

    asyncio.run(scene())


@pytest.mark.parametrize("task", [[], TASK | {"payload": "text"}, TASK | {"lease_token": "other"}, TASK | {"id": 7}])
def test_what_is_no_task_is_not_taken(task: Any) -> None:
    async def scene() -> None:
        async with serving(pulled(task)) as (client, _):
            with pytest.raises(ValueError, match=r"task|id"):
                await client.next_job(0)

    asyncio.run(scene())


def test_a_pull_that_waits_is_not_disturbed_for_a_job_that_was_let_go() -> None:
    """There is no call that would tell the broker, and what was pulled meanwhile would wait for its lease."""

    async def scene() -> None:
        async with serving(None, answer("200 OK"), answer("200 OK")) as (client, _):
            client.let_go()
            await client.held([("j1", 2)])
            with pytest.raises(UnavailableError):
                await client.heartbeat(JOB)
            await client.heartbeat(JOB)
            assert not client.doubt.is_set()

    asyncio.run(scene())


def test_a_probe_claims_nothing() -> None:
    async def scene() -> None:
        async with serving(answer("404 Not Found", '{"detail": "Task not found"}')) as (client, server):
            await client.probe()
        assert "runner-check/heartbeat" in server.requests[0]

    asyncio.run(scene())
