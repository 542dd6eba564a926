"""The hub client against a small hub that does as it is told."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed

from runner_app.clients import hub as hub_client
from runner_app.clients.backoff import Backoff
from runner_app.clients.client import LeaseLostError, RefusedError, UnauthorizedError, UnavailableError
from runner_app.clients.hub import HubClient
from runner_app.clients.identity import Identity
from runner_app.job import Job

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

JOB = Job(id="j1", command="exec", payload="", lease_epoch=2, lease_seconds=60, max_deliveries=5)
IDENTITY = Identity(token="own", worker_id="w1", capabilities=("gpu",), version="1.2")
TASK = {"type": "ping", "text": "hello", "taskId": "j1", "leaseEpoch": 2, "leaseSeconds": 60, "maxDeliveries": 3}


class Hub:
    """Answers each envelope by `reply`, keeps them all, and can say something of its own."""

    def __init__(self) -> None:
        self.lines: list[ServerConnection] = []
        self.heard: list[dict[str, Any]] = []
        self._news = asyncio.Event()
        self.reply: Callable[[dict[str, Any]], tuple[str, dict[str, Any]] | None] = self.agree
        self.close_at_once: int | None = None

    async def serve(self, line: ServerConnection) -> None:
        if self.close_at_once:
            await line.close(self.close_at_once, "bad worker token")
            return
        self.lines.append(line)
        with suppress(ConnectionClosed):
            async for text in line:
                envelope = json.loads(text)
                self.heard.append(envelope)
                self._news.set()
                if answer := self.reply(envelope):
                    kind, payload = answer
                    await self.say(kind, {"id": envelope["id"], **payload})

    def agree(self, envelope: dict[str, Any]) -> tuple[str, dict[str, Any]] | None:
        if envelope["type"] == "log":
            return None
        listed = [task["taskId"] for task in envelope["payload"].get("tasks", [])]
        return "ack", {"held": listed, "lost": []}

    async def say(self, kind: str, payload: dict[str, Any], sender: str = "hub") -> None:
        envelope = {"id": "1", "from": sender, "to": "w1", "type": kind, "timestamp": 1, "payload": payload}
        await self.lines[-1].send(json.dumps(envelope))

    def payloads(self, kind: str) -> list[dict[str, Any]]:
        return [envelope["payload"] for envelope in self.heard if envelope["type"] == kind]

    async def has(self, kind: str, count: int = 1) -> None:
        while len(self.payloads(kind)) < count:
            self._news.clear()
            await self._news.wait()

    def slots(self) -> list[str]:
        return [line.request.path.rpartition("=")[2] for line in self.lines if line.request]


@asynccontextmanager
async def talking(
    held: list[tuple[str, int]] | None = None, health: Callable[[], dict[str, float]] = lambda: {"cpu": 1.5}
) -> AsyncIterator[tuple[HubClient, Hub]]:
    hub = Hub()
    async with serve(hub.serve, "127.0.0.1", 0) as server, asyncio.timeout(20):
        port = next(iter(server.sockets)).getsockname()[1]
        leases = [] if held is None else held
        async with HubClient(
            f"http://127.0.0.1:{port}", IDENTITY, slots=4, leases=lambda: leases, health=health
        ) as client:
            yield client, hub


def test_a_line_has_no_slots_until_jobs_are_wanted_and_begins_with_what_is_held() -> None:
    async def scene() -> None:
        async with talking([("j9", 3)]) as (client, hub):
            await hub.has("health")
            assert hub.slots() == ["0"]
            await client.held([])
            assert hub.slots() == ["0", "4"]
            request = hub.lines[-1].request
            assert request
            assert request.path == "/agent/w1?slots=4"
            assert request.headers["Authorization"] == "Bearer own"
            assert json.loads(request.headers["X-Worker-Caps"]) == ["gpu"]
            assert hub.payloads("health") == [{"cpu": 1.5, "tasks": [{"taskId": "j9", "leaseEpoch": 3}]}] * 2
            await client.held([])
            assert len(hub.lines) == 3

    asyncio.run(scene())


def test_a_line_that_was_being_opened_when_jobs_were_wanted_is_opened_again() -> None:
    async def scene() -> None:
        async with talking() as (client, hub):
            await asyncio.sleep(0)  # the line's address is made
            await client.held([])
            assert hub.slots()[-1] == "4"

    asyncio.run(scene())


def test_a_runner_that_speaks_otherwise_loads_no_websockets() -> None:
    program = "import sys, runner_app.__main__; sys.exit('websockets' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_the_seeds_envelopes(tmp_path: Path) -> None:
    async def scene() -> None:
        async with talking() as (client, hub):
            await client.held([])
            await hub.say("task", TASK)
            assert await client.next_job(5) == Job("j1", "ping", "hello", 2, 60, 3)
            await client.heartbeat(JOB)
            await client.result(JOB, "pong")
            await client.fail(JOB, "why")
            await client.release(JOB, "because")
            (tmp_path / "stdout").write_text("a\nb\n")
            await client.live(JOB, tmp_path, adopted=False)(ended=False)
            await client.result(JOB, "after")
            lease = {"taskId": "j1", "leaseEpoch": 2}
            assert hub.payloads("health")[-1] == {"cpu": 1.5, "tasks": [lease]}
            assert hub.payloads("response")[:3] == [
                {**lease, "success": True, "result": "pong"},
                {**lease, "success": False, "error": "why"},
                {**lease, "released": True, "reason": "because"},
            ]
            assert hub.payloads("log") == [{"taskId": "j1", "lines": ["a", "b"]}]
            for envelope in hub.heard:
                assert list(envelope) == ["id", "from", "to", "type", "timestamp", "payload"]
                assert (envelope["from"], envelope["to"]) == ("w1", "hub")
            assert len({envelope["id"] for envelope in hub.heard}) == len(hub.heard)

    asyncio.run(scene())


@pytest.mark.parametrize(
    ("reply", "error"),
    [
        (("error", {"error": "no", "taskId": "j1", "status": "running"}), LeaseLostError),
        (("error", {"error": "no"}), RefusedError),
        (("ack", {"held": [], "lost": ["j1"]}), LeaseLostError),
    ],
)
def test_what_an_answer_means(reply: tuple[str, dict[str, Any]], error: type[Exception]) -> None:
    async def scene() -> None:
        async with talking() as (client, hub):
            await client.held([])
            hub.reply = lambda _: reply
            with pytest.raises(error) as caught:
                await client.heartbeat(JOB)
            assert type(caught.value) is error

    asyncio.run(scene())


def test_a_cancelled_task_is_known_to_be_so_whenever_its_end_is_waited_for() -> None:
    async def scene() -> None:
        async with talking() as (client, hub):
            await client.held([])
            watch = asyncio.create_task(client.revoked(JOB))
            await hub.say("cancel", {"taskId": "j1", "leaseEpoch": 1, "reason": "another delivery"})
            await hub.say("cancel", {"taskId": "j2", "leaseEpoch": 2, "reason": "another task"})
            await client.heartbeat(JOB)
            assert not watch.done()
            await hub.say("cancel", {"taskId": "j1", "leaseEpoch": 2, "reason": "this one"})
            await watch
            await client.revoked(JOB)

    asyncio.run(scene())


def test_what_was_cancelled_while_the_line_was_cut_is_known_by_the_next() -> None:
    async def scene() -> None:
        async with talking([("j1", 2), ("j3", 1)]) as (client, hub):
            hub.reply = lambda _: ("ack", {"held": ["j3"], "lost": ["j1"]})
            await client.revoked(JOB)
            other = asyncio.create_task(client.revoked(replace(JOB, id="j3", lease_epoch=1)))
            await asyncio.wait({other}, timeout=0.1)
            assert not other.done()
            other.cancel()

    asyncio.run(scene())


def test_a_heartbeat_that_is_answered_late_renews_nothing() -> None:
    async def scene() -> None:
        async with talking() as (client, hub):
            await client.held([])
            hub.reply = lambda _: None
            with pytest.raises(UnavailableError, match=r"within 0\.5 s"):
                await client.heartbeat(Job("j1", "exec", "", 2, 6, 5))

    asyncio.run(scene())


def test_a_line_that_is_cut_is_opened_again_and_what_came_over_it_is_forgotten() -> None:
    async def scene() -> None:
        async with talking() as (client, hub):
            await client.held([])
            hub.reply = lambda _: None
            waiting = [asyncio.create_task(call) for call in (client.next_job(25), client.result(JOB, "x"))]
            await hub.has("response")
            hub.reply = hub.agree
            before = len(hub.lines)
            hub.lines[-1].transport.abort()
            for call in waiting:
                with pytest.raises(UnavailableError, match="cut"):
                    await call
            await client.held([])
            assert len(hub.lines) == before + 1
            await client.result(JOB, "x")

    asyncio.run(scene())


def test_a_task_that_overtakes_the_answer_to_a_greeting_is_run() -> None:
    async def scene() -> None:
        async with talking([("j9", 3)]) as (client, hub):
            await client.held([])
            hub.reply = lambda _: None
            hub.lines[-1].transport.abort()
            await hub.has("health", 2)
            await hub.say("task", TASK)
            ready = asyncio.create_task(client.held([]))
            with pytest.raises(UnavailableError):  # its one lease would be taken for all that is held
                await client.heartbeat(JOB)
            hub.reply = hub.agree
            await hub.say("ack", {"id": hub.heard[-1]["id"], "held": [], "lost": ["j9"]})
            await ready
            job = await client.next_job(5)
            assert job == Job("j1", "ping", "hello", 2, 60, 3)
            await client.heartbeat(job)
            assert (len(hub.lines), len(hub.payloads("health"))) == (2, 3)
            assert hub.payloads("health")[1]["tasks"] == [{"taskId": "j9", "leaseEpoch": 3}]
        assert hub.payloads("response") == []

    asyncio.run(scene())


def test_an_envelope_of_another_agent_is_never_run() -> None:
    async def scene() -> None:
        async with talking() as (client, hub):
            await client.held([])
            await hub.say("task", TASK, sender="w2")
            await hub.lines[-1].send("[]")
            assert await client.next_job(0) is None

    asyncio.run(scene())


def test_only_the_first_health_of_a_line_lists_what_is_held(monkeypatch: pytest.MonkeyPatch) -> None:
    """The others would renew claims that nobody sees to."""

    async def scene() -> None:
        monkeypatch.setattr(hub_client, "HEALTH_SECONDS", 0.01)
        async with talking([("j9", 3)]) as (_, hub):
            await hub.has("health", 3)
            listed = [payload["tasks"] for payload in hub.payloads("health")[:3]]
            assert listed == [[{"taskId": "j9", "leaseEpoch": 3}], [], []]

    asyncio.run(scene())


def test_heartbeats_repeat_what_was_measured_for_the_line() -> None:
    measures = iter(range(9))

    async def scene() -> None:
        async with talking(health=lambda: {"cpu": next(measures)}) as (client, hub):
            await client.held([])
            measured = hub.payloads("health")[-1]["cpu"]
            await client.heartbeat(JOB)
            await client.heartbeat(JOB)
            assert [payload["cpu"] for payload in hub.payloads("health")[-2:]] == [measured] * 2

    asyncio.run(scene())


def test_a_line_whose_greeting_is_refused_is_opened_again() -> None:
    async def scene() -> None:
        async with talking() as (client, hub):
            hub.reply = lambda _: ("error", {"error": "no"})
            with pytest.raises(UnavailableError, match="the broker says no"):
                await client.held([])
            hub.reply = hub.agree
            await client.held([])

    asyncio.run(scene())


def test_a_fault_that_ends_the_keeping_of_lines_ends_the_runner() -> None:
    def broken() -> dict[str, float]:
        raise KeyError("MemAvailable")

    async def scene() -> None:
        async with talking(health=broken):
            await asyncio.sleep(60)

    with pytest.RaisesGroup(KeyError):
        asyncio.run(scene())


def test_an_envelope_that_is_too_large_is_not_sent() -> None:
    async def scene() -> None:
        async with talking() as (client, hub):
            await client.held([])
            with pytest.raises(RefusedError, match="larger than an envelope") as caught:
                await client.result(JOB, "\0" * 100_000)
            assert caught.value.status == 413
            await client.result(JOB, "x" * 262_144)
            assert len(hub.payloads("response")) == 1

    asyncio.run(scene())


def test_a_task_that_waited_too_long_is_given_back_and_taken_anew() -> None:
    async def scene() -> None:
        async with talking() as (client, hub):
            await client.held([])
            await hub.say("task", TASK | {"leaseSeconds": 0.12})
            await client.result(JOB, "so that the task is here")
            await asyncio.sleep(0.02)
            taking = asyncio.create_task(client.next_job(5))
            await hub.has("response", 2)
            assert hub.payloads("response")[-1]["released"]
            await hub.say("task", TASK | {"leaseEpoch": 3})
            job = await taking
            assert job
            assert job.lease_epoch == 3

    asyncio.run(scene())


def test_a_task_that_does_not_say_how_often_it_may_be_delivered_is_not_taken() -> None:
    async def scene() -> None:
        async with talking() as (client, hub):
            await client.held([])
            await hub.say("task", {key: value for key, value in TASK.items() if key != "maxDeliveries"})
            with pytest.raises(ValueError, match="max_deliveries"):
                await client.next_job(5)

    asyncio.run(scene())


def test_a_task_without_a_lease_is_not_taken() -> None:
    async def scene() -> None:
        async with talking() as (client, hub):
            await client.held([])
            await hub.say("task", {"type": "ping", "taskId": "j1"})
            with pytest.raises(ValueError, match="lease_epoch"):
                await client.next_job(5)

    asyncio.run(scene())


def test_what_came_and_was_not_taken_is_given_back() -> None:
    async def scene() -> None:
        async with talking() as (client, hub):
            await client.held([])
            await hub.say("task", TASK)
            await client.result(JOB, "so that the task is here")
        assert hub.payloads("response")[-1]["released"]

    asyncio.run(scene())


@pytest.mark.parametrize(
    ("code", "error"), [(4401, UnauthorizedError), (4403, UnauthorizedError), (1012, UnavailableError)]
)
def test_why_there_is_no_line_is_told(code: int, error: type[Exception]) -> None:
    async def scene() -> None:
        async with talking() as (client, hub):
            hub.close_at_once = code
            with pytest.raises(error, match="bad worker token") as caught:
                await client.held([])
            assert type(caught.value) is error

    asyncio.run(scene())


def test_pauses_between_lines_grow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where each is opened and closed at once, as by another runner of the same name."""
    pauses: list[float] = []

    class Noted(Backoff):
        def next(self, *, at_least: float = 0) -> float:
            pauses.append(super().next(at_least=at_least))
            return 0

    async def scene() -> None:
        monkeypatch.setattr(hub_client, "Backoff", Noted)
        async with talking() as (client, hub):
            while len(pauses) < 7:
                with suppress(UnavailableError):
                    await client.held([])
                    hub.lines[-1].transport.abort()
                await asyncio.sleep(0.01)

    asyncio.run(scene())
    for pause, full in zip(pauses, (0.5, 1, 2, 4, 8, 16, 30), strict=False):
        assert full / 2 <= pause <= full
