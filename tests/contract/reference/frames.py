"""WebSocket frames (RFC 6455), as far as the hub needs them."""

from __future__ import annotations

import base64
import hashlib
import struct
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import asyncio

_MAGIC = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10


class TooLargeError(Exception):
    """A frame has more bytes than a message may have."""


def accept(writer: asyncio.StreamWriter, key: str) -> None:
    """Answer the handshake."""
    proof = base64.b64encode(hashlib.sha1(key.encode() + _MAGIC).digest()).decode()  # noqa: S324  # the protocol's
    head = "HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\n"
    writer.write(f"{head}sec-websocket-accept: {proof}\r\n\r\n".encode())


def send(writer: asyncio.StreamWriter, opcode: int, data: bytes) -> None:
    """Send one frame."""
    size = len(data)
    if size < 126:
        head = struct.pack("!BB", 0x80 | opcode, size)
    elif size < 65536:
        head = struct.pack("!BBH", 0x80 | opcode, 126, size)
    else:
        head = struct.pack("!BBQ", 0x80 | opcode, 127, size)
    writer.write(head + data)


def close(writer: asyncio.StreamWriter, code: int) -> None:
    """Send the frame that ends it."""
    send(writer, CLOSE, struct.pack("!H", code))


async def receive(reader: asyncio.StreamReader, most: int) -> tuple[int, bytes]:
    """The next frame, which must be a whole message, and masked."""
    first, second = await reader.readexactly(2)
    size = second & 0x7F
    if size == 126:
        (size,) = struct.unpack("!H", await reader.readexactly(2))
    elif size == 127:
        (size,) = struct.unpack("!Q", await reader.readexactly(8))
    if size > most:
        raise TooLargeError
    mask = await reader.readexactly(4)
    data = await reader.readexactly(size)
    return first & 0x0F, bytes(byte ^ mask[n % 4] for n, byte in enumerate(data))
