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
            await messages.received(await messages.waiting("b", 1))
            assert await messages.post("a", "b", "3", "{}") is True

    monkeypatch.setattr(module, "MAX_WAITING", 3)
    run(work())


def test_what_was_received_is_remembered_for_a_day(bench: Callable[..., Any], run: Callable[[Any], Any]) -> None:
    async def work() -> None:
        async with bench() as b:
            messages = Messages(b.database, b.clock)
            await messages.post("a", "b", "1", "{}")
            await messages.post("a", "b", "waits", "{}")
            await messages.received(await messages.waiting("b", 1))
            b.clock.now += 86000
            await messages.forget()
            assert await messages.post("a", "b", "1", "{}") is False
            b.clock.now += 1000
            await messages.forget()
            assert [message.n for message in await messages.waiting("b", 9)] == [2]
            assert await messages.post("a", "b", "1", "{}") is True

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
