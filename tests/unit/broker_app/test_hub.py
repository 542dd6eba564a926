"""An agent's line, where its greeting and a claim for it meet: each order of the two, one after the other."""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from broker_app.agents import Role
from broker_app.broker import Broker
from broker_app.dialects import Identity
from broker_app.hub import Line
from broker_app.queue.commands import Claim, Submit
from broker_app.queue.job import Route
from broker_app.settings import Settings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from tests.unit.broker_app.conftest import Bench

ORDER = Submit("ping", "", None, Route(), max_deliveries=5, lease_seconds=60, dialect="hub")


class Agent:
    """The other end of a line, whose first claim stops before it takes a job, or when it has."""

    def __init__(self, broker: Broker, *, stop_with_job: bool) -> None:
        self.said: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self.heard: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self.stopped, self.go = asyncio.Event(), asyncio.Event()
        self._perform, self._stop_with_job = broker.perform, stop_with_job
        broker.perform = self.perform  # type: ignore[assignment, method-assign]

    async def perform(self, command: Any, *more: Any) -> Any:
        if not isinstance(command, Claim):
            return await self._perform(command, *more)
        done = await self._perform(command, *more) if self._stop_with_job else None
        self.stopped.set()
        await self.go.wait()
        return done or await self._perform(command, *more)

    async def greet(self) -> None:
        """Say that nothing is held, and let the broker hear it."""
        envelope = {"id": "1", "type": "health", "payload": {"tasks": []}}
        await self.said.put({"type": "websocket.receive", "text": json.dumps(envelope)})
        for _ in range(20):
            await asyncio.sleep(0.01)
        self.go.set()

    async def task(self) -> dict[str, Any]:
        """The next task that comes."""
        envelope = await self.heard.get()
        assert envelope["type"] == "task"
        return dict(envelope["payload"])

    async def send_text(self, text: str) -> None:
        await self.heard.put(json.loads(text))


@asynccontextmanager
async def talking(
    bench: Bench, path: Path, *, stop_with_job: bool, with_job: bool = True
) -> AsyncIterator[tuple[Agent, Broker]]:
    settings = Settings.from_environment({"WORKER_TOKEN": "w", "BROKER_DB": str(path / "broker.db")})
    broker = Broker(settings, bench.database, bench.store)
    principal, token = await broker.admit({Role.WORKER: "w"}, frozenset({Role.WORKER}))
    agent = Agent(broker, stop_with_job=stop_with_job)
    socket: Any = SimpleNamespace(receive=agent.said.get, send_text=agent.send_text, close=lambda *_: asyncio.sleep(0))
    caller = broker.identify(principal, token, Identity("w1"))
    line = Line(broker.hub, socket, caller, slots=1, confirm=lambda: asyncio.sleep(0))
    serving = asyncio.create_task(broker.hub.serve(line))
    if with_job:
        await broker.queue.submit(ORDER)
    await agent.stopped.wait()
    yield agent, broker
    agent.said.put_nowait({"type": "websocket.disconnect"})
    await serving


def test_a_greeting_does_not_take_back_what_is_on_its_way(
    bench: Callable[..., Any], run: Callable[[Any], Any], tmp_path: Path
) -> None:
    async def work() -> None:
        async with bench() as b, talking(b, tmp_path, stop_with_job=True) as (agent, broker):
            await agent.greet()
            task = await agent.task()
            assert (await agent.heard.get())["type"] == "ack"
            job = await broker.queue.look(task["taskId"])
            assert (task["leaseEpoch"], job.status, job.lease_epoch, job.attempts) == (1, "running", 1, 1)

    run(work())


def test_a_claim_that_a_greeting_overtakes_is_made_again_and_charged_once(
    bench: Callable[..., Any], run: Callable[[Any], Any], tmp_path: Path
) -> None:
    async def work() -> None:
        async with bench() as b, talking(b, tmp_path, stop_with_job=False) as (agent, broker):
            await agent.greet()
            assert (await agent.heard.get())["type"] == "ack"
            task = await agent.task()
            job = await broker.queue.look(task["taskId"])
            assert (task["leaseEpoch"], job.attempts) == (job.lease_epoch, 1)

    run(work())


def test_a_greeting_is_answered_while_a_claim_waits(
    bench: Callable[..., Any], run: Callable[[Any], Any], tmp_path: Path
) -> None:
    async def work() -> None:
        async with bench() as b, talking(b, tmp_path, stop_with_job=False, with_job=False) as (agent, _):
            agent.go.set()
            async with asyncio.timeout(5):
                await agent.greet()
                assert (await agent.heard.get())["type"] == "ack"

    run(work())


def test_who_runs_a_job_is_told_that_it_is_cancelled_and_has_room_for_another(
    bench: Callable[..., Any], run: Callable[[Any], Any], tmp_path: Path
) -> None:
    async def work() -> None:
        async with bench() as b, talking(b, tmp_path, stop_with_job=False) as (agent, broker):
            agent.go.set()
            task = await agent.task()
            await broker.queue.cancel(task["taskId"], "not wanted")
            told = await agent.heard.get()
            assert (told["type"], told["from"], told["to"]) == ("cancel", "hub", "w1")
            assert told["payload"] == {"taskId": task["taskId"], "leaseEpoch": 1, "reason": "not wanted"}
            await broker.queue.submit(ORDER)
            await agent.task()

    run(work())


def test_a_job_that_is_cancelled_before_it_was_sent_is_not_sent_and_takes_no_room(
    bench: Callable[..., Any], run: Callable[[Any], Any], tmp_path: Path
) -> None:
    async def work() -> None:
        async with bench() as b, talking(b, tmp_path, stop_with_job=True) as (agent, broker):
            (running,) = (await broker.queue.running())["w1"]
            await broker.queue.cancel(running, "not wanted")
            agent.go.set()
            job = await broker.queue.submit(ORDER)
            assert (await agent.task())["taskId"] == job.id

    run(work())


def test_who_ends_a_job_is_told_nothing_of_its_end(
    bench: Callable[..., Any], run: Callable[[Any], Any], tmp_path: Path
) -> None:
    async def work() -> None:
        async with bench() as b, talking(b, tmp_path, stop_with_job=False) as (agent, broker):
            agent.go.set()
            for success in (True, False):
                task = await agent.task()
                payload = {"taskId": task["taskId"], "success": success}
                envelope = {"id": "1", "type": "response", "payload": payload}
                await agent.said.put({"type": "websocket.receive", "text": json.dumps(envelope)})
                assert (await agent.heard.get())["type"] == "ack"
                await broker.queue.submit(ORDER)
            await agent.task()

    run(work())
