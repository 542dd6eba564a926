"""Files of older and of newer versions. Those of older ones are as their brokers wrote them: version_1.sql, …"""

from __future__ import annotations

import os
import resource
import sqlite3
import subprocess
import sys
import threading
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from broker_app import schema
from broker_app.agents import Agent, Agents, Role
from broker_app.auth import Authenticator, Principal
from broker_app.database import Database
from broker_app.errors import DatabaseError
from broker_app.messages import Messages
from broker_app.queue.job import Lease, Worker
from broker_app.queue.queue import Queue
from broker_app.queue.sqlite import SqliteStore
from broker_app.schema import APPLICATION_ID, VERSION, connect, copy_of, verify

if TYPE_CHECKING:
    from collections.abc import Callable

OLDER = range(1, VERSION)
EVERY_OLDER = pytest.mark.parametrize("version", OLDER)
# When those files were left.
NOW = 1067.5

Rows = list[dict[str, Any]]


def left_by(version: int, path: Path) -> Path:
    """A file as the last broker of that version left it: with agents, tokens, messages and jobs in every state."""
    script = Path(__file__).with_name(f"version_{version}.sql").read_text(encoding="utf-8")
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(script)
    return path


def content(path: Path) -> dict[str, Rows]:
    """The rows of every table."""
    with closing(sqlite3.connect(path)) as connection:
        connection.row_factory = sqlite3.Row
        query = "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%' ORDER BY name"
        tables = [row["name"] for row in connection.execute(query)]
        return {table: [dict(row) for row in connection.execute(f"SELECT * FROM {table}")] for table in tables}  # noqa: S608


def schema_of(path: Path) -> tuple[int, dict[str, str]]:
    with closing(sqlite3.connect(path)) as connection:
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        return version, dict(connection.execute("SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL").fetchall())


def keeps(before: dict[str, Rows], after: dict[str, Rows]) -> bool:
    """Whether every row is still there, and its columns say what they said."""
    return all(
        [{column: new.get(column) for column in old} for old, new in zip(rows, after[table], strict=True)] == rows
        for table, rows in before.items()
    )


@EVERY_OLDER
def test_an_older_file_is_brought_to_this_version_with_all_that_is_in_it(tmp_path: Path, version: int) -> None:
    path = left_by(version, tmp_path / "db")
    before = content(path)
    connect(path).close()
    connect(tmp_path / "fresh").close()
    assert schema_of(path) == schema_of(tmp_path / "fresh")
    assert keeps(before, content(path))
    verify(path)


@EVERY_OLDER
def test_a_step_that_was_released_is_not_changed(tmp_path: Path, version: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schema, "_STEPS", schema._STEPS[:version])
    monkeypatch.setattr(schema, "VERSION", version)
    connect(tmp_path / "fresh").close()
    assert schema_of(left_by(version, tmp_path / "db")) == schema_of(tmp_path / "fresh")


@EVERY_OLDER
def test_what_was_left_in_an_older_file_goes_on(tmp_path: Path, run: Callable[[Any], Any], version: int) -> None:
    path = left_by(version, tmp_path / "db")
    able = frozenset("ax")
    now = NOW

    async def work() -> None:
        nonlocal now
        database = Database(path)
        queue = Queue(await SqliteStore.open(database), lambda: now)
        assert (await queue.look("done")).result == "pong: é 日本"
        assert (await queue.look("failed")).error == "e"
        await queue.finish("running", Lease("w1", 1), "r")
        await queue.finish("running nameless", Lease(None, 1), "r")
        assert (await queue.requeue("dead")).ready
        claimed = [job for _ in range(5) if (job := await queue.claim(Worker("w2", able)))]
        assert [(job.id, job.attempts, job.lease_epoch) for job in claimed] == [
            ("dead", 1, 2),
            ("given back", 1, 2),
            ("queued", 1, 1),
            ("for an agent", 1, 1),
        ]
        for job in claimed:
            await queue.finish(job.id, Lease("w2", job.lease_epoch), "r")
        if version > 1:
            assert (await queue.look("cancelled")).outcome == "cancelled"
            now = 1181.0
            await queue.reclaim()
            put_off = await queue.claim(Worker("w2"))
            assert put_off is not None
            assert (put_off.id, put_off.dialect, put_off.attempts) == ("put off", "tasks", 2)
        await database.close()

    run(work())


