"""HTTP/1.1 and WebSocket on a connection, with the bounds that uvicorn's own protocols leave out."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

if TYPE_CHECKING:
    import asyncio

    from uvicorn.config import Config
    from websockets.frames import Frame
    from websockets.http11 import Request

MAX_HEAD_BYTES = 32768
_SLICE = 16384
_MOST_FRAGMENTS = 1024
_REFUSAL = b"HTTP/1.1 %s\r\ncontent-type: application/json\r\ncontent-length: %d\r\nconnection: close\r\n\r\n%s"


class Gathering:
    """A transport that sends in one piece what is written in one turn of the event loop.

    Uvicorn writes heads and bodies apart: each would be a call of the system's, and wake the other end.
    """

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self.plain = transport
        self._loop = loop
        self._pieces: list[bytes] = []

    def write(self, data: bytes) -> None:
        """Send some bytes, soon."""
        if not self._pieces:
            self._loop.call_soon(self._send)
        self._pieces.append(data)

    def close(self) -> None:
        """Send what is left, and close."""
        self._send()
        self.plain.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.plain, name)

    def _send(self) -> None:
        if self._pieces:
            self.plain.write(b"".join(self._pieces))
            self._pieces.clear()


class BoundedProtocol(HttpToolsProtocol):
    """Refuses what would be kept in memory or held open without end.

    A head (or the trailers of a chunked body) may have `MAX_HEAD_BYTES`, a request must have arrived within
    `request_seconds`, and `max_connections` may be open at once.
    """

    max_connections = 1000
    request_seconds = 30.0

    def __init__(self, config: Config, *args: Any, **kwargs: Any) -> None:
        super().__init__(config, *args, **kwargs)
        self._unparsed = 0
        self._upgraded = False
        self._deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn's
        """Refuse one connection too many."""
        super().connection_made(Gathering(transport, self.loop))  # type: ignore[arg-type]  # stands in for one
        if len(self.connections) > self.max_connections:
            self._refuse(b"503 Service Unavailable", b'{"detail":"too many connections"}')
            return
        self._expect_request()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the deadline."""
        self._expect_nothing()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse in slices, and refuse when what is parsed is not yet of use and too much."""
        for start in range(0, len(data), _SLICE):
            if self.transport.is_closing():
                return
            part = data[start : start + _SLICE]
            self._unparsed += len(part)
            super().data_received(part)
            if self._upgraded:
                return
            if self._unparsed > MAX_HEAD_BYTES:
                self._refuse(b"431 Request Header Fields Too Large", b'{"detail":"request head too large"}')

    def handle_websocket_upgrade(self) -> None:
        """Leave the connection to the WebSocket's protocol, deadline and all."""
        self._expect_nothing()
        self._upgraded = True
        self.transport = self.transport.plain  # type: ignore[attr-defined]  # of Gathering
        super().handle_websocket_upgrade()

    def on_message_begin(self) -> None:
        """Give the request its time."""
        super().on_message_begin()
        self._expect_request()

    def on_headers_complete(self) -> None:
        """Count anew: the head was in bounds."""
        self._unparsed = 0
        super().on_headers_complete()

    def on_chunk_header(self) -> None:
        """Count anew: after the last chunk, the trailers."""
        self._unparsed = 0

    def on_body(self, body: bytes) -> None:
        """Count anew: the body has its own bound."""
        self._unparsed = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        """The request has come whole."""
        self._unparsed = 0
        self._expect_nothing()
        super().on_message_complete()

    def _expect_request(self) -> None:
        self._expect_nothing()
        self._deadline = self.loop.call_later(
            self.request_seconds, self._refuse, b"408 Request Timeout", b'{"detail":"request not received in time"}'
        )

    def _expect_nothing(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _refuse(self, status: bytes, body: bytes) -> None:
        if self.transport.is_closing():
            return
        self.transport.write(_REFUSAL % (status, len(body), body))
        self.transport.close()


class BoundedWebSocket(WebSocketsSansIOProtocol):
    """Gives a connection up whose other end does not read, and a message in too many pieces.

    The app finds `confirm` in its scope's extensions: it returns when the other end has read what was sent so far.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._confirmations: dict[bytes, asyncio.Future[None]] = {}

    def handle_connect(self, event: Request) -> None:
        """Offer `confirm`."""
        super().handle_connect(event)
        if self.response.status_code == 101:
            self.scope["extensions"]["confirm"] = self.confirm  # type: ignore[assignment]  # an object of ours

    async def confirm(self) -> None:
        """Send a ping, which is read after all before it, and wait for its pong."""
        payload = secrets.token_bytes(8)
        self._confirmations[payload] = self.loop.create_future()
        try:
            self.conn.send_ping(payload)
            self.transport.write(b"".join(self.conn.data_to_send()))
            await self._confirmations[payload]
        finally:
            del self._confirmations[payload]

    def handle_pong(self, event: Frame) -> None:
        """Keep a confirmation's pong from the keepalive."""
        waiting = self._confirmations.get(bytes(event.data))
        if waiting is None:
            super().handle_pong(event)
        elif not waiting.done():
            waiting.set_result(None)

    def handle_ping(self) -> None:
        """Answer no pings of one who does not read the answers."""
        if self.writable.is_set():
            super().handle_ping()
        else:
            self.transport.abort()

    def handle_cont(self, event: Frame) -> None:
        """Bound the pieces of a message; its size is bounded by the parser."""
        if len(self.frames) >= _MOST_FRAGMENTS:
            self.transport.abort()
            return
        super().handle_cont(event)

    def keepalive_timeout(self) -> None:
        """Give up who does not answer; to wait until it has read what is left would be to wait for ever."""
        super().keepalive_timeout()
        self.transport.abort()

    def shutdown(self) -> None:
        """Wait for nobody who does not read."""
        super().shutdown()
        if not self.writable.is_set():
            self.transport.abort()
