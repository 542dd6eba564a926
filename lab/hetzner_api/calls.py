"""One call of the API: what it came with, what it may use, and what it answers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from starlette.datastructures import QueryParams

    from lab.hetzner_api.fields import Fields
    from lab.hetzner_api.store import Records


@dataclass(frozen=True, slots=True)
class Call:
    """A request whose sender is known.

    Attributes:
        records: The records, within the call's own transaction.
        path: The numbers in the path by their names in the template.
        query: The query.
        body: The body, without fields where there was none.
    """

    records: Records
    path: Mapping[str, int]
    query: QueryParams
    body: Fields


@dataclass(frozen=True, slots=True)
class Answer:
    """A status and a JSON body, or no body at all."""

    status: int
    body: Any = None


Handler = Callable[[Call], Answer]
# By method and path template, for example ("POST", "/servers/{id}/actions/poweron").
Routes = Mapping[tuple[str, str], Handler]
