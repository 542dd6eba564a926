"""HTTP/1.1 on a connection, with the bounds that uvicorn's own protocol leaves out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

if TYPE_CHECKING:
    import asyncio

    from uvicorn.config import Config

MAX_HEAD_BYTES = 32768
_SLICE = 16384
_REFUSAL = b"HTTP/1.1 %s\r\ncontent-type: application/json\r\ncontent-length: %d\r\nconnection: close\r\n\r\n%s"


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
        self._deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn's
        """Refuse one connection too many."""
        super().connection_made(transport)
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
            if self._unparsed > MAX_HEAD_BYTES:
                self._refuse(b"431 Request Header Fields Too Large", b'{"detail":"request head too large"}')

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
