"""A task for an agent that is removed at the same time: in each order of the two, nobody waits for it in vain."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from broker_app.agents import Role
from broker_app.auth import Caller, Principal
from broker_app.broker import Broker
from broker_app.errors import AgentNotFoundError
from broker_app.queue.commands import Assign, Remove, Submit
from broker_app.queue.job import Job, Route, Worker
from broker_app.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

ASSIGN = Assign("a", Submit("ping", "", None, Route("a"), max_deliveries=5, lease_seconds=60, dialect="hub"))
ADMIN = Caller(Principal(Role.ADMIN, "admin"), "", Worker())


def broker_of(bench: Any, path: Path) -> Broker:
    broker = Broker(Settings.from_environment({"BROKER_DB": str(path / "broker.db")}), bench.database, bench.store)
    broker.agents.saw("a")
    return broker


def before(call: Any, first: Callable[[], Any]) -> Any:
    """The call, and something else the moment before it."""

    async def both(*arguments: Any, **options: Any) -> Any:
        await first()
        return await call(*arguments, **options)

    return both


def test_what_an_agent_is_given_during_its_removal_is_cancelled_with_the_rest(
    bench: Callable[..., Any], run: Callable[[Any], Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def work() -> None:
        async with bench() as b:
            broker, hangup = broker_of(b, tmp_path), asyncio.get_running_loop().create_future()
            given: list[Job] = []

            async def assign() -> None:
                given.append(await broker.perform(ASSIGN, ADMIN, hangup))

            await assign()
            monkeypatch.setattr(broker.agents, "remove", before(broker.agents.remove, assign))
            cancelled, _ = await broker.perform(Remove("a", requeue=False), ADMIN, hangup)
            assert [job.id for job in cancelled] == [job.id for job in given]
            assert [(await broker.queue.look(job.id)).outcome for job in given] == ["cancelled"] * 2

    run(work())


def test_what_is_for_an_agent_that_has_just_been_removed_is_refused(
    bench: Callable[..., Any], run: Callable[[Any], Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def work() -> None:
        async with bench() as b:
            broker, hangup = broker_of(b, tmp_path), asyncio.get_running_loop().create_future()

            async def remove() -> None:
                await broker.perform(Remove("a", requeue=False), ADMIN, hangup)

            monkeypatch.setattr(broker.queue, "submit", before(broker.queue.submit, remove))
            with pytest.raises(AgentNotFoundError):
                await broker.perform(ASSIGN, ADMIN, hangup)
            assert (await broker.queue.counts()).ready == 0

    run(work())
