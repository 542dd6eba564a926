"""Group commit, its durability, and opening the file."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

from broker_app import database as database_module
from broker_app import schema
from broker_app.database import Database
from broker_app.errors import (
    DatabaseError,
    JobNotFoundError,
    StorageFailedError,
    StorageFullError,
)
from broker_app.schema import APPLICATION_ID, VERSION, connect

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

INSERT = "INSERT INTO agents (name, last_seen, capabilities) VALUES (?, 0, '[]')"


def insert(name: str) -> Callable[[sqlite3.Connection], None]:
    def operation(connection: sqlite3.Connection) -> None:
        connection.execute(INSERT, (name,))

    return operation


def names(connection: sqlite3.Connection) -> set[str]:
    return {row[0] for row in connection.execute("SELECT name FROM agents")}


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 5
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


class Traced:
    """A database whose writer's statements are noted, and which can be held up."""

    def __init__(self, path: Path) -> None:
        self.database = Database(path)
        self.statements: list[str] = []
        self.gate = threading.Event()

    async def __aenter__(self) -> Traced:
        def trace(connection: sqlite3.Connection) -> None:
            connection.set_trace_callback(self.statements.append)

        await self.database.write(trace, durable=False)
        self.statements.clear()
        return self

    async def __aexit__(self, *_: object) -> None:
        self.gate.set()
        await self.database.close()

    def hold(self) -> asyncio.Future[Any]:
        """Keep the writer busy until the gate opens: what comes meanwhile waits together."""
        return self.database.write(lambda _: self.gate.wait(5), durable=False)

    def count(self, statement: str) -> int:
        return sum(noted.startswith(statement) for noted in self.statements)


def test_many_writes_share_one_commit(tmp_path: Path, run: Callable[[Any], Any]) -> None:
    async def work() -> None:
        async with Traced(tmp_path / "db") as traced:
            held = traced.hold()
            writes = [traced.database.write(insert(f"a{n}")) for n in range(200)]
            traced.gate.set()
            await asyncio.gather(held, *writes)
            assert traced.count("INSERT") == 200
            assert traced.count("COMMIT") <= 3
            assert len(await traced.database.read(names)) == 200

    run(work())


def slowly(database: Database, count: int) -> list[asyncio.Future[None]]:
    """Write in one turn of the loop, with time for the writer between."""
    writes = []
    for n in range(count):
        writes.append(database.write(insert(f"a{n}")))
        time.sleep(0.02)
    return writes


def test_what_is_written_in_one_turn_of_the_loop_is_one_commit(tmp_path: Path, run: Callable[[Any], Any]) -> None:
    async def work() -> None:
        async with Traced(tmp_path / "db") as traced:
            await asyncio.gather(*slowly(traced.database, 3))
            assert (traced.count("INSERT"), traced.count("COMMIT")) == (3, 1)

    run(work())


