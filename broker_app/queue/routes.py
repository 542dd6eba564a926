"""Which routes have queued jobs, findable by worker without looking at foreign ones."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from broker_app.queue.job import Route, Worker

_Bucket = tuple[str | None, str | None]


class RouteIndex:
    """A set of routes, in buckets by named agent and first needed capability.

    A worker looks only into the buckets of its own name and capabilities: a route whose first need it lacks
    is never looked at, so foreign jobs cost it nothing, however many kinds of them there are.
    """

    def __init__(self) -> None:
        self._buckets: dict[_Bucket, set[Route]] = {}

    def add(self, route: Route) -> None:
        """Remember that the route has queued jobs."""
        self._buckets.setdefault(_bucket(route), set()).add(route)

    def discard(self, route: Route) -> None:
        """Forget a route that has none."""
        bucket = self._buckets.get(_bucket(route), set())
        bucket.discard(route)
        if not bucket:
            self._buckets.pop(_bucket(route), None)

    def clear(self) -> None:
        """Forget all."""
        self._buckets.clear()

    def open_to(self, worker: Worker) -> list[Route]:
        """The routes whose jobs the worker may run."""
        return [route for bucket in self._reachable(worker) for route in bucket if route.open_to(worker)]

    def _reachable(self, worker: Worker) -> Iterator[set[Route]]:
        agents = (None,) if worker.name is None else (None, worker.name)
        for agent in agents:
            for need in (None, *worker.capabilities):
                if bucket := self._buckets.get((agent, need)):
                    yield bucket


def _bucket(route: Route) -> _Bucket:
    return route.agent, min(route.needs, default=None)