@EVERY_OLDER
def test_who_was_known_to_an_older_file_is_known(tmp_path: Path, run: Callable[[Any], Any], version: int) -> None:
    path = left_by(version, tmp_path / "db")
    principals = {1: [Principal(Role.WORKER, "w1"), Principal(Role.BOT, "ui")]}
    principals[2] = [Principal(Role.WORKER, "new"), *principals[1], Principal(Role.ADMIN, "root")]
    w1 = {"runner_version": "1.2", "capabilities": ("x", "y")}
    agents = {1: [Agent(name="w1", last_seen=1066.5, **w1)]}  # type: ignore[arg-type]
    agents[2] = [
        Agent(name="new", type="vm", capabilities=("gpu",), metadata={"zone": "a"}, cordoned=True),
        Agent(name="w1", last_seen=NOW, health={"cpu": 0.5}, health_at=NOW, **w1),  # type: ignore[arg-type]
    ]

    async def work() -> None:
        database = Database(path)
        auth, known = Authenticator(database, ()), Agents(database, lambda: NOW)
        for number, principal in enumerate(principals[version], 1):
            assert await auth.find(principal.role, f"{number:064x}") == principal
        await known.load()
        assert await known.known() == agents[version]
        if version > 1:
            waiting = await Messages(database, lambda: NOW).waiting("new", 9)
            assert [message.envelope for message in waiting] == ['{"text":"waiting é"}']
        await database.close()

    run(work())


@EVERY_OLDER
def test_an_older_file_is_copied_as_it_was_for_its_owner_only(tmp_path: Path, version: int) -> None:
    path = left_by(version, tmp_path / "db")
    before = schema_of(path), content(path)
    os.umask(0)
    connect(path).close()
    copy = copy_of(path, version)
    assert copy == tmp_path / f"db.schema-{version}.bak"
    assert (schema_of(copy), content(copy)) == before
    assert copy.stat().st_mode & 0o777 == 0o600
    assert {file.name for file in tmp_path.iterdir()} == {"db", copy.name}


def test_a_copy_has_what_another_broker_wrote_last(tmp_path: Path) -> None:
    path = left_by(2, tmp_path / "db")
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("UPDATE jobs SET payload = 'only in the log' WHERE id = 'queued'")
        connect(path).close()
    rows = content(copy_of(path, 2))["jobs"]
    assert {row["id"]: row["payload"] for row in rows}["queued"] == "only in the log"


def test_a_copy_is_whole_on_disk_before_the_first_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = left_by(2, tmp_path / "db")
    monkeypatch.setattr(schema, "_STEPS", ("", "", "DROP INDEX nowhere;\n"))
    synchronised: list[str] = []
    monkeypatch.setattr(
        os, "fsync", lambda descriptor: synchronised.append(str(Path(f"/proc/self/fd/{descriptor}").readlink()))
    )
    with pytest.raises(DatabaseError, match="no such index"):
        connect(path)
    assert synchronised == [f"{path}.part", str(tmp_path)]
    assert schema_of(copy_of(path, 2)) == schema_of(path)


def test_of_each_version_the_last_copy_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "db"
    for version, marks in ((1, "a"), (2, "b"), (2, "c")):
        path.unlink(missing_ok=True)
        with closing(sqlite3.connect(left_by(version, path), isolation_level=None)) as connection:
            connection.execute("UPDATE jobs SET payload = ?", (marks,))
        connect(path).close()
    copies = {file.name: content(file)["jobs"][0]["payload"] for file in tmp_path.glob("*.bak")}
    assert copies == {"db.schema-1.bak": "a", "db.schema-2.bak": "c"}


def test_a_new_file_and_one_of_this_version_are_not_copied(tmp_path: Path) -> None:
    for _ in range(2):
        connect(tmp_path / "db").close()
    assert [file.name for file in tmp_path.iterdir()] == ["db"]


