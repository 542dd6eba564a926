"""The calls over HTTP: who may call, how long a body may be, and what a call is named that is not there."""

from __future__ import annotations

import base64
import binascii
import json
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from lab.tailscale_api import answers, policy
from lab.tailscale_api.errors import ApiError, NotHereError

if TYPE_CHECKING:
    from collections.abc import Callable

    from starlette.requests import Request

    from lab.tailscale_api.memory import Memory
    from lab.tailscale_api.service import Service

_LONGEST_BODY = 1 << 20
_HUJSON = "application/hujson"


@dataclass(frozen=True)
class Call:
    """A request with its body, and who made it: the OAuth client or a person."""

    request: Request
    body: bytes
    oauth: bool = False

    def path(self, name: str) -> str:
        """Return a part of the path."""
        return str(self.request.path_params[name])

    def text(self) -> str:
        """Return the body as text; ApiError 400 where it is none."""
        try:
            return self.body.decode()
        except UnicodeDecodeError:
            raise ApiError(400, "the body is not UTF-8") from None

    def object(self) -> dict[str, Any]:
        """Return the body, a JSON object; ApiError 400 where it is none."""
        try:
            body = json.loads(self.text())
        except (ValueError, RecursionError) as error:
            raise ApiError(400, f"the body is not JSON: {error}") from None
        if not isinstance(body, dict):
            raise ApiError(400, "the body must be a JSON object")
        return body


class _Calls:
    """Each call by its name; what they share is in the service."""

    def __init__(self, service: Service, domain: str, memory: Memory | None) -> None:
        self._service = service
        self._domain = domain
        self._memory = memory

    def routes(self) -> list[Route]:
        tailnet, device = "/api/v2/tailnet/{tailnet}", "/api/v2/device/{device}"
        open_calls: list[tuple[str, str, _Handler]] = [
            ("POST", "/api/v2/oauth/token", self._token),
            ("POST", "/_lab/join", self._join),
            ("POST", "/_lab/leave", self._leave),
        ]
        calls: list[tuple[str, str, _Handler]] = [
            ("GET", f"{tailnet}/keys", lambda _: self._service.list_keys()),
            ("POST", f"{tailnet}/keys", lambda call: self._service.create_key(call.object(), oauth=call.oauth)),
            ("GET", f"{tailnet}/keys/{{key}}", lambda call: self._service.key(call.path("key"))),
            ("DELETE", f"{tailnet}/keys/{{key}}", lambda call: self._service.delete_key(call.path("key"))),
            ("GET", f"{tailnet}/acl", self._policy),
            ("POST", f"{tailnet}/acl", self._set_policy),
            ("POST", f"{tailnet}/acl/validate", lambda call: self._service.validate_policy(call.text())),
            ("GET", f"{tailnet}/dns/preferences", lambda _: self._service.dns_preferences()),
            ("POST", f"{tailnet}/dns/preferences", lambda call: self._service.set_dns_preferences(call.object())),
            ("GET", f"{tailnet}/devices", self._devices),
            ("GET", device, lambda call: self._service.device(call.path("device"))),
            ("POST", f"{device}/name", lambda call: self._service.rename_device(call.path("device"), call.object())),
            ("DELETE", device, lambda call: self._service.delete_device(call.path("device"))),
        ]
        lock = threading.Lock()
        return [
            *(_route(method, path, handler, lock, None) for method, path, handler in open_calls),
            *(_route(method, path, handler, lock, self._who) for method, path, handler in calls),
        ]

    def _who(self, request: Request) -> bool:
        """Say whether the caller is the OAuth client; ApiError 401 or 404 where the call is not for it."""
        is_oauth = self._service.is_oauth(_token(request.headers.get("authorization", "")))
        if request.path_params.get("tailnet", "-") not in {"-", self._domain}:
            raise ApiError(404, "tailnet not found")
        return is_oauth

    def _token(self, call: Call) -> dict[str, Any]:
        form = {name: values[0] for name, values in parse_qs(call.text()).items()}
        if form.get("grant_type", "client_credentials") != "client_credentials":
            raise ApiError(400, "grant_type must be client_credentials")
        by_header = _basic(call.request.headers.get("authorization", ""))
        client_id, client_secret = by_header or (form.get("client_id", ""), form.get("client_secret", ""))
        return self._service.create_token(client_id, client_secret)

    def _policy(self, call: Call) -> Response:
        if "details" in call.request.query_params:
            raise NotHereError("details of the policy")
        text, etag = self._service.policy()
        return _policy_answer(call, text, etag)

    def _set_policy(self, call: Call) -> Response:
        self._service.set_policy(call.text(), call.request.headers.get("if-match", ""))
        return self._policy(call)

    def _devices(self, call: Call) -> dict[str, Any]:
        if other := sorted(call.request.query_params.keys() - {"fields"}):
            raise NotHereError(f"a list of devices by {other[0]!r}")
        return self._service.list_devices()

    def _join(self, call: Call) -> dict[str, Any]:
        if self._memory is None:
            raise NotHereError("devices without machines")
        body = call.object()
        key, hostname = body.get("key"), body.get("hostname")
        if not isinstance(key, str) or not isinstance(hostname, str):
            raise ApiError(400, "key and hostname must be strings")
        return answers.device(self._memory.join(key, hostname))

    def _leave(self, call: Call) -> dict[str, Any]:
        if self._memory is None:
            raise NotHereError("devices without machines")
        self._memory.leave(str(call.object().get("hostname")))
        return {}


