"""A request must arrive in time; one that has arrived may wait for its answer."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
from uvicorn.config import Config
from uvicorn.server import ServerState

from broker_app.protocol import BoundedProtocol, Gathering

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from starlette.types import Receive, Scope, Send


class Impatient(BoundedProtocol):
    request_seconds = 0.2


async def slow(_scope: Scope, receive: Receive, send: Send) -> None:
    """Reads the body, then answers after thrice the time that a request has."""
    while (await receive()).get("more_body"):
        pass
    await asyncio.sleep(0.6)
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
    await send({"type": "http.response.body"})


@asynccontextmanager
async def connection() -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    config = Config(slow, lifespan="off", ws="none", log_config=None)
    config.load()
    loop = asyncio.get_running_loop()
    state = ServerState()
    server = await loop.create_server(lambda: Impatient(config, state, {}, loop), "127.0.0.1", 0)
    reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
    try:
        yield reader, writer
    finally:
        writer.close()
        server.close()
        await server.wait_closed()


@pytest.mark.parametrize("part", [b"", b"GET", b"GET / HTTP/1.1\r\n", b"POST / HTTP/1.1\r\nContent-Length: 9\r\n\r\n1"])
def test_a_request_that_does_not_come_is_ended(run: Callable[[Any], Any], part: bytes) -> None:
    async def work() -> bytes:
        async with connection() as (reader, writer):
            writer.write(part)
            return await asyncio.wait_for(reader.readline(), 3)

    assert run(work()) == b"HTTP/1.1 408 Request Timeout\r\n"


def test_a_slow_answer_is_waited_for(run: Callable[[Any], Any]) -> None:
    async def work() -> bytes:
        async with connection() as (reader, writer):
            writer.write(b"GET / HTTP/1.1\r\n\r\n")
            return await asyncio.wait_for(reader.readline(), 3)

    assert run(work()) == b"HTTP/1.1 200 OK\r\n"


class _Plain:
    """A transport that notes what it is told."""

    def __init__(self) -> None:
        self.told: list[object] = []

    def write(self, data: bytes) -> None:
        self.told.append(data)

    def close(self) -> None:
        self.told.append("close")


def test_what_is_written_in_one_turn_of_the_loop_is_sent_in_one_piece() -> None:
    async def work() -> list[object]:
        plain = _Plain()
        transport = Gathering(plain, asyncio.get_running_loop())  # type: ignore[arg-type]
        for data in (b"head", b"body"):
            transport.write(data)
        await asyncio.sleep(0)
        transport.write(b"more")
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        return plain.told

    assert asyncio.run(work()) == [b"headbody", b"more"]


def test_what_was_written_is_sent_before_the_connection_is_closed() -> None:
    async def work() -> list[object]:
        plain = _Plain()
        transport = Gathering(plain, asyncio.get_running_loop())  # type: ignore[arg-type]
        transport.write(b"last")
        transport.close()
        await asyncio.sleep(0)
        return plain.told

    assert asyncio.run(work()) == [b"last", "close"]
