"""How an agent's line ends of itself, and what becomes of the job then: on a real server."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
from contextlib import asynccontextmanager, closing
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from uvicorn.server import ServerState
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from broker_app import hub as hub_module
from broker_app import server
from broker_app.agents import Role, mint, revoke
from broker_app.app import build_app
from broker_app.broker import Broker
from broker_app.errors import StorageFailedError
from broker_app.queue.commands import Claim, Post, Submit
from broker_app.queue.job import Job, Route, Worker
from broker_app.schema import connect as open_database
from broker_app.settings import Settings

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from tests.unit.broker_app.conftest import Bench

ORDER = Submit("ping", "", None, Route(), max_deliveries=5, lease_seconds=60, dialect="hub")


class Hub:
    """A broker that listens, and whose calls can be stopped: claims when they have a job, others before they begin."""

    def __init__(self, bench: Bench, path: Path) -> None:
        self.settings = Settings.from_environment({"WORKER_TOKEN": "w", "BROKER_DB": str(path / "broker.db")})
        self.bench = bench
        self.broker = Broker(self.settings, bench.database, bench.store)
        self.address, self.state = ("", 0), ServerState()
        self.stop: type | None = None
        self.stopped, self.go = asyncio.Event(), asyncio.Event()
        self._perform = self.broker.perform
        self.broker.perform = self.perform  # type: ignore[assignment, method-assign]

    async def perform(self, command: Any, *more: Any) -> Any:
        done = await self._perform(command, *more) if isinstance(command, Claim) else None
        if isinstance(command, self.stop or ()):
            self.stop = None
            self.stopped.set()
            await self.go.wait()
        return await self._perform(command, *more) if not isinstance(command, Claim) else done

    async def line(self, path: str = "w1/w") -> ClientConnection:
        url = "ws://{}:{}/agent/{}".format(*self.address, path)
        return await connect(url, compression=None, proxy=None)


@asynccontextmanager
async def serving(bench: Callable[..., Any], path: Path) -> AsyncIterator[Hub]:
    async with bench() as b:
        hub = Hub(b, path)
        config = server._config(hub.settings, build_app(hub.broker, hub.settings, ts_bound=True))
        config.load()
        loop = asyncio.get_running_loop()
        protocol: Any = config.http_protocol_class
        listening = await loop.create_server(lambda: protocol(config, hub.state, {}, loop), "127.0.0.1", 0)
        hub.address = listening.sockets[0].getsockname()
        try:
            yield hub
        finally:
            hub.broker.queue.stop_waiting()
            hub.broker.hub.close()
            listening.close()
        await asyncio.gather(*hub.state.tasks)


async def task(line: ClientConnection) -> Any:
    envelope = json.loads(await line.recv())
    assert envelope["type"] == "task"
    return envelope["payload"]


async def say(line: ClientConnection, kind: str, **payload: Any) -> None:
    await line.send(json.dumps({"id": "1", "type": kind, "payload": payload}))


async def closed_with(line: ClientConnection) -> int:
    try:
        while True:
            await line.recv()
    except ConnectionClosed as closed:
        return closed.rcvd.code if closed.rcvd else 1006


async def until(happened: Callable[[], Any]) -> None:
    """Wait for two seconds at most."""
    for _ in range(200):
        if happened():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it has not happened")


async def given_back(hub: Hub, job: Job) -> None:
    """Wait until a job that is claimed, or soon will be, is anybody's as if it had not been: before its lease ends."""
    found = job
    for _ in range(200):
        found = await hub.broker.queue.look(job.id)
        if found.lease_epoch == 1 and found.status == "queued":
            break
        await asyncio.sleep(0.01)
    assert found == replace(job, lease_epoch=1)


# --- a database that fails


