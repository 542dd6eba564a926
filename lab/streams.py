"""Connections that pass bytes on to each other, as the lab's proxy and its relays do."""

from __future__ import annotations

import asyncio
import contextlib


async def join(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    other_reader: asyncio.StreamReader,
    other_writer: asyncio.StreamWriter,
) -> None:
    """Copy bytes both ways between two connections until both sides have ended."""
    try:
        await asyncio.gather(_copy(reader, other_writer), _copy(other_reader, writer))
    except OSError:  # one side broke off: so does the other
        writer.close()
    finally:
        await close(other_writer)


async def close(writer: asyncio.StreamWriter) -> None:
    """Close a connection that may be broken already."""
    with contextlib.suppress(OSError):
        writer.close()
        await writer.wait_closed()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while chunk := await reader.read(65536):
        writer.write(chunk)
        await writer.drain()
    writer.write_eof()