def test_a_write_is_announced_once_it_is_committed_though_nobody_waits_for_it(
    tmp_path: Path, run: Callable[[Any], Any]
) -> None:
    async def work() -> None:
        async with Traced(tmp_path / "db") as traced:
            announced: list[object] = []
            gone = traced.database.write(insert("a"), announce=announced.append)
            gone.cancel()
            with pytest.raises(ZeroDivisionError):
                await traced.database.write(lambda _: 1 // 0, announce=announced.append)
            await traced.database.write(names, announce=announced.append)
            assert announced == [None, {"a"}]

    run(work())


@pytest.mark.parametrize("durable", [True, False])
def test_a_durable_write_commits_at_full_and_another_need_not(
    tmp_path: Path, run: Callable[[Any], Any], durable: bool
) -> None:
    def level(connection: sqlite3.Connection) -> int:
        return int(connection.execute("PRAGMA synchronous").fetchone()[0])

    async def work() -> None:
        async with Traced(tmp_path / "db") as traced:
            assert await traced.database.write(level, durable=durable) == (2 if durable else 1)
            held = traced.hold()
            mixed = [traced.database.write(level, durable=flag) for flag in (False, durable, False)]
            traced.gate.set()
            await held
            assert set(await asyncio.gather(*mixed)) <= ({2} if durable else {1})
            assert await traced.database.write(level) == 2

    run(work())


def test_an_answer_comes_after_its_commit(tmp_path: Path, run: Callable[[Any], Any]) -> None:
    async def work() -> None:
        async with Traced(tmp_path / "db") as traced:
            for n in range(50):
                await traced.database.write(insert(f"a{n}"))
                other = sqlite3.connect(tmp_path / "db")
                assert f"a{n}" in names(other)
                other.close()

    run(work())


def test_a_refusal_concerns_its_own_caller_only(tmp_path: Path, run: Callable[[Any], Any]) -> None:
    def refuse(_: sqlite3.Connection) -> None:
        raise JobNotFoundError

    async def work() -> None:
        async with Traced(tmp_path / "db") as traced:
            held = traced.hold()
            writes = [traced.database.write(operation) for operation in (insert("a"), refuse, insert("b"))]
            traced.gate.set()
            await held
            results = await asyncio.gather(*writes, return_exceptions=True)
            assert [type(result) for result in results] == [type(None), JobNotFoundError, type(None)]
            assert await traced.database.read(names) == {"a", "b"}

    run(work())


@pytest.mark.parametrize("poison", [ValueError, sqlite3.IntegrityError, OverflowError])
def test_a_failing_write_does_not_fail_its_neighbours(
    tmp_path: Path, run: Callable[[Any], Any], poison: type[Exception]
) -> None:
    def fail(connection: sqlite3.Connection) -> None:
        connection.execute(INSERT, ("half done",))
        raise poison("poison")

    async def work() -> None:
        async with Traced(tmp_path / "db") as traced:
            recalled: list[bool] = []
            traced.database.on_rollback(lambda connection: recalled.append("half done" in names(connection)))
            held = traced.hold()
            writes = [traced.database.write(operation) for operation in (insert("a"), fail, insert("b"))]
            traced.gate.set()
            await held
            results = await asyncio.gather(*writes, return_exceptions=True)
            expected = StorageFailedError if poison is sqlite3.IntegrityError else poison
            assert [type(result) for result in results] == [type(None), expected, type(None)]
            assert await traced.database.read(names) == {"a", "b"}
            assert recalled
            assert not any(recalled)

    run(work())


def test_a_full_disk_is_told_apart_and_survived(tmp_path: Path, run: Callable[[Any], Any]) -> None:
    def pages(limit: int) -> Callable[[sqlite3.Connection], None]:
        def operation(connection: sqlite3.Connection) -> None:
            connection.execute(f"PRAGMA max_page_count={limit}")

        return operation

    async def work() -> None:
        async with Traced(tmp_path / "db") as traced:
            await traced.database.write(pages(1))
            with pytest.raises(StorageFullError):
                await traced.database.write(insert("x" * 100_000))
            await traced.database.write(pages(100_000))
            await traced.database.write(insert("y" * 100_000))
            assert await traced.database.read(names) == {"y" * 100_000}

    run(work())


def test_a_file_held_by_another_process_costs_one_wait_for_all(
    tmp_path: Path, run: Callable[[Any], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(schema, "_BUSY_SECONDS", 0.3)

    async def work() -> None:
        async with Traced(tmp_path / "db") as traced:
            other = sqlite3.connect(tmp_path / "db", isolation_level=None)
            other.execute("BEGIN IMMEDIATE")
            began = time.monotonic()
            writes = (traced.database.write(insert(f"a{n}")) for n in range(20))
            results = await asyncio.gather(*writes, return_exceptions=True)
            assert {type(result) for result in results} == {StorageFailedError}
            assert time.monotonic() - began < 2
            other.execute("ROLLBACK")
            other.close()
            await traced.database.write(insert("b"))
            assert await traced.database.read(names) == {"b"}

    run(work())


def test_the_log_is_carried_over_in_idle_time_and_not_truncated(
    tmp_path: Path, run: Callable[[Any], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database_module, "_CHECKPOINT_AFTER", 5)
    monkeypatch.setattr(database_module, "_IDLE_SECONDS", 0.05)
    log = tmp_path / "db-wal"

    async def work() -> None:
        async with Traced(tmp_path / "db") as traced:
            for n in range(10):
                await traced.database.write(insert(f"a{n}"))
            size = log.stat().st_size
            await asyncio.to_thread(until, lambda: traced.count("PRAGMA wal_checkpoint") > 0)
            await traced.database.write(insert("b"))
            assert log.stat().st_size == size > 0
            (tmp_path / "copy").write_bytes((tmp_path / "db").read_bytes())
            copy = connect(tmp_path / "copy")
            assert names(copy) == {f"a{n}" for n in range(10)}
            copy.close()

    run(work())


def test_reads_cannot_write(tmp_path: Path, run: Callable[[Any], Any]) -> None:
    async def work() -> None:
        async with Traced(tmp_path / "db") as traced:
            with pytest.raises(StorageFailedError):
                await traced.database.read(insert("a"))

    run(work())


def test_closing_commits_what_waits(tmp_path: Path, run: Callable[[Any], Any]) -> None:
    async def work() -> None:
        database = Database(tmp_path / "db")
        writes = [database.write(insert(f"a{n}")) for n in range(300)]
        await database.close()
        await asyncio.gather(*writes)

    run(work())
    connection = connect(tmp_path / "db")
    assert len(names(connection)) == 300
    connection.close()


def test_one_process_at_a_time(tmp_path: Path, run: Callable[[Any], Any]) -> None:
    async def work() -> None:
        database = Database(tmp_path / "db")
        with pytest.raises(DatabaseError, match="another broker serves"):
            Database(tmp_path / "db")
        await database.close()
        await Database(tmp_path / "db").close()

    run(work())


def foreign(path: Path, *statements: str) -> None:
    connection = sqlite3.connect(path)
    for statement in statements:
        connection.execute(statement)
    connection.close()


@pytest.mark.parametrize(
    ("statements", "message"),
    [
        (["CREATE TABLE jobs (id TEXT PRIMARY KEY)"], "is not a database of this broker"),
        (["PRAGMA application_id=5"], "is not a database of this broker"),
        (["PRAGMA user_version=1"], "is not a database of this broker"),
        (
            [f"PRAGMA application_id={APPLICATION_ID}", f"PRAGMA user_version={VERSION + 1}"],
            f"schema version {VERSION + 1}",
        ),
    ],
)
def test_a_foreign_or_newer_file_is_refused_untouched(tmp_path: Path, statements: list[str], message: str) -> None:
    path = tmp_path / "db"
    foreign(path, *statements)
    before = path.read_bytes()
    with pytest.raises(DatabaseError, match=message):
        connect(path)
    assert path.read_bytes() == before


def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "db"
    path.write_bytes(b"no database " * 1000)
    with pytest.raises(DatabaseError, match="BROKER_DB"):
        connect(path)
    with pytest.raises(DatabaseError, match="BROKER_DB"):
        connect(tmp_path / "nowhere" / "db")


def test_the_file_says_what_it_is(tmp_path: Path) -> None:
    connection = connect(tmp_path / "db")
    pragmas = {name: connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("user_version", "journal_mode")}
    connection.close()
    assert pragmas == {"user_version": VERSION, "journal_mode": "wal"}
