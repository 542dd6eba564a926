"""The only way out of a lab: an HTTP proxy for package registries.

It listens on the lab's bridge and dials from the machine, so a host in the lab needs no route, no resolver and no
address translation. It lets through what this machine's own package clients use (`lab.registries`), refuses and logs
the rest, and keeps `.deb` files, whose names never change their content.

    python -m lab.proxy NAMESPACE ADDRESS PORT ALLOWED_HOST…
"""

from __future__ import annotations

import asyncio
import hashlib
import sys
import tempfile
from pathlib import Path
from urllib.parse import urlsplit

import httpx

from lab import folders, network
from lab.streams import close, join

_HEAD_BYTES = 65536
_IDLE_SECONDS = 120
_DROPPED_HEADERS = {
    "connection",
    "keep-alive",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "upgrade",
}


class Proxy:
    """Serves CONNECT, and GET and HEAD of absolute http URLs, to a set of hosts."""

    def __init__(self, client: httpx.AsyncClient, allowed: set[str], cache: Path) -> None:
        self._client = client
        self._allowed = allowed
        self._cache = cache

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer the requests of one connection, the last of which may become a tunnel."""
        try:
            while await self._answer(reader, writer):
                await writer.drain()
        except (OSError, ValueError, EOFError, asyncio.LimitOverrunError, httpx.InvalidURL) as error:
            if not isinstance(error, asyncio.IncompleteReadError):
                print(f"cut {type(error).__name__}: {error}", flush=True)
        finally:
            await close(writer)

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), _IDLE_SECONDS)
        request, *lines = head.decode("latin-1").split("\r\n")
        method, _, rest = request.partition(" ")
        target = rest.rpartition(" ")[0]
        host = urlsplit(f"//{target}" if method == "CONNECT" else target).hostname
        if host not in self._allowed:
            print(f"denied {method} {target}", flush=True)
            return _refuse(writer, "403 Forbidden", f"{host} is not a package registry of this machine\n")
        if method == "CONNECT":
            await _tunnel(target, reader, writer)
            return False
        if method not in {"GET", "HEAD"}:
            return _refuse(writer, "405 Method Not Allowed", "GET, HEAD and CONNECT only\n")
        headers = dict(line.split(": ", 1) for line in lines if ": " in line)
        return await self._forward(method, target, headers, writer)

    async def _forward(self, method: str, url: str, headers: dict[str, str], writer: asyncio.StreamWriter) -> bool:
        cached = self._cache / hashlib.sha256(url.encode()).hexdigest()
        if method == "GET" and cached.exists():
            writer.write(f"HTTP/1.1 200 OK\r\nContent-Length: {cached.stat().st_size}\r\n\r\n".encode())
            writer.write(await asyncio.to_thread(cached.read_bytes))
            return True
        kept = {name: value for name, value in headers.items() if name.lower() not in _DROPPED_HEADERS}
        is_package = method == "GET" and url.endswith(".deb")
        answered = False
        try:
            async with self._client.stream(method, url, headers=kept) as response:
                answered = True
                return await self._relay(response, writer, cached if is_package else None)
        except httpx.HTTPError as error:
            # Once part of an answer is out, only the end of the connection says that the rest is missing.
            return not answered and _refuse(writer, "502 Bad Gateway", f"{type(error).__name__}: {error}\n")

    async def _relay(self, response: httpx.Response, writer: asyncio.StreamWriter, cached: Path | None) -> bool:
        lines = [f"{name}: {value}" for name, value in response.headers.items() if name not in _DROPPED_HEADERS]
        sized = "content-length" in response.headers or response.status_code in {204, 304}
        writer.write("\r\n".join([f"HTTP/1.1 {response.status_code} X", *lines, "", ""]).encode("latin-1"))
        body = bytearray()
        async for chunk in response.aiter_raw():
            writer.write(chunk)
            await writer.drain()
            if cached:
                body += chunk
        if cached and response.status_code == httpx.codes.OK:
            await asyncio.to_thread(_store, cached, bytes(body))
        return sized


def _refuse(writer: asyncio.StreamWriter, status: str, text: str) -> bool:
    writer.write(f"HTTP/1.1 {status}\r\nContent-Length: {len(text)}\r\nConnection: close\r\n\r\n{text}".encode())
    return False


def _store(target: Path, body: bytes) -> None:
    # Several hosts ask for the same package at once.
    with tempfile.NamedTemporaryFile(dir=target.parent, prefix="partial-", delete=False) as partial:
        partial.write(body)
    Path(partial.name).rename(target)


async def _tunnel(target: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    host, _, port = target.rpartition(":")
    up_reader, up_writer = await asyncio.open_connection(host, int(port))
    writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
    await join(reader, writer, up_reader, up_writer)


async def _main(namespace: Path, address: str, port: int, allowed: set[str]) -> None:
    cache = folders.cache() / "packages"
    cache.mkdir(parents=True, exist_ok=True)
    listener = network.tcp_socket(namespace)
    listener.bind((address, port))
    async with httpx.AsyncClient(timeout=_IDLE_SECONDS, trust_env=False) as client:
        server = await asyncio.start_server(Proxy(client, allowed, cache).serve, sock=listener, limit=_HEAD_BYTES)
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(_main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), set(sys.argv[4:])))