if TYPE_CHECKING:
    _Handler = Callable[[Call], dict[str, Any] | Response | None]


def create(service: Service, *, domain: str, memory: Memory | None = None) -> Starlette:
    """Return the application; with a tailnet in memory, devices can be told to join it."""
    return Starlette(
        routes=_Calls(service, domain, memory).routes(),
        exception_handlers={HTTPException: _name_missing_call},
    )


def _route(
    method: str, path: str, handler: _Handler, lock: threading.Lock, who: Callable[[Request], bool] | None
) -> Route:
    async def endpoint(request: Request) -> Response:
        def call(body: bytes) -> Response:
            with lock:
                oauth = who(request) if who else False
                return _answer(handler(Call(request, body, oauth)))

        try:
            return await run_in_threadpool(call, await _body(request))
        except ApiError as error:
            return _refusal(error)

    return Route(path, endpoint, methods=[method])


def _answer(said: dict[str, Any] | Response | None) -> Response:
    if isinstance(said, Response):
        return said
    return JSONResponse(said) if said is not None else Response()


async def _body(request: Request) -> bytes:
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > _LONGEST_BODY:
            raise ApiError(413, f"the body is longer than {_LONGEST_BODY} bytes")
    return bytes(body)


def _policy_answer(call: Call, text: str, etag: str) -> Response:
    """Return the policy as JSON where that is asked for, else as it was given."""
    headers = {"ETag": f'"{etag}"'}
    if "application/json" in call.request.headers.get("accept", ""):
        return JSONResponse(policy.parse(text), headers=headers)
    return Response(text, media_type=_HUJSON, headers=headers)


def _token(header: str) -> str:
    scheme, _, value = header.partition(" ")
    if scheme.lower() == "bearer":
        return value.strip()
    by_name = _basic(header)
    return by_name[0] if by_name else ""


def _basic(header: str) -> tuple[str, str] | None:
    """Return the name and password of a header for HTTP Basic authentication (RFC 7617)."""
    scheme, _, value = header.partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        name, _, password = base64.b64decode(value, validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError):
        return None
    return name, password


def _refusal(error: ApiError) -> Response:
    return JSONResponse({"message": error.message}, status_code=error.status)


async def _name_missing_call(request: Request, _: Exception) -> Response:
    """Answer what Starlette found no route for."""
    return _refusal(NotHereError(f"{request.method} {request.url.path}"))
