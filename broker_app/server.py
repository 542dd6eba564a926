"""Serving: sockets from systemd or our own, and a stop that refuses and resets nobody."""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import os
import resource
import signal
import socket
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import uvloop
from uvicorn.config import Config
from uvicorn.server import Server

from broker_app.app import build_app
from broker_app.broker import open_broker
from broker_app.errors import SettingsError
from broker_app.protocol import BoundedProtocol, BoundedWebSocket

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import FrameType

    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from broker_app.broker import Broker
    from broker_app.settings import Settings

_LOG = logging.getLogger(__name__)
_FIRST_PASSED_FD = 3
_BACKLOG = 1024
_DRAIN_SECONDS = 0.3
_GRACE_SECONDS = 10
_KEEP_ALIVE_SECONDS = 75
_PING_SECONDS = 20.0
_SPARE_FILES = 64
_TCP_THIN_LINEAR_TIMEOUTS = 16  # Linux's own; `socket` has no name for it
_TAILNET = (ipaddress.ip_network("100.64.0.0/10"), ipaddress.ip_network("fd7a:115c:a1e0::/48"))


class DrainingServer(Server):
    """Uvicorn's server, with another way to stop.

    On SIGTERM it takes no more connections (under systemd they wait in the socket's backlog for the next
    broker), answers whoever waits, closes each connection after its answer, and goes when all is answered.
    """

    def __init__(self, config: Config, broker: Broker) -> None:
        super().__init__(config)
        self.draining = False
        self._broker = broker

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Tell systemd once requests are answered."""
        await super().startup(sockets)
        notify("READY=1")

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Drain on the first signal; a second SIGINT ends the grace."""
        if self.draining:
            self.force_exit = sig == signal.SIGINT
            return
        self.draining = True
        asyncio.get_running_loop().call_soon_threadsafe(self._drain)

    def _drain(self) -> None:
        notify("STOPPING=1")
        for server in self.servers:
            server.close()
        self._broker.queue.stop_waiting()
        self._broker.hub.close()
        asyncio.get_running_loop().call_later(_DRAIN_SECONDS, setattr, self, "should_exit", True)


def serve(settings: Settings, environment: Mapping[str, str]) -> None:
    """Serve until SIGTERM or SIGINT.

    Raises:
        SettingsError: The address cannot be listened on.
        DatabaseError: The database cannot be used.
    """
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
    uvloop.run(_serve(settings, environment))


def open_sockets(settings: Settings, environment: Mapping[str, str]) -> list[socket.socket]:
    """The sockets to serve on: systemd's or, where it hands over none, our own.

    What they lose in a short cut is sent again within a second of its end. Else that may take as long as the cut did,
    and a job whose claim is answered so late is nobody's meanwhile (tcp_thin_linear_timeouts of networking/ip-sysctl).

    Raises:
        SettingsError: An address cannot be listened on.
    """
    sockets = passed_sockets(environment) or _listen(settings)
    for sock in sockets:
        if sock.family != socket.AF_UNIX:
            sock.setsockopt(socket.IPPROTO_TCP, _TCP_THIN_LINEAR_TIMEOUTS, 1)
    return sockets


def passed_sockets(environment: Mapping[str, str]) -> list[socket.socket]:
    """The listening sockets that systemd hands over (sd_listen_fds(3)); none if they are not for us."""
    if environment.get("LISTEN_PID") != str(os.getpid()):
        return []
    count = int(environment.get("LISTEN_FDS", "0"))
    return [socket.socket(fileno=_FIRST_PASSED_FD + index) for index in range(count)]


def tailnet_bound(addresses: list[Any]) -> bool:
    """Whether sockets at these addresses (getsockname) can be reached over loopback or the tailnet only."""
    return all(_is_private(address) for address in addresses)


def notify(state: str) -> None:
    """Tell systemd (sd_notify(3)); nothing where nobody listens."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return
    with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.sendto(state.encode(), "\0" + address[1:] if address.startswith("@") else address)


async def _serve(settings: Settings, environment: Mapping[str, str]) -> None:
    sockets = open_sockets(settings, environment)
    addresses = [sock.getsockname() for sock in sockets]
    _allow_files(settings.max_connections + _SPARE_FILES)
    async with open_broker(settings) as broker:
        app = build_app(broker, settings, ts_bound=tailnet_bound(addresses))
        server = DrainingServer(_config(settings, app), broker)
        server.config.app = _closing(app, server)
        _LOG.info("listening on %s", ", ".join(map(_url, addresses)))
        await server.serve(sockets)
    _LOG.info("stopped")


def _config(settings: Settings, app: ASGIApp) -> Config:
    protocol = type("Protocol", (BoundedProtocol,), {"max_connections": settings.max_connections})
    return Config(
        app,
        http=protocol,
        ws=BoundedWebSocket,
        ws_max_size=settings.max_body_bytes,
        ws_per_message_deflate=False,
        ws_ping_interval=_PING_SECONDS,
        ws_ping_timeout=_PING_SECONDS,
        lifespan="off",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        backlog=_BACKLOG,
        timeout_keep_alive=_KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=_GRACE_SECONDS,
    )


def _closing(app: ASGIApp, server: DrainingServer) -> ASGIApp:
    """The app, closing each connection after its answer once the server drains."""

    async def closing(scope: Scope, receive: Receive, send: Send) -> None:
        async def send_closing(message: Message) -> None:
            if server.draining and message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], (b"connection", b"close")]
            await send(message)

        await app(scope, receive, send_closing)

    return closing


def _listen(settings: Settings) -> list[socket.socket]:
    named = {settings.hub_ws_port: "HUB_WS_PORT", settings.hub_http_port: "HUB_HTTP_PORT"}
    named = {port: name for port, name in named.items() if port} | {settings.port: "BROKER_PORT"}
    return [_listen_on(settings.host, port, name) for port, name in sorted(named.items())]


def _listen_on(host: str, port: int, name: str) -> socket.socket:
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        return socket.create_server(address[:2], family=family, backlog=_BACKLOG)
    except OSError as error:
        raise SettingsError(f"cannot listen on {host} port {port} ({error}): check BROKER_HOST and {name}") from error


def _allow_files(count: int) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < count:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(count, hard), hard))


def _is_private(address: Any) -> bool:
    if isinstance(address, (str, bytes)):
        return True
    ip = ipaddress.ip_address(address[0].partition("%")[0])
    return ip.is_loopback or any(ip in network for network in _TAILNET)


def _url(address: Any) -> str:
    if isinstance(address, (str, bytes)):
        return f"unix:{os.fsdecode(address)}"
    host, port = address[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
