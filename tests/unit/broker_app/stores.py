"""Where each implementation of the store keeps its jobs, as far as the suite for all of them must know."""

from __future__ import annotations

import shutil
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Protocol

from broker_app.database import Database
from broker_app.queue.sqlite import SqliteStore

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import AsyncIterator
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path

    from broker_app.queue.store import Store


class Place(Protocol):
    """One store's jobs, whether it is open or not."""

    def __init__(self, folder: Path) -> None: ...

    def open(self) -> AbstractAsyncContextManager[Store]:
        """The store. One at a time."""

    def after_a_power_cut(self) -> Place:
        """What would be there if the machine lost its power now, with a store open: a place of its own."""

    async def spoil(self, store: Store) -> None:
        """Let whatever is below the open store fail from now on."""


class SqlitePlace:
    """One file, and its log."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(exist_ok=True)
        self._path = folder / "broker.db"

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Store]:
        """See `Place`."""
        database = Database(self._path)
        try:
            yield await SqliteStore.open(database)
        finally:
            await database.close()

    def after_a_power_cut(self) -> Place:
        """See `Place`: a copy of the files. That they are on disk is seen where the database's commits are tested."""
        copy = SqlitePlace(self._path.parent / "copy")
        for end in ("", "-wal"):
            shutil.copy(f"{self._path}{end}", f"{copy._path}{end}")
        return copy

    async def spoil(self, store: Store) -> None:
        """See `Place`."""
        assert isinstance(store, SqliteStore)

        def spoil(connection: sqlite3.Connection) -> None:
            for table in ("jobs", "events", "pause"):
                connection.execute(f"ALTER TABLE {table} RENAME TO no_{table}")

        await store._database.write(spoil)


PLACES: dict[str, type[Place]] = {"sqlite": SqlitePlace}
