"""A configuration to begin from, and an HTTP server that answers as a test has it."""

from __future__ import annotations

import json
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SSH_KEY = "ssh-ed25519 " + "A" * 68 + " me@example.com"
NODES: dict[str, dict[str, Any]] = {
    "broker-1": {"role": "broker", "volume": {"size": 20}},
    "agents-1": {"role": "runner"},
    "agents-2": {"role": "runner", "image": "debian-13"},
    "gateway-1": {"role": "gateway"},
}


def values(nodes: dict[str, Any] | None = None, **changed: Any) -> dict[str, str]:
    """Return a good configuration; `fleet__location="ash"` sets fleet:location, and None removes a key."""
    given: dict[str, Any] = {
        "fleet:nodes": NODES if nodes is None else nodes,
        "fleet:sshKeys": [SSH_KEY],
        "tailnet:domain": "tail.lab",
        "hcloud:token": "hcloud-secret",
        "tailscale:oauthClientId": "client",
        "tailscale:oauthClientSecret": "tskey-client-secret",
    }
    given |= {key.replace("__", ":"): value for key, value in changed.items()}
    return {
        key: value if isinstance(value, str) else json.dumps(value) for key, value in given.items() if value is not None
    }


@dataclass
class Request:
    """What came in."""

    method: str
    path: str
    headers: dict[str, str]
    body: str

    @property
    def form(self) -> dict[str, str]:
        return {key: found[0] for key, found in parse_qs(self.body).items()}


Answer = tuple[int, Any] | tuple[int, Any, dict[str, str]]


@dataclass
class Server:
    """A server whose `answer` a test gives; None closes the connection."""

    answer: Callable[[Request], Answer | None]
    url: str = ""
    requests: list[Request] = field(default_factory=list)

    def asked(self, *but: str) -> list[str]:
        return [f"{it.method} {it.path}" for it in self.requests if it.path not in but]


@contextmanager
def serving(answer: Callable[[Request], Answer | None]) -> Iterator[Server]:
    """Serve on a free port of the loopback."""
    server = Server(answer)
    http = ThreadingHTTPServer(("127.0.0.1", 0), _handler(server))
    server.url = f"http://127.0.0.1:{http.server_port}"
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield server
    finally:
        http.shutdown()
        thread.join()
        http.server_close()


def _handler(server: Server) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def _reply(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0))).decode()
            request = Request(self.command, self.path, dict(self.headers), body)
            server.requests.append(request)
            answer = server.answer(request)
            if answer is None:
                self.close_connection = True
                return
            status, content, *more = answer
            self.send_response(status)
            for name, value in (more[0] if more else {}).items():
                self.send_header(name, value)
            text = content if isinstance(content, str) else json.dumps(content)
            self.send_header("Content-Length", str(len(text.encode())))
            self.end_headers()
            self.wfile.write(text.encode())

        do_GET = do_POST = do_DELETE = _reply  # noqa: N815  the names that http.server calls

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
            pass

    return Handler
