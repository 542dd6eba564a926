"""The lab's way out, against a real upstream on loopback."""

from __future__ import annotations

import asyncio
import threading
from contextlib import asynccontextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

import httpx
import pytest

from lab.proxy import Proxy

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path


class Upstream(BaseHTTPRequestHandler):
    """Answers every path with the path, and 404 where it holds `missing`."""

    def do_GET(self) -> None:
        body = self.path.encode()
        self.send_response(404 if "missing" in self.path else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def upstream() -> Iterator[ThreadingHTTPServer]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Upstream) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


@asynccontextmanager
async def _through(allowed: set[str], cache: Path) -> AsyncIterator[httpx.AsyncClient]:
    connections: list[asyncio.Task[None]] = []
    async with httpx.AsyncClient(trust_env=False) as out:
        proxy = Proxy(out, allowed, cache)

        def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            connections.append(asyncio.create_task(proxy.serve(reader, writer)))

        server = await asyncio.start_server(accept, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        async with httpx.AsyncClient(proxy=f"http://127.0.0.1:{port}", trust_env=False) as client:
            yield client
        server.close()
        await asyncio.gather(*connections)


def test_what_is_allowed_passes_and_packages_are_kept(upstream: ThreadingHTTPServer, tmp_path: Path) -> None:
    url = f"http://127.0.0.1:{upstream.server_port}"

    async def scenario() -> None:
        async with _through({"127.0.0.1"}, tmp_path) as client:
            assert (await client.get(f"{url}/pool/a.deb")).text == "/pool/a.deb"
            assert (await client.get(f"{url}/dists/Release")).text == "/dists/Release"
            assert (await client.get(f"{url}/missing.deb")).status_code == 404
            await asyncio.to_thread(upstream.shutdown)
            upstream.socket.close()
            assert (await client.get(f"{url}/pool/a.deb")).text == "/pool/a.deb"
            assert (await client.get(f"{url}/dists/Release")).status_code == 502
            assert (await client.get(f"{url}/missing.deb")).status_code == 502

    asyncio.run(scenario())


def test_what_is_not_allowed_is_refused_and_logged(
    upstream: ThreadingHTTPServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async def scenario() -> None:
        async with _through({"packages.test"}, tmp_path) as client:
            answer = await client.get(f"http://127.0.0.1:{upstream.server_port}/a.deb")
            assert (answer.status_code, answer.text) == (403, "127.0.0.1 is not a package registry of this machine\n")
            with pytest.raises(httpx.ProxyError, match="403"):
                await client.get("https://127.0.0.1:9/")
        async with _through({"127.0.0.1"}, tmp_path) as client:
            assert (await client.post(f"http://127.0.0.1:{upstream.server_port}/")).status_code == 405

    asyncio.run(scenario())
    port = upstream.server_port
    assert capsys.readouterr().out == f"denied GET http://127.0.0.1:{port}/a.deb\ndenied CONNECT 127.0.0.1:9\n"