def test_without_room_for_the_copy_the_file_stays_as_it_was(tmp_path: Path) -> None:
    path = left_by(2, tmp_path / "db")
    before = schema_of(path), content(path)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size // 2, limits[1]))
    try:
        with pytest.raises(DatabaseError, match=rf"cannot copy {path} to {path}.schema-2.bak .*make room"):
            connect(path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert (schema_of(path), content(path)) == before
    assert [file.name for file in tmp_path.iterdir()] == ["db"]


def test_a_copy_that_is_put_back_is_brought_forward_again(tmp_path: Path) -> None:
    path = left_by(2, tmp_path / "db")
    before = content(path)
    connect(path).close()
    copy_of(path, 2).replace(path)
    connect(path).close()
    assert schema_of(path)[0] == VERSION
    assert keeps(before, content(path))


def test_a_file_that_was_put_back_is_written_ahead_like_any(tmp_path: Path) -> None:
    connect(tmp_path / "db").close()
    with closing(sqlite3.connect(tmp_path / "db")) as connection:
        connection.execute("PRAGMA journal_mode=DELETE")
    with closing(connect(tmp_path / "db")) as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone()[0] == "wal"


@EVERY_OLDER
def test_killed_at_any_step_it_leaves_the_old_version_or_the_new_one(tmp_path: Path, version: int) -> None:
    source = left_by(version, tmp_path / "db")
    before, old = content(source), schema_of(source)
    folder = tmp_path / "killed"
    folder.mkdir()
    command = [sys.executable, "-m", "tests.unit.broker_app.interrupted", str(source), str(folder)]
    subprocess.run(command, check=True, timeout=60, cwd=Path(__file__).parents[3])
    versions = []
    for steps in range(len(list(folder.iterdir()))):
        path = folder / str(steps) / "db"
        state = schema_of(path)
        versions.append(state[0])
        if state[0] == version:
            assert (state, content(path)) == (old, before)
        connect(path).close()
        verify(path)
        assert schema_of(path)[0] == VERSION
        assert keeps(before, content(path))
        assert (schema_of(copy_of(path, version)), content(copy_of(path, version))) == (old, before)
        assert {file.name for file in path.parent.iterdir()} == {"db", copy_of(path, version).name}
    assert versions == sorted(versions)
    assert {versions.count(version) > 20, versions.count(VERSION) >= 1, set(versions) == {version, VERSION}} == {True}


def test_a_step_that_fails_leaves_the_file_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = left_by(1, tmp_path / "db")
    before = schema_of(path), content(path)
    monkeypatch.setattr(schema, "_STEPS", ("", "ALTER TABLE jobs ADD COLUMN x TEXT;\nDROP INDEX nowhere;\n"))
    with pytest.raises(DatabaseError, match="no such index"):
        connect(path)
    assert (schema_of(path), content(path)) == before


def test_several_who_open_an_old_file_at_once_copy_it_and_bring_it_forward_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = left_by(1, tmp_path / "db")
    errors: list[Exception] = []
    copies: list[Path] = []
    keep_copy = schema._keep_copy

    def counted(path: Path, version: int) -> None:
        copies.append(path)
        keep_copy(path, version)

    monkeypatch.setattr(schema, "_keep_copy", counted)

    def open_it() -> None:
        try:
            connect(path).close()
        except DatabaseError as error:
            errors.append(error)

    threads = [threading.Thread(target=open_it) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (errors, copies) == ([], [path])


@EVERY_OLDER
def test_a_look_at_an_older_file_leaves_it_as_it_is(tmp_path: Path, version: int) -> None:
    path = left_by(version, tmp_path / "db")
    verify(path)
    assert schema_of(path)[0] == version


def test_a_newer_file_is_refused_with_the_ways_out(tmp_path: Path) -> None:
    path = tmp_path / "db"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(f"PRAGMA application_id={APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version={VERSION + 1}")
    refused = f"{path} has schema version {VERSION + 1}, this broker knows up to {VERSION}; install the newer broker"
    with pytest.raises(DatabaseError) as error:
        connect(path)
    assert str(error.value) == refused
    copy = copy_of(path, VERSION)
    copy.touch()
    with pytest.raises(DatabaseError) as error:
        connect(path)
    assert str(error.value) == f"{refused}, or put back {copy}, which lacks what came later"