def test_a_report_that_cannot_be_kept_ends_the_line_and_the_job_stays_the_agents(
    bench: Callable[..., Any], run: Callable[[Any], Any], tmp_path: Path
) -> None:
    def pages(most: int) -> Callable[[sqlite3.Connection], Any]:
        return lambda connection: connection.execute(f"PRAGMA max_page_count={most}").fetchone()

    async def work() -> None:
        async with serving(bench, tmp_path) as hub:
            job = await hub.broker.queue.submit(ORDER)
            line = await hub.line()
            given = await task(line)
            claimed = await hub.broker.queue.look(job.id)
            await hub.bench.database.write(pages(1))
            await say(line, "response", taskId=job.id, leaseEpoch=1, success=True, result="x" * 200_000)
            assert await closed_with(line) == 1011
            await hub.bench.database.write(pages(100_000))
            assert await hub.broker.queue.look(job.id) == claimed
            assert await hub.broker.queue.claim(Worker("w2")) is None
            again = await hub.line()
            held = {"taskId": given["taskId"], "leaseEpoch": given["leaseEpoch"]}
            await say(again, "health", tasks=[held])
            assert json.loads(await again.recv())["payload"]["held"] == [job.id]
            await say(again, "response", taskId=job.id, leaseEpoch=1, success=True, result="r")
            assert json.loads(await again.recv())["payload"]["status"] == "completed"
            assert (await hub.broker.queue.look(job.id)).attempts == 1

    run(work())


