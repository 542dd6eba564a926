"""HTTP: each call of each dialect as a route over the broker."""

from __future__ import annotations

import asyncio
import json
import logging
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from starlette.applications import Starlette
from starlette.datastructures import QueryParams
from starlette.middleware import Middleware
from starlette.responses import Response
from starlette.routing import Route, WebSocketRoute

from broker_app import event_stream
from broker_app.agents import Role
from broker_app.dialects import Answer, Arrived, Identity
from broker_app.dialects.hub import HUB_CALLS
from broker_app.dialects.jobs import JOBS
from broker_app.dialects.tasks import TASKS
from broker_app.errors import BrokerError, DatabaseError, MalformedError
from broker_app.hub_socket import hub_socket, where
from broker_app.lookup import Lookup
from broker_app.metrics import Metrics
from broker_app.queue.commands import Follow

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Mapping

    from starlette.requests import Request
    from starlette.types import Receive, Scope, Send

    from broker_app.auth import Caller
    from broker_app.broker import Broker
    from broker_app.dialects import Call, Dialect
    from broker_app.queue.commands import Command
    from broker_app.settings import Settings

    Endpoint = Callable[[Request], Awaitable[Response]]

_LOG = logging.getLogger(__name__)
DIALECTS = (JOBS, TASKS, HUB_CALLS)
_ENCODER = json.JSONEncoder(separators=(",", ":"))
_ANYBODY = frozenset({Role.BOT, Role.WORKER})


def build_app(broker: Broker, settings: Settings, *, ts_bound: bool) -> Starlette:
    """The application.

    Args:
        broker: What it serves.
        settings: The limits and commands it holds requests to.
        ts_bound: What /health says of the sockets.
    """

    async def health(_request: Request) -> Response:
        return _json(200, {"ok": True, "ts_bound": ts_bound})

    calls = [
        _route(call.method, call.path, _Endpoint(broker, settings, dialect, call))
        for dialect in DIALECTS
        for call in dialect.calls
    ]
    routes = [
        _route("GET", "/health", health),
        _route("GET", "/api/health", _tasks_health),
        _route("GET", "/openapi.json", _openapi),
        *calls,
        _route("GET", "/metrics", _metrics(Metrics(broker))),
    ]
    lines = hub_socket(broker)
    sockets = [WebSocketRoute("/agent/{id}", lines), WebSocketRoute("/agent/{id}/{token}", lines)]
    app = Starlette(
        routes=[*routes, *sockets],
        middleware=[Middleware(Lookup, routes=calls)],
        exception_handlers={404: _not_found, 405: _not_allowed, Exception: _crash},
    )
    app.router.redirect_slashes = False
    return app


def _route(method: str, path: str, endpoint: Callable[..., Any]) -> Route:
    route = Route(path, endpoint, methods=[method])
    # Starlette adds HEAD to every GET, but a HEAD of /jobs/next would claim a job and tell nobody.
    route.methods = {method}
    return route


class _Endpoint:
    """One call as an ASGI app. Starlette's requests and responses would cost as much as the queue's own work."""

    def __init__(self, broker: Broker, settings: Settings, dialect: Dialect, call: Call) -> None:
        self._broker = broker
        self._settings = settings
        self._dialect = dialect
        self._call = call

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        response = await self._respond(scope, receive)
        if isinstance(response, Answer):
            await _send(response, send)
        else:
            await response(scope, receive, send)

    async def _respond(self, scope: Scope, receive: Receive) -> Answer | Response:
        call = self._call
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in reversed(scope["headers"])}
        query = QueryParams(scope["query_string"]) if scope["query_string"] else {}
        command: Command | None = None
        try:
            caller = await self._caller(headers, query, where(scope))
            body = await _read_body(receive, self._settings.max_body_bytes)
            command = call.parse(Arrived(scope["path_params"], query, headers, body), self._settings)
            if isinstance(command, Follow) and event_stream.MEDIA_TYPE in headers.get("accept", ""):
                return await _stream(self._broker, command, caller)
            async with _hangup(receive, waits=getattr(command, "wait", 0) > 0) as hangup:
                return call.render(command, await self._broker.perform(command, caller, hangup))
        except BrokerError as error:
            return self._dialect.refuse(error, call, command)

    async def _caller(self, headers: Mapping[str, str], query: Mapping[str, str], origin: str) -> Caller:
        broker, dialect, call = self._broker, self._dialect, self._call
        roles = call.roles if call.key is None else _ANYBODY
        principal, token = await broker.admit(dialect.credentials(headers), roles)
        if principal.role is not Role.WORKER and call.key is None:
            return broker.identify(principal, token, Identity(), origin)
        identity = dialect.identity(headers, query)
        if call.key is not None:
            principal, token = await broker.vouch(identity.name or "", call.key(headers))
        return broker.identify(principal, token, identity, origin)


async def _stream(broker: Broker, command: Follow, caller: Caller) -> Response:
    # Starlette ends a stream whose client has gone.
    never: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    return await event_stream.open_stream(broker, command, caller, never)


async def _read_body(receive: Receive, most: int) -> bytes:
    body = bytearray()
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise MalformedError("the request's body did not arrive whole")
        body += message.get("body", b"")
        if len(body) > most:
            raise MalformedError("request body too large", status=413)
        if not message.get("more_body", False):
            return bytes(body)


@asynccontextmanager
async def _hangup(receive: Receive, *, waits: bool) -> AsyncIterator[asyncio.Future[None]]:
    """A future that is done when the client has gone; watched only where somebody waits."""
    hangup: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    if not waits:
        yield hangup
        return

    async def watch() -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        hangup.set_result(None)

    watcher = asyncio.create_task(watch())
    try:
        yield hangup
    finally:
        watcher.cancel()


async def _send(answer: Answer, send: Send) -> None:
    body = _encoded(answer.body)
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    headers += [(name.encode("latin-1"), value.encode("latin-1")) for name, value in answer.headers.items()]
    await send({"type": "http.response.start", "status": answer.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def _tasks_health(_request: Request) -> Response:
    return _json(200, {"status": "ok"})


def _metrics(metrics: Metrics) -> Endpoint:
    async def endpoint(_request: Request) -> Response:
        try:
            return Response(await metrics.text(), headers={"content-type": metrics.media_type})
        except DatabaseError as error:
            return _json(503, {"error": str(error)})

    return endpoint


async def _openapi(_request: Request) -> Response:
    document = await asyncio.to_thread(Path(__file__).with_name("openapi.json").read_bytes)
    return Response(document, media_type="application/json")


async def _not_found(_request: Request, _error: Exception) -> Response:
    return _json(404, {"detail": "Not Found"})


async def _not_allowed(_request: Request, error: Exception) -> Response:
    return _json(405, {"detail": "Method Not Allowed"}, getattr(error, "headers", None))


async def _crash(request: Request, error: Exception) -> Response:
    _LOG.error("%s %s failed", request.method, request.url.path, exc_info=error)
    return _json(500, {"detail": "internal error; the broker's log has more"})


def _json(status: int, body: Any, headers: Any = None) -> Response:
    return Response(_encoded(body), status, headers, media_type="application/json")


def _encoded(body: Any) -> bytes:
    return _ENCODER.encode(body).encode()
