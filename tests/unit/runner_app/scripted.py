"""An HTTP server that says what it was told to say."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


def answer(status: str, body: str = "{}", head: str = "") -> bytes:
    return f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n{head}\r\n{body}".encode()


class Server:
    """Gives one scripted answer per request; None closes the connection instead."""

    def __init__(self, *script: bytes | None) -> None:
        self.script = list(script)
        self.requests: list[str] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                length = next(
                    (line.split(":")[1] for line in head.lower().split("\r\n") if "content-length" in line), "0"
                )
                self.requests.append(head + (await reader.readexactly(int(length))).decode())
                if (reply := self.script.pop(0)) is None:
                    return
                writer.write(reply)
                await writer.drain()
        except asyncio.IncompleteReadError:
            return
        finally:
            writer.close()


@asynccontextmanager
async def listening(*script: bytes | None) -> AsyncIterator[tuple[str, Server]]:
    """Serve that script, at the address that is yielded."""
    server = Server(*script)
    listener = await asyncio.start_server(server.serve, "127.0.0.1", 0)
    yield f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}", server
    listener.close()
    await listener.wait_closed()
