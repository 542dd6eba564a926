"""The HTTP side: routes, the token, faults, and the API's headers and error envelope."""

from __future__ import annotations

import hmac
import json
import logging
import time
from typing import TYPE_CHECKING, Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response
from starlette.routing import Route

from lab.hetzner_api import faults
from lab.hetzner_api.calls import Answer, Call, Handler, Routes
from lab.hetzner_api.errors import ApiError, not_implemented
from lab.hetzner_api.fields import Fields
from lab.hetzner_api.resources import ROUTES
from lab.hetzner_api.resources.common import set_limits

if TYPE_CHECKING:
    from starlette.requests import Request

    from lab.hetzner_api.runner import Runner
    from lab.hetzner_api.store import Store

_LOG = logging.getLogger(__name__)
_CALLS_AN_HOUR = 3600
_LAB_ROUTES: Routes = {**faults.ROUTES, ("PUT", "/limits"): set_limits}


class Allowance:
    """The calls that are left to a token, as the RateLimit headers tell them. It refuses nobody: faults do that."""

    def __init__(self) -> None:
        self._left = float(_CALLS_AN_HOUR)
        self._counted = time.time()

    def use(self) -> dict[str, str]:
        """Count one call and return the headers."""
        now = time.time()
        regained = (now - self._counted) * _CALLS_AN_HOUR / 3600
        self._left = min(_CALLS_AN_HOUR, max(1.0, self._left - 1) + regained)
        self._counted = now
        full_in = (_CALLS_AN_HOUR - self._left) * 3600 / _CALLS_AN_HOUR
        return {
            "RateLimit-Limit": str(_CALLS_AN_HOUR),
            "RateLimit-Remaining": str(int(self._left)),
            "RateLimit-Reset": str(int(now + full_in)),
        }


class Api:
    """Answers calls with the right token, each in one transaction."""

    def __init__(self, store: Store, runner: Runner, token: str) -> None:
        self._store = store
        self._runner = runner
        self._authorization = f"Bearer {token}".encode()
        self._allowance = Allowance()

    def app(self) -> Starlette:
        """Return the application: the API below /v1, what only a lab has below /_lab."""
        routes = [self._route("/v1", *item) for item in ROUTES.items()]
        routes += [self._route("/_lab", *item) for item in _LAB_ROUTES.items()]
        return Starlette(routes=routes, exception_handlers={404: self._unknown, 405: self._unknown})

    def _route(self, prefix: str, call: tuple[str, str], handler: Handler) -> Route:
        method, template = call
        path = template.replace("{id}", "{id:int}").replace("{action_id}", "{action_id:int}")

        async def endpoint(request: Request) -> Response:
            body = await request.body()
            return await run_in_threadpool(self._respond, request, template, body, handler)

        return Route(prefix + path, endpoint, methods=[method])

    async def _unknown(self, request: Request, _error: Exception) -> Response:
        return await run_in_threadpool(self._respond, request, "", b"", _refuse)

    def _respond(self, request: Request, template: str, body: bytes, handler: Handler) -> Response:
        try:
            answer = self._perform(request, template, body, handler)
        except ApiError as error:
            envelope = {"code": error.code, "message": error.message, "details": error.details}
            answer = Answer(error.status, {"error": envelope})
        except Exception:
            _LOG.exception("%s %s failed", request.method, request.url.path)
            envelope = {"code": "server_error", "message": "the stand-in failed; its log has more", "details": None}
            answer = Answer(500, {"error": envelope})
        headers = self._allowance.use()
        return Response(status_code=204, headers=headers) if answer.body is None else _json(answer, headers)

    def _perform(self, request: Request, template: str, body: bytes, handler: Handler) -> Answer:
        if not hmac.compare_digest(request.headers.get("Authorization", "").encode(), self._authorization):
            raise ApiError("unauthorized", "unable to authenticate")
        if handler is _refuse:
            raise not_implemented(f"call {request.method} {request.url.path}")
        with self._store.transaction() as records:
            path = request.url.path.removeprefix("/v1")
            fault = faults.for_call(records, f"{request.method} {template}", f"{request.method} {path}")
        if fault:
            raise fault
        with self._store.transaction() as records:
            answer = handler(Call(records, request.path_params, request.query_params, Fields(_parse(body))))
        if request.method != "GET":
            self._runner.look()
        return answer


def _refuse(_call: Call) -> Answer:
    raise not_implemented("such call")


def _parse(body: bytes) -> Any:
    try:
        return json.loads(body or b"{}")
    except ValueError as error:
        raise ApiError("json_error", "the body is not JSON") from error


def _json(answer: Answer, headers: dict[str, str]) -> Response:
    # In ASCII: a name may hold halves of characters, which UTF-8 does not take.
    return Response(json.dumps(answer.body), answer.status, headers, media_type="application/json")