def test_a_job_whose_report_was_lost_with_the_line_is_delivered_again_after_its_lease(
    bench: Callable[..., Any], run: Callable[[Any], Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def work() -> None:
        async with serving(bench, tmp_path) as hub:
            job = await hub.broker.queue.submit(ORDER)
            line = await hub.line()
            await task(line)
            fail(hub, monkeypatch, "change")
            await say(line, "response", taskId=job.id, success=True)
            assert await closed_with(line) == 1011
            hub.bench.clock.now = time.time() + 50
            await hub.bench.queue.reclaim()
            assert await hub.broker.queue.claim(Worker("w2")) is None
            hub.bench.clock.now += 11
            await hub.bench.queue.reclaim()
            again = await hub.broker.queue.claim(Worker("w2"))
            assert again is not None
            assert (again.id, again.attempts, again.lease_epoch) == (job.id, 2, 2)

    run(work())


def test_a_report_that_is_being_kept_when_the_line_ends_is_in_the_trail(
    bench: Callable[..., Any], run: Callable[[Any], Any], tmp_path: Path
) -> None:
    async def work() -> None:
        async with serving(bench, tmp_path) as hub:
            job = await hub.broker.queue.submit(ORDER)
            line = await hub.line()
            await task(line)
            busy, go = threading.Event(), threading.Event()

            def hold(_: sqlite3.Connection) -> None:
                busy.set()
                go.wait(5)

            held = hub.bench.database.write(hold)
            await asyncio.to_thread(busy.wait, 5)
            await say(line, "response", taskId=job.id, success=True)
            await until(lambda: not hub.bench.database._writes.empty())
            hub.broker.hub.remove("w1")
            assert await closed_with(line) == 4410
            go.set()
            await held
            await until(lambda: '"what": "finish"' in hub.broker.audit.path.read_text())
            assert (await hub.broker.queue.look(job.id)).status == "done"

    run(work())


@pytest.mark.parametrize("call", ["claim", "running"])
def test_a_line_that_cannot_be_served_is_closed_with_a_reason(
    bench: Callable[..., Any], run: Callable[[Any], Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    async def work() -> None:
        async with serving(bench, tmp_path) as hub:
            fail(hub, monkeypatch, call)
            assert await closed_with(await hub.line()) == 1011
            monkeypatch.undo()
            job = await hub.broker.queue.submit(ORDER)
            assert (await task(await hub.line()))["taskId"] == job.id

    run(work())


def fail(hub: Hub, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    async def failing(*_: Any, **__: Any) -> Any:
        raise StorageFailedError("the database failed: disk I/O error")

    monkeypatch.setattr(hub.bench.store, call, failing)


# --- an agent that is silent


def test_an_agent_that_does_not_answer_or_read_is_given_up(
    bench: Callable[..., Any], run: Callable[[Any], Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It takes no byte of megabytes that wait for it, so a line that is closed in good order would stay for ever."""
    monkeypatch.setattr(server, "_PING_SECONDS", 0.3)

    async def work() -> None:
        async with serving(bench, tmp_path) as hub:
            for _ in range(40):
                await hub.broker.queue.submit(replace(ORDER, payload="x" * 250_000))
            with socket.socket() as silent:
                silent.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
                silent.connect(hub.address)
                head = "GET /agent/w1/w?slots=64 HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: upgrade\r\n"
                key = f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {'A' * 22}==\r\n\r\n"
                silent.sendall((head + key).encode())
                await until(lambda: hub.broker.hub.connected("w1"))
                await until(lambda: not hub.broker.hub.connected("w1"))

    run(work())


def test_an_agent_that_answers_is_kept(
    bench: Callable[..., Any], run: Callable[[Any], Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "_PING_SECONDS", 0.2)

    async def work() -> None:
        async with serving(bench, tmp_path) as hub:
            line = await hub.line()
            await asyncio.sleep(1)
            job = await hub.broker.queue.submit(ORDER)
            assert (await task(line))["taskId"] == job.id

    run(work())


# --- a token that was revoked


def test_a_line_whose_token_is_revoked_ends_although_nothing_comes(
    bench: Callable[..., Any], run: Callable[[Any], Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub_module, "_CLAIM_SECONDS", 0.1)

    async def work() -> None:
        async with serving(bench, tmp_path) as hub:
            with closing(open_database(tmp_path / "broker.db")) as database:
                line = await hub.line(f"w1/{mint(database, 'w1', Role.WORKER, 0)}")
                await until(lambda: hub.broker.hub.connected("w1"))
                revoke(database, "w1", None)
            assert await closed_with(line) == 4401

    run(work())


# --- a job that was claimed for a line which closed


def test_a_job_whose_agent_is_removed_before_it_is_sent_is_given_back(
    bench: Callable[..., Any], run: Callable[[Any], Any], tmp_path: Path
) -> None:
    async def work() -> None:
        async with serving(bench, tmp_path) as hub:
            hub.stop = Claim
            job = await hub.broker.queue.submit(ORDER)
            line = await hub.line()
            await hub.stopped.wait()
            hub.broker.hub.remove("w1")
            assert await closed_with(line) == 4410
            assert (await hub.broker.queue.look(job.id)).status == "running"
            hub.go.set()
            await given_back(hub, job)

    run(work())


def test_a_job_whose_agent_goes_unnoticed_before_it_is_sent_is_given_back(
    bench: Callable[..., Any], run: Callable[[Any], Any], tmp_path: Path
) -> None:
    """Its line does not hear that the connection was cut, since it is about something that the agent said before."""

    async def work() -> None:
        async with serving(bench, tmp_path) as hub:
            hub.stop = Post
            line = await hub.line()
            await line.send(json.dumps({"id": "1", "type": "log", "to": "w2"}))
            await hub.stopped.wait()
            line.transport.abort()
            await until(lambda: not hub.state.connections)
            assert hub.broker.hub.connected("w1")
            await given_back(hub, await hub.broker.queue.submit(ORDER))

    run(work())


def test_the_next_line_is_given_what_the_one_before_it_gave_back(
    bench: Callable[..., Any], run: Callable[[Any], Any], tmp_path: Path
) -> None:
    async def work() -> None:
        async with serving(bench, tmp_path) as hub:
            hub.stop = Claim
            job = await hub.broker.queue.submit(ORDER)
            early = await hub.line()
            await hub.stopped.wait()
            late = await hub.line()
            assert await closed_with(early) == 4409
            lines = hub.broker.hub
            await until(lambda: lines._holders.get(job.id) is lines._lines["w1"])
            hub.go.set()
            given = await task(late)
            assert (given["taskId"], given["leaseEpoch"]) == (job.id, 2)
            assert (await hub.broker.queue.look(job.id)).attempts == 1

    run(work())
