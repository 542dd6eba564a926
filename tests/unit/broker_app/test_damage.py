"""A database file with something else in it than the broker wrote: at the start, under a running broker, in a check."""

from __future__ import annotations

import asyncio
import logging
import random
import shutil
import sqlite3
from contextlib import asynccontextmanager, closing
from typing import TYPE_CHECKING, Any, NamedTuple

import httpx
import pytest

from broker_app.__main__ import main
from broker_app.app import build_app
from broker_app.broker import open_broker
from broker_app.errors import DamagedError, DatabaseError
from broker_app.schema import connect, verify
from broker_app.settings import Settings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

PAGE, SECTOR = 4096, 512
BOT, WORKER = {"X-Bot-Token": "b"}, {"X-Worker-Token": "w", "X-Worker-Id": "w1"}
HINT = 'docs/operations.md says under "When the database is damaged"'


def settings_of(path: Path) -> Settings:
    return Settings.from_environment({"BROKER_DB": str(path), "BOT_TOKEN": "b", "WORKER_TOKEN": "w"})


class Used(NamedTuple):
    """A database that was in use, and some of its jobs."""

    path: Path
    ids: list[str]


@asynccontextmanager
async def serving(path: Path) -> AsyncIterator[httpx.AsyncClient]:
    """A broker on that file, which keeps next to nothing of it in memory."""

    def forget(connection: sqlite3.Connection) -> None:
        connection.execute("PRAGMA cache_size=1")

    settings = settings_of(path)
    async with open_broker(settings) as broker:
        await broker.agents._database.write(forget, durable=False)
        await broker.agents._database.read(forget)
        transport = httpx.ASGITransport(build_app(broker, settings, ts_bound=True), raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://broker") as client:
            yield client


async def use(client: httpx.AsyncClient, ids: list[str]) -> list[httpx.Response]:
    """One call of each kind; the jobs of the ids are in every state."""
    answers = [
        await client.get("/health"),
        await client.get("/metrics"),
        await client.post("/jobs", headers=BOT, json={"command": "ping", "payload": "p", "idempotency_key": "k"}),
        await client.get("/jobs?limit=200", headers=BOT),
        await client.get("/jobs?outcome=dead", headers=BOT),
        await client.get("/jobs?status=failed&agent=w1", headers=BOT),
        await client.get("/queue", headers=BOT),
    ]
    answers += [await client.get(f"/jobs/{job}", headers=BOT) for job in ids]
    answers += [await client.get(f"/jobs/{job}/events", headers=BOT) for job in ids[:3]]
    claimed = await client.get("/jobs/next", headers=WORKER)
    answers.append(claimed)
    if claimed.status_code == 200 and (job := claimed.json()["job"]):
        answers.append(await client.post(f"/jobs/{job['id']}/log", headers=WORKER, json={"text": "t", "offset": 0}))
        answers.append(await client.post(f"/jobs/{job['id']}/result", headers=WORKER, json={"result": "r"}))
    return answers


@pytest.fixture(scope="module")
def used(tmp_path_factory: pytest.TempPathFactory) -> Used:
    path = tmp_path_factory.mktemp("used") / "broker.db"
    ids: list[str] = []

    async def work() -> None:
        async with serving(path) as client:
            orders = [{"command": "ping", "payload": "p" * 300, "max_deliveries": 1} for _ in range(60)]
            batch = await client.post("/jobs/batch", headers=BOT, json={"jobs": orders})
            ids.extend(job["id"] for job in batch.json()["jobs"])
            for number, job in enumerate(ids[:30]):
                await client.get("/jobs/next", headers=WORKER)
                await client.post(f"/jobs/{job}/log", headers=WORKER, json={"text": "t" * 200, "offset": 0})
                if number % 3:
                    way, body = ("result", {"result": "r"}) if number % 2 else ("fail", {"error": "e"})
                    await client.post(f"/jobs/{job}/{way}", headers=WORKER, json=body)

    asyncio.run(work())
    return Used(path, ids[::7])


def zeros(_: bytes, __: random.Random) -> bytes:
    return bytes(PAGE)


def noise(_: bytes, chance: random.Random) -> bytes:
    return chance.randbytes(PAGE)


def noisy_sector(page: bytes, chance: random.Random) -> bytes:
    at = SECTOR * chance.randrange(PAGE // SECTOR)
    return page[:at] + chance.randbytes(SECTOR) + page[at + SECTOR :]


def empty_sector(page: bytes, chance: random.Random) -> bytes:
    at = SECTOR * chance.randrange(PAGE // SECTOR)
    return page[:at] + bytes(SECTOR) + page[at + SECTOR :]


def overwrite(path: Path, number: int, change: Callable[[bytes, random.Random], bytes], chance: random.Random) -> None:
    with path.open("r+b") as file:
        file.seek(number * PAGE)
        page = change(file.read(PAGE), chance)
        file.seek(number * PAGE)
        file.write(page)


OVERWRITTEN = pytest.mark.parametrize("change", [zeros, noise, noisy_sector, empty_sector])


@OVERWRITTEN
def test_whatever_is_overwritten_under_a_running_broker_it_answers_with_words_and_tells_its_log(
    used: Used,
    tmp_path: Path,
    run: Callable[[Any], Any],
    caplog: pytest.LogCaptureFixture,
    change: Callable[[bytes, random.Random], bytes],
) -> None:
    path, chance = tmp_path / "broker.db", random.Random(7)
    pages = used.path.stat().st_size // PAGE
    noticed = 0

    async def work(number: int) -> bool:
        shutil.copy(used.path, path)
        async with serving(path) as client:
            overwrite(path, number, change, chance)
            answers = await use(client, used.ids)
        path.unlink()
        told = [answer.status_code for answer in answers if answer.status_code >= 500]
        assert set(told) <= {503}
        return bool(told)

    for number in range(pages):
        caplog.clear()
        told = run(work(number))
        noticed += told
        logged = [record.getMessage() for record in caplog.records if record.levelno == logging.CRITICAL]
        # What nobody asked for is found when it is next written, at the end.
        assert told <= len(logged) <= 1
        assert all(str(path) in line and HINT in line for line in logged)
    assert noticed >= (pages // 2 if change in (zeros, noise) else 1)


def test_once_damage_was_seen_no_write_is_accepted_and_what_can_be_read_is(
    used: Used, tmp_path: Path, run: Callable[[Any], Any]
) -> None:
    path = tmp_path / "broker.db"
    shutil.copy(used.path, path)
    with closing(sqlite3.connect(path)) as connection:
        (root,) = connection.execute("SELECT rootpage FROM sqlite_master WHERE name = 'events_of_job'").fetchone()

    async def work() -> None:
        async with serving(path) as client:
            order = {"command": "ping"}
            overwrite(path, root - 1, zeros, random.Random())
            assert (await client.post("/jobs", headers=BOT, json=order)).status_code == 200
            assert (await client.get(f"/jobs/{used.ids[0]}/events", headers=BOT)).status_code == 503
            refused = await client.post("/jobs", headers=BOT, json=order)
            assert refused.status_code == 503
            assert HINT.replace('"', '\\"') in refused.text
            assert "retry-after" in refused.headers
            assert (await client.get(f"/jobs/{used.ids[0]}", headers=BOT)).status_code == 200

    run(work())


@OVERWRITTEN
def test_whatever_is_overwritten_a_broker_starts_or_says_what_to_do(
    used: Used, tmp_path: Path, run: Callable[[Any], Any], change: Callable[[bytes, random.Random], bytes]
) -> None:
    path, chance = tmp_path / "broker.db", random.Random(7)
    refused = []

    async def start() -> None:
        async with serving(path):
            pass

    for number in range(used.path.stat().st_size // PAGE):
        shutil.copy(used.path, path)
        overwrite(path, number, change, chance)
        try:
            run(start())
        except DatabaseError as error:
            refused.append((number, str(error)))
    assert all(str(path) in text and HINT in text for _, text in refused)
    assert change not in (zeros, noise) or 0 in dict(refused)


def test_a_schema_that_is_no_text_is_damage(used: Used, tmp_path: Path) -> None:
    path = tmp_path / "broker.db"
    shutil.copy(used.path, path)
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA writable_schema=ON")
        connection.execute("UPDATE sqlite_master SET sql = cast(x'ff' AS TEXT), name = cast(x'ff' AS TEXT)")
    for look in (connect, verify):
        with pytest.raises(DamagedError, match=HINT):
            look(path)


@pytest.mark.parametrize("change", [zeros, noise])
def test_check_finds_every_page_that_is_not_the_brokers(
    used: Used, tmp_path: Path, change: Callable[[bytes, random.Random], bytes]
) -> None:
    path = tmp_path / "broker.db"
    for number in range(used.path.stat().st_size // PAGE):
        shutil.copy(used.path, path)
        overwrite(path, number, change, random.Random(7))
        with pytest.raises(DamagedError, match=HINT):
            verify(path)


def test_check_reads_beside_a_running_broker_and_changes_nothing(
    used: Used, tmp_path: Path, run: Callable[[Any], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "broker.db"
    shutil.copy(used.path, path)
    monkeypatch.setenv("BROKER_DB", str(path))

    def content() -> list[bytes]:
        return [file.read_bytes() for file in (path, path.with_name("broker.db-wal"))]

    async def work() -> None:
        async with serving(path) as client:
            await client.post("/jobs", headers=BOT, json={"command": "ping"})
            before = content()
            assert main(["check"]) == 0
            assert content() == before

    run(work())


def test_check_says_what_is_wrong_and_how_to_go_on(
    used: Used, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "broker.db"
    shutil.copy(used.path, path)
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA writable_schema=ON")
        connection.execute("UPDATE sqlite_master SET rootpage = 3 WHERE name = 'jobs_running'")
    monkeypatch.setenv("BROKER_DB", str(path))
    assert main(["check"]) == 1
    said = capsys.readouterr().err
    assert said.startswith(f"openclaw-broker: {path} is damaged")
    assert HINT in said


def test_a_row_that_makes_no_sense_is_damage(
    used: Used, tmp_path: Path, run: Callable[[Any], Any], caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "broker.db"
    shutil.copy(used.path, path)
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("UPDATE jobs SET status = 'rvnning' WHERE id = ?", (used.ids[0],))

    async def work() -> None:
        async with serving(path) as client:
            answer = await client.get(f"/jobs/{used.ids[0]}", headers=BOT)
            assert (answer.status_code, "makes no sense" in answer.text) == (503, True)

    run(work())
    assert [record.levelname for record in caplog.records].count("CRITICAL") == 1


@pytest.mark.parametrize(
    "update",
    [
        "UPDATE agents SET capabilities = char(0)",
        "UPDATE agents SET metadata = '{'",
        "UPDATE agents SET name = 'w1', metadata = cast(x'ff' AS TEXT)",
    ],
)
def test_an_agent_that_makes_no_sense_is_damage(
    used: Used, tmp_path: Path, run: Callable[[Any], Any], update: str
) -> None:
    path = tmp_path / "broker.db"
    shutil.copy(used.path, path)
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute(update)

    async def start() -> None:
        async with serving(path):
            pass

    with pytest.raises(DamagedError, match=HINT):
        run(start())
