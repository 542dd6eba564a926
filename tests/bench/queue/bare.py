"""Servers that only answer: what HTTP costs without a queue, and without HTTP.

    python -m tests.bench.queue.bare asgi|sink PORT

`asgi` is an application of uvicorn as the broker is one; `sink` parses nothing, to show what the load itself can do.
"""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING, cast

import uvicorn
import uvloop

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send

_BODY = b'{"id":"00000000-0000-0000-0000-000000000000","status":"queued"}'
_LENGTH = str(len(_BODY)).encode()
_ANSWER = b"HTTP/1.1 200 OK\r\ncontent-length: " + _LENGTH + b"\r\n\r\n" + _BODY


async def _asgi(_scope: Scope, _receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", _LENGTH)]})
    await send({"type": "http.response.body", "body": _BODY})


class _Sink(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is none by its class

    def data_received(self, _data: bytes) -> None:
        self._transport.write(_ANSWER)


async def _sink(port: int) -> None:
    server = await asyncio.get_running_loop().create_server(_Sink, "127.0.0.1", port)
    await server.serve_forever()


def main(kind: str, port: int) -> None:
    """Serve until told to stop."""
    if kind == "asgi":
        uvicorn.run(_asgi, port=port, loop="uvloop", http="httptools", lifespan="off", log_level="warning")
    else:
        uvloop.run(_sink(port))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
