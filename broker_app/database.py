"""One SQLite file: its schema, and group commit through one writer.

One thread owns the one connection that writes. It drains every waiting operation into one transaction and
answers after the commit, so many callers share one fdatasync. A transaction with a durable operation in it
commits at synchronous=FULL; one without (claims, renewals) leaves the sync to the next durable one, which
syncs the whole log. The log is never truncated: overwriting it in place is cheaper than appending.
"""

from __future__ import annotations

import asyncio
import fcntl
import logging
import os
import queue
import sqlite3
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from broker_app.errors import BrokerError, DamagedError, DatabaseError, StorageFailedError, StorageFullError
from broker_app.schema import connect, is_damage

if TYPE_CHECKING:
    from pathlib import Path

_LOG = logging.getLogger(__name__)
_MAX_BATCH = 256
_IDLE_SECONDS = 0.5
_CHECKPOINT_AFTER = 1000

T = TypeVar("T")
Operation = Callable[[sqlite3.Connection], T]


@dataclass(slots=True)
class _Write:
    operation: Operation[Any]
    durable: bool
    announce: Callable[[Any], None] | None
    future: asyncio.Future[Any]
    result: Any = None
    error: Exception | None = None


class Database:
    """The open database of a running broker. Create it on the event loop that will use it.

    Once it was found damaged no write is accepted: what is acknowledged later could be lost by its restoring.

    Raises:
        DatabaseError: The file is foreign, newer, unreadable, or served by another broker.
    """

    def __init__(self, path: Path) -> None:
        self._loop = asyncio.get_running_loop()
        self._path = path
        self._damage = ""
        self._lock = _lock(path)
        try:
            self._writer = connect(path)
            self._reader = connect(path)
        except DatabaseError:
            os.close(self._lock)
            raise
        self._reader.execute("PRAGMA query_only=ON")
        self._waiting: list[_Write] = []
        self._writes: queue.SimpleQueue[list[_Write]] = queue.SimpleQueue()
        self._rollback_listeners: list[Operation[None]] = []
        self._rolled_back = False
        self._synchronous = ""
        self._uncheckpointed = 0
        self._read_pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="reader")
        self._thread = threading.Thread(target=self._run, name="writer", daemon=True)
        self._thread.start()

    def on_rollback(self, listener: Operation[None]) -> None:
        """Have a function called in the first transaction after a rollback, to read anew what it remembers."""
        self._rollback_listeners.append(listener)

    def write(
        self, operation: Operation[T], *, durable: bool = True, announce: Callable[[T], None] | None = None
    ) -> asyncio.Future[T]:
        """Run an operation in the next transaction; the future is done after the commit.

        An operation that raises must not have changed anything; its neighbours are committed all the same. What it
        returned is announced first, on the event loop, also when nobody waits for the future any more.
        """
        future: asyncio.Future[T] = self._loop.create_future()
        self._waiting.append(_Write(operation, durable, announce, future))
        if len(self._waiting) == 1:
            # The writer is woken once for all that this turn of the loop writes: they share a commit.
            self._loop.call_soon(self._hand_over)
        return future

    async def read(self, operation: Operation[T]) -> T:
        """Run a query on the connection for reads: it sees everything committed before the call."""
        return await self._loop.run_in_executor(self._read_pool, self._read, operation)

    async def close(self) -> None:
        """Commit what is waiting, then close."""
        self._hand_over()
        self._writes.put([])
        await self._loop.run_in_executor(None, self._thread.join)
        self._read_pool.shutdown()
        self._reader.close()
        self._writer.close()
        os.close(self._lock)

    def _hand_over(self) -> None:
        if self._waiting:
            self._writes.put(self._waiting)
            self._waiting = []

    def _answer(self, batch: list[_Write]) -> None:
        for write in batch:
            if write.announce is not None and write.error is None:
                self._loop.call_soon(write.announce, write.result)
            if write.future.done():
                continue
            if write.error is not None:
                write.future.set_exception(write.error)
            else:
                write.future.set_result(write.result)

    def _read(self, operation: Operation[T]) -> T:
        try:
            return operation(self._reader)
        except (sqlite3.Error, UnicodeDecodeError) as error:
            raise self._translated(error) from error

    def _run(self) -> None:
        while batch := self._next_batch():
            self._commit(batch)
            self._loop.call_soon_threadsafe(self._answer, batch)

    def _next_batch(self) -> list[_Write]:
        batch = self._wait()
        while batch and len(batch) < _MAX_BATCH and not self._writes.empty():
            more = self._writes.get()
            if not more:
                self._writes.put(more)
                break
            batch += more
        return batch

    def _wait(self) -> list[_Write]:
        """What waits to be written, nothing when there will be no more."""
        if self._uncheckpointed < _CHECKPOINT_AFTER:
            return self._writes.get()
        try:
            return self._writes.get(timeout=_IDLE_SECONDS)
        except queue.Empty:
            self._checkpoint()
            return self._writes.get()

    def _checkpoint(self) -> None:
        self._uncheckpointed = 0
        try:
            self._writer.execute("PRAGMA wal_checkpoint(PASSIVE)")
        except sqlite3.Error as error:
            _LOG.warning("checkpoint failed, it will be tried again: %s", error)

    def _commit(self, batch: list[_Write]) -> None:
        """Commit the batch as one transaction or, when that fails, each of its operations as its own."""
        try:
            if self._damage:
                raise sqlite3.DatabaseError(self._damage)
            self._transact(batch)
        except Exception as error:
            self._roll_back()
            if len(batch) > 1 and not self._damage and not _is_busy(error):
                for write in batch:
                    self._commit([write])
                return
            for write in batch:
                write.error = self._translated(error)
        self._uncheckpointed += len(batch)

    def _transact(self, batch: list[_Write]) -> None:
        self._synchronise("FULL" if any(write.durable for write in batch) else "NORMAL")
        self._writer.execute("BEGIN IMMEDIATE")
        if self._rolled_back:
            for recall in self._rollback_listeners:
                recall(self._writer)
            self._rolled_back = False
        for write in batch:
            write.error = None
            try:
                write.result = write.operation(self._writer)
            except BrokerError as refusal:
                write.error = refusal
        self._writer.execute("COMMIT")

    def _synchronise(self, level: str) -> None:
        if level != self._synchronous:
            self._writer.execute(f"PRAGMA synchronous={level}")
            self._synchronous = level

    def _roll_back(self) -> None:
        self._rolled_back = True
        try:
            if self._writer.in_transaction:
                self._writer.execute("ROLLBACK")
        except sqlite3.Error as error:
            _LOG.error("rollback failed: %s", error)

    def _translated(self, error: Exception) -> Exception:
        if is_damage(error):
            return self._damaged(error)
        if not isinstance(error, sqlite3.Error):
            return error
        if getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL:
            return StorageFullError("no room left for the database")
        return StorageFailedError(f"the database failed: {error}")

    def _damaged(self, error: Exception) -> DamagedError:
        damaged = DamagedError(self._path, error)
        if not self._damage:
            self._damage = str(error)
            _LOG.critical("%s; no write is accepted until then", damaged)
        return damaged


def _is_busy(error: Exception) -> bool:
    """Whether another process holds the file: each further try would wait as long again."""
    return getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_BUSY


def _lock(path: Path) -> int:
    """Hold the database for this process: what the store remembers is true for one writer only."""
    lock = path.with_name(path.name + ".lock")
    try:
        descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise DatabaseError(f"cannot open {lock} ({error.strerror}): check BROKER_DB") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        raise DatabaseError(f"another broker serves {path}; stop it first") from error
    return descriptor
