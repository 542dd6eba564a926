"""HTTP/1.1 in plain asyncio, so that every byte of an answer is the reference's own."""

from __future__ import annotations

import asyncio
import json
import re
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, unquote

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

MAX_HEAD_BYTES = 32768
_LINE = re.compile(rb"([A-Z]+) (/[!-~]*) HTTP/1\.[01]")
_HEADER = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([^\x00-\x08\x0a-\x1f\x7f]*)")
_CLOSE = {"connection": "close"}


class RefusedError(Exception):
    """An answer that is an error."""

    def __init__(self, status: int, detail: object, headers: dict[str, str] | None = None) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.headers = headers or {}


def require(kept: object, status: int, detail: object, headers: dict[str, str] | None = None) -> None:
    """Refuse with this answer unless a rule was kept."""
    if not kept:
        raise RefusedError(status, detail, headers)


@dataclass
class Request:
    """A request's head, and the connection on which the rest of it comes."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    reader: asyncio.StreamReader
    unread: bool
    answer_headers: dict[str, str] = field(default_factory=dict)

    async def body(self, most: int) -> bytes:
        """Read the body, up to a size."""
        body = bytearray()
        size = int(self.headers.get("content-length", "0"))
        require(size <= most, 413, "request body too large")
        if "transfer-encoding" not in self.headers:
            body += await self.reader.readexactly(size)
        while "transfer-encoding" in self.headers:
            size = int(await self.reader.readuntil(b"\r\n"), 16)
            body += (await self.reader.readexactly(size + 2))[:-2]
            require(len(body) <= most, 413, "request body too large")
            if size == 0:
                break
        self.unread = False
        return bytes(body)

    @property
    def gone(self) -> bool:
        """Whether the client has hung up."""
        return self.reader.at_eof()


class Server:
    """Answers connections with what a handler gives or refuses."""

    def __init__(
        self,
        handler: Callable[[Request], Awaitable[Any]],
        lines: Callable[[Request, asyncio.StreamWriter], Awaitable[None]],
        most_connections: int,
    ) -> None:
        self._handler = handler
        self._lines = lines
        self._most = most_connections
        self._open = 0

    async def connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection until either side closes it."""
        self._open += 1
        try:
            require(self._open <= self._most, 503, "too many connections")
            while await self._exchange(reader, writer):
                await writer.drain()
        except RefusedError as refusal:
            _answer(writer, refusal.status, {"detail": refusal.detail}, _CLOSE)
        except asyncio.LimitOverrunError:
            _answer(writer, 431, {"detail": "request head too large"}, _CLOSE)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        except Exception as error:
            print("ERROR", repr(error), file=sys.stderr, flush=True)
            _answer(writer, 500, {"detail": "internal error"}, _CLOSE)
        finally:
            self._open -= 1
            writer.close()

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        request = _parse(await reader.readuntil(b"\r\n\r\n"), reader)
        if request.headers.get("upgrade") == "websocket" and request.path.startswith("/agent/"):
            await self._lines(request, writer)
            return False
        try:
            answer = await self._handler(request)
            if isinstance(answer, AsyncIterator):
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n")
                async for event in answer:
                    writer.write(event.encode())
                    await writer.drain()
                return False
            _answer(writer, 200, answer, request.answer_headers)
        except RefusedError as refusal:
            closing = _CLOSE if request.unread else {}
            key = "error" if request.path.startswith("/agents/") else "detail"
            _answer(writer, refusal.status, {key: refusal.detail}, refusal.headers | closing)
            return not request.unread
        return True


def _parse(head: bytes, reader: asyncio.StreamReader) -> Request:
    first, *lines = head.removesuffix(b"\r\n\r\n").split(b"\r\n")
    line, matches = _LINE.fullmatch(first), [_HEADER.fullmatch(text) for text in lines]
    if line is None or not all(matches):
        raise RefusedError(400, "this is no HTTP")
    pairs = [(match[1].decode().lower(), match[2].decode("latin-1").strip()) for match in matches if match]
    lengths = [pair for pair in pairs if pair[0] in ("content-length", "transfer-encoding")]
    require(len(lengths) <= 1, 400, "the body's length is not clear")
    require(all(re.fullmatch("[0-9]+|chunked", value) for _, value in lengths), 400, "the body's length is not clear")
    path, _, query = line[2].decode().partition("?")
    values = dict(parse_qsl(query, keep_blank_values=True))
    return Request(line[1].decode(), unquote(path), values, dict(pairs), reader, bool(lengths))


def _answer(writer: asyncio.StreamWriter, status: int, body: object, headers: dict[str, str]) -> None:
    content = body.encode() if isinstance(body, str) else json.dumps(body, separators=(",", ":")).encode()
    headers = {"content-type": "application/json", "content-length": str(len(content)), **headers}
    headers |= {"content-type": "text/plain"} if isinstance(body, str) else {}
    head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    writer.write(f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\n{head}\r\n".encode() + content)
