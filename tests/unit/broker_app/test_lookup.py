"""A request finds the same call at once as it would by trying one route after the other."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from starlette.routing import Match, Route

from broker_app.app import DIALECTS, build_app
from broker_app.broker import Broker
from broker_app.lookup import Lookup
from broker_app.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Callable

CALLS = [call for dialect in DIALECTS for call in dialect.calls]
PATHS = sorted({call.path.replace("{id}", name) for call in CALLS for name in ("x", "next", "a.b:c", "")})
OTHERS = ["/", "", "/jobs/", "/jobs/x/", "/jobs/x/y/z", "//jobs", "/JOBS", "/agent/x", "/health"]


@pytest.fixture
def routes(bench: Callable[..., Any], run: Callable[[Any], Any]) -> list[Route]:
    async def build() -> Any:
        settings = Settings.from_environment({})
        async with bench() as b:
            return build_app(Broker(settings, b.database, b.store), settings, ts_bound=True).routes

    known = {(call.method, call.path) for call in CALLS}
    return [
        route for route in run(build()) if {(method, route.path) for method in getattr(route, "methods", ())} & known
    ]


@pytest.mark.parametrize("method", ["GET", "POST", "DELETE", "HEAD", "PATCH"])
def test_it_is_the_first_route_that_matches(routes: list[Route], method: str) -> None:
    async def nothing_else(*_: Any) -> None:
        raise AssertionError

    assert len(routes) == len(CALLS)
    lookup = Lookup(nothing_else, routes)
    found = 0
    for path in [*PATHS, *OTHERS]:
        scope = {"type": "http", "method": method, "path": path}
        matches = (route.matches(dict(scope)) for route in routes)
        first = next((child for match, child in matches if match is Match.FULL), None)
        endpoint = lookup.find(scope)
        assert endpoint is (first and first["endpoint"]), path
        if first:
            assert scope["path_params"] == first["path_params"]
            found += 1
    assert found > 0 or method in {"HEAD", "PATCH"}
