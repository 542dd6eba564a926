"""The way in to the hub's WebSocket: who may have a line."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from broker_app.agents import NAME_PATTERN, Role
from broker_app.dialects.fields import bearer, matching, number
from broker_app.dialects.hub import HUB
from broker_app.dialects.hub_envelopes import MAX_SLOTS
from broker_app.dialects.jobs import identity
from broker_app.errors import DatabaseError, MalformedError, UnauthorisedError, WrongIdentityError
from broker_app.hub import BAD_TOKEN, OTHER_NAME, Line

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from starlette.types import Scope
    from starlette.websockets import WebSocket

    from broker_app.auth import Caller
    from broker_app.broker import Broker

_MALFORMED, _TRY_LATER = 1008, 1013


def hub_socket(broker: Broker) -> Callable[[WebSocket], Awaitable[None]]:
    """The endpoint of `/agent/{id}[/{token}]`."""

    async def endpoint(websocket: WebSocket) -> None:
        await websocket.accept()
        try:
            caller = await _admit(broker, websocket)
            slots = number("slots", websocket.query_params.get("slots"), 0, MAX_SLOTS, 1)
        except UnauthorisedError:
            await websocket.close(BAD_TOKEN, "bad worker token")
        except WrongIdentityError as error:
            await websocket.close(OTHER_NAME, str(error)[:100])
        except MalformedError as error:
            await websocket.close(_MALFORMED, str(error)[:100])
        except DatabaseError:
            await websocket.close(_TRY_LATER, "the database failed")
        else:
            confirm = websocket.scope["extensions"]["confirm"]
            await broker.hub.serve(Line(broker.hub, websocket, caller, slots=slots, confirm=confirm))

    return endpoint


def where(scope: Scope) -> str:
    """The address that a call or a line came from."""
    client = scope.get("client")
    return f"{client[0]}:{client[1]}" if client else "a local socket"


async def _admit(broker: Broker, websocket: WebSocket) -> Caller:
    name = websocket.path_params["id"]
    if matching("id", name, NAME_PATTERN) == HUB:
        raise MalformedError("the name is the hub's own")
    headers = websocket.headers
    token = websocket.path_params.get("token") or bearer(headers) or headers.get("x-worker-token", "")
    principal, token = await broker.admit({Role.WORKER: token}, frozenset({Role.WORKER}))
    said = identity(headers, websocket.query_params)
    capabilities = broker.agents.capabilities(name) if said.capabilities is None else said.capabilities
    return broker.identify(
        principal, token, replace(said, name=name, capabilities=capabilities), where(websocket.scope)
    )
