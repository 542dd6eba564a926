"""A store on a real database, and what runs it."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import pytest

from broker_app.database import Database
from broker_app.queue.queue import Queue
from broker_app.queue.sqlite import SqliteStore

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine
    from pathlib import Path

T = TypeVar("T")


class Clock:
    """A clock that goes when told to."""

    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


class Bench:
    """One queue, its store and database, with a fake clock."""

    def __init__(self, database: Database, store: SqliteStore, **limits: int) -> None:
        self.database = database
        self.store = store
        self.clock = Clock()
        self.queue = Queue(store, self.clock, **limits)


@pytest.fixture
def bench(tmp_path: Path) -> Callable[..., Any]:
    """Open a bench on this test's database: `async with bench() as b`."""

    @asynccontextmanager
    async def open_bench(**limits: int) -> AsyncIterator[Bench]:
        database = Database(tmp_path / "broker.db")
        try:
            yield Bench(database, await SqliteStore.open(database), **limits)
        finally:
            await database.close()

    return open_bench


@pytest.fixture
def run() -> Callable[[Coroutine[Any, Any, T]], T]:
    """Run a coroutine, for ten seconds at most."""

    def run_bounded(work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run(asyncio.wait_for(work, 10))

    return run_bounded
