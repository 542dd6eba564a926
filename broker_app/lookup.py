"""Finding a request's call at once, where Starlette's router tries one route after the other."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from re import Match

    from starlette.routing import Route
    from starlette.types import ASGIApp, Receive, Scope, Send


class Lookup:
    """Middleware that hands a request to its route's endpoint, and what has none to the router behind it.

    Args:
        app: What else there is.
        routes: Whose endpoints are apps. One without parameters stands before those that it is an example of.
    """

    def __init__(self, app: ASGIApp, routes: Sequence[Route]) -> None:
        self._app = app
        self._plain: dict[tuple[str, str], ASGIApp] = {}
        self._others: dict[tuple[str, int], list[tuple[Callable[[str], Match[str] | None], ASGIApp]]] = {}
        for route in routes:
            [method] = route.methods or {"GET"}
            if route.param_convertors:
                alike = self._others.setdefault((method, route.path.count("/")), [])
                alike.append((route.path_regex.match, route.endpoint))
            else:
                self._plain[method, route.path] = route.endpoint

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        endpoint = self.find(scope) if scope["type"] == "http" else None
        await (endpoint or self._app)(scope, receive, send)

    def find(self, scope: Scope) -> ASGIApp | None:
        """The endpoint, with its parameters in the scope; None where there is none."""
        method, path = scope["method"], scope["path"]
        if endpoint := self._plain.get((method, path)):
            scope["path_params"] = {}
            return endpoint
        for match, endpoint in self._others.get((method, path.count("/")), ()):
            if found := match(path):
                scope["path_params"] = found.groupdict()
                return endpoint
        return None
