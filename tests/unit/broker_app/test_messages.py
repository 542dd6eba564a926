"""Messages that wait, and how fast a line is read."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from broker_app import messages as module
from broker_app.errors import MailboxFullError
from broker_app.hub import Pace
from broker_app.messages import Messages

if TYPE_CHECKING:
    from collections.abc import Callable


def test_as_many_wait_as_may(
    bench: Callable[..., Any], run: Callable[[Any], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def work() -> None:
        async with bench() as b:
            messages = Messages(b.database, b.clock)
            assert [await messages.post("a", "b", str(n), "{}") for n in range(3)] == [True] * 3
            with pytest.raises(MailboxFullError):
                await messages.post("a", "b", "3", "{}")
            assert await messages.post("a", "b", "0", "{}") is False
            assert await messages.post("a", "c", "3", "{}") is True
            await messages.received("b", await messages.waiting("b", 1))
            assert await messages.post("a", "b", "3", "{}") is True

    monkeypatch.setattr(module, "MAX_WAITING", 3)
    run(work())


def test_what_was_received_is_remembered_for_a_day(bench: Callable[..., Any], run: Callable[[Any], Any]) -> None:
    async def work() -> None:
        async with bench() as b:
            messages = Messages(b.database, b.clock)
            await messages.post("a", "b", "1", "{}")
            await messages.post("a", "b", "waits", "{}")
            await messages.received("b", await messages.waiting("b", 1))
            b.clock.now += 86000
            await messages.forget()
            assert await messages.post("a", "b", "1", "{}") is False
            b.clock.now += 1000
            await messages.forget()
            assert [message.n for message in await messages.waiting("b", 9)] == [2]
            assert await messages.post("a", "b", "1", "{}") is True

    run(work())


def test_what_waits_for_a_week_is_forgotten(bench: Callable[..., Any], run: Callable[[Any], Any]) -> None:
    async def work() -> None:
        async with bench() as b:
            messages = Messages(b.database, b.clock)
            await messages.post("a", "b", "1", "{}")
            b.clock.now += 604_000
            await messages.post("a", "b", "2", "{}")
            await messages.forget()
            assert [message.n for message in await messages.waiting("b", 9)] == [1, 2]
            b.clock.now += 1000
            await messages.forget()
            assert [message.n for message in await messages.waiting("b", 9)] == [2]

    run(work())


def test_as_many_are_remembered_as_may(
    bench: Callable[..., Any], run: Callable[[Any], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def work() -> None:
        async with bench() as b:
            messages = Messages(b.database, b.clock)
            await messages.post("a", "c", "0", "{}")
            await messages.received("c", await messages.waiting("c", 9))
            for n in range(4):
                await messages.post("a", "b", str(n), "{}")
            await messages.received("b", await messages.waiting("b", 3))
            assert [message.n for message in await messages.waiting("b", 9)] == [5]
            assert [await messages.post("a", "b", str(n), "{}") for n in range(4)] == [True, False, False, False]
            assert await messages.post("a", "c", "0", "{}") is False

    monkeypatch.setattr(module, "MAX_REMEMBERED", 2)
    run(work())


def test_no_call_looks_at_every_message(bench: Callable[..., Any], run: Callable[[Any], Any]) -> None:
    async def work() -> None:
        async with bench() as b:
            messages, made = Messages(b.database, b.clock), list[str]()
            await messages.post("a", "b", "1", "{}")
            await b.database.write(lambda connection: connection.set_trace_callback(made.append))
            await messages.received("b", await messages.waiting("b", 1))
            await messages.forget()
            await b.database.write(lambda connection: connection.set_trace_callback(None))
            for query in (query for query in made if "messages" in query):
                rows = await b.database.read(
                    lambda db, query=query: db.execute(f"EXPLAIN QUERY PLAN {query}").fetchall()
                )
                assert not any("SCAN" in row["detail"] for row in rows), query

    run(work())


def test_a_burst_passes_and_then_so_many_a_second() -> None:
    async def work() -> float:
        pace = Pace(200, 10)
        began = asyncio.get_running_loop().time()
        for _ in range(10):
            await pace.take()
        burst = asyncio.get_running_loop().time() - began
        for _ in range(40):
            await pace.take()
        assert burst < 0.15
        return asyncio.get_running_loop().time() - began

    assert asyncio.run(work()) >= 0.19
