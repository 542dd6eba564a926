"""Dialects: HTTP surfaces over the one queue, each as pure functions that touch no store."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from broker_app.agents import Role
    from broker_app.queue.commands import Command
    from broker_app.settings import Settings


@dataclass(frozen=True, slots=True)
class Arrived:
    """A request: the path's parameters, the query, the headers (names in lower case), and the body as it came."""

    path: Mapping[str, str]
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class Answer:
    """A response: a status, a JSON object or list, and headers."""

    status: int
    body: Mapping[str, Any] | list[Any]
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Identity:
    """Who a worker says it is. None where it did not say."""

    name: str | None = None
    capabilities: tuple[str, ...] | None = None
    runner_version: str | None = None


@dataclass(frozen=True, slots=True)
class Call:
    """One call: request → command, and what the queue gave → response.

    Attributes:
        roles: Whose tokens it accepts.
        key: Where an agent's own key is, of a call that any good token lets in and an agent's key speaks for.
        render: Of the command and of what the queue gave for it.
    """

    method: str
    path: str
    roles: frozenset[Role]
    parse: Callable[[Arrived, Settings], Command]
    render: Callable[[Command, Any], Answer]
    key: Callable[[Mapping[str, str]], str] | None = None


@dataclass(frozen=True, slots=True)
class Dialect:
    """One surface.

    Attributes:
        name: As docs/dialects.md has it, and as a job says where it came from.
        credentials: The tokens in a request's headers, by role.
        identity: Who the worker behind a request says it is, in headers and query.
        refuse: An error → response, given the call and, once it is known, the command.
    """

    name: str
    calls: tuple[Call, ...]
    credentials: Callable[[Mapping[str, str]], Mapping[Role, str]]
    identity: Callable[[Mapping[str, str], Mapping[str, str]], Identity]
    refuse: Callable[[Exception, Call, Command | None], Answer]
