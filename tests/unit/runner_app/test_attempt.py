"""One attempt with real processes, and a broker that misbehaves in ways that a real one does not show at will."""

from __future__ import annotations

import asyncio
import json
import time
from typing import TYPE_CHECKING, Any, cast

import pytest

from runner_app.attempt import Attempt, Services
from runner_app.execution import until_ended
from runner_app.handlers.inline import InlineCommands
from runner_app.job import Command, Job
from runner_app.journal import Journal
from runner_app.outcome import Verdict
from runner_app.processes import ProcessGroups
from runner_app.selftest import Selftest
from runner_app.systemd import SystemdUnits
from runner_app.watch import Watcher

if TYPE_CHECKING:
    from pathlib import Path

    from runner_app.clients.client import Client
    from runner_app.journal import Claim
    from runner_app.settings import Settings


class Silent:
    """A client whose broker takes results and renewals, and answers nothing else."""

    def __init__(self) -> None:
        self.results: list[str] = []
        self.cancelled = asyncio.Event()

    async def heartbeat(self, _: Job) -> None:
        return

    async def revoked(self, _: Job) -> str:
        await self.cancelled.wait()
        return "it is cancelled"

    def live(self, _: Job, __: Path, *, adopted: bool) -> Any:
        async def tell(*, ended: bool) -> None:
            await asyncio.sleep(300)

        return tell

    async def result(self, _: Job, text: str) -> None:
        self.results.append(text)


class Heard(Silent):
    """A client whose broker wants to hear what a job says, and notes when it was told that this is all."""

    def __init__(self) -> None:
        super().__init__()
        self.told: list[bool] = []

    def live(self, _: Job, __: Path, *, adopted: bool) -> Any:
        async def tell(*, ended: bool) -> None:
            self.told.append(ended)

        return tell


class AtOnce(ProcessGroups):
    """Starts jobs that have ended when they are seen for the first time."""

    async def start(self, claim: Claim, command: Command) -> None:
        await super().start(claim, command)
        watcher = Watcher()
        await until_ended(self, watcher, claim)
        watcher.close()


async def _settle(
    settings: Settings, client: Silent, line: str, processes: type[ProcessGroups] = ProcessGroups
) -> Verdict:
    job = Job("j1", "exec", line, 1, lease_seconds=60, max_deliveries=5)
    claim = Journal(settings.jobs_dir).record(job, "process")
    watcher = Watcher()
    services = Services(
        settings=settings,
        client=cast("Client", client),
        watcher=watcher,
        inline=InlineCommands(settings),
        executors={"process": processes(settings)},
        selftest=Selftest(SystemdUnits(settings), settings, watcher),
    )
    try:
        async with asyncio.timeout(20):
            return await Attempt(claim, services, adopted=False).settle()
    finally:
        watcher.close()


@pytest.mark.parametrize("line", ["echo ok", "sleep 1.5; echo ok"])
def test_no_result_waits_long_for_what_a_job_says(line: str, settings: Settings) -> None:
    """Neither where the last of it is being told, nor where earlier words still are."""
    began = time.monotonic()

    async def scene() -> None:
        client = Silent()
        assert await _settle(settings, client, line) is Verdict.DONE
        assert json.loads(client.results[0])["stdout"] == "ok\n"

    asyncio.run(scene())
    assert time.monotonic() - began < 6


def test_a_job_that_is_cancelled_is_not_reported(settings: Settings) -> None:
    async def scene() -> None:
        client = Silent()
        asyncio.get_running_loop().call_later(0.5, client.cancelled.set)
        assert await _settle(settings, client, "exec sleep 300") is Verdict.ABANDONED
        assert client.results == []

    asyncio.run(scene())


def test_a_job_that_has_ended_before_anybody_looks_is_told_of(settings: Settings) -> None:
    async def scene() -> None:
        client = Heard()
        assert await _settle(settings, client, "echo ok", AtOnce) is Verdict.DONE
        assert client.told == [True]

    asyncio.run(scene())
