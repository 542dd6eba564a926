"""A job as a process group: real processes."""

from __future__ import annotations

import asyncio
import os
import signal
from typing import TYPE_CHECKING

import pytest

from runner_app import execution, processes, records, supervisor
from runner_app.execution import recorded_ending
from runner_app.job import Command, Job
from runner_app.journal import Claim, Journal
from runner_app.outcome import Ending, Stage
from runner_app.processes import ProcessGroups
from runner_app.watch import Watcher

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from runner_app.settings import Settings

SECONDS = 20.0


class Scene:
    """One claim, and a backend to run it."""

    def __init__(self, settings: Settings, lease_seconds: float) -> None:
        job = Job(id="j1", command="exec", payload="", lease_epoch=1, lease_seconds=lease_seconds, max_deliveries=5)
        self.claim: Claim = Journal(settings.jobs_dir).record(job, "process")
        self.workspace = settings.workspace
        self.backend = ProcessGroups(settings)
        self.watcher = Watcher()

    async def start(self, line: str, timeout_ms: int = 60_000) -> None:
        command = Command(argv=("/bin/sh", "-c", line), cwd=str(self.workspace), timeout_ms=timeout_ms)
        await self.backend.start(self.claim, command)

    async def ended(self) -> Ending:
        async with asyncio.timeout(SECONDS):
            assert await execution.until_ended(self.backend, self.watcher, self.claim) is Stage.ENDED
            await self.backend.close(self.claim)
        ending = recorded_ending(self.claim)
        assert ending
        return ending

    def write_daemon(self) -> None:
        """Put a script into the workspace that hides from its parent and its group, and notes its pid."""
        inner = "trap '' TERM HUP; echo $$ > .daemon; mv .daemon daemon; exec sleep 300"
        (self.workspace / "inner.sh").write_text(inner)
        (self.workspace / "daemon.sh").write_text("setsid sh inner.sh &")

    async def appears(self, name: str) -> str:
        file = self.workspace / name
        with self.watcher.watching(self.workspace) as created:
            async with asyncio.timeout(SECONDS):
                while not file.exists():
                    created.clear()
                    await created.wait()
        return file.read_text()


def play(settings: Settings, scene: Callable[[Scene], Awaitable[None]], lease_seconds: float = 60) -> None:
    async def run() -> None:
        stage = Scene(settings, lease_seconds)
        try:
            await scene(stage)
        finally:
            stage.watcher.close()

    asyncio.run(run())


def gone(pid: str) -> bool:
    return supervisor.start_ticks(int(pid)) is None


@pytest.mark.parametrize(
    ("line", "ending"),
    [
        ("exit 0", ("success", "exited", "0")),
        ("exit 7", ("exit-code", "exited", "7")),
        ("kill -9 $$", ("signal", "killed", "KILL")),
        ("exec /does/not/exist", ("exit-code", "exited", "127")),
    ],
)
def test_the_end_is_recorded(line: str, ending: tuple[str, str, str], settings: Settings) -> None:
    async def scene(stage: Scene) -> None:
        assert await stage.backend.stage(stage.claim) is Stage.FRESH
        await stage.start(line)
        assert await stage.ended() == Ending(*ending)

    play(settings, scene)


def test_output_environment_and_arguments(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORKER_TOKEN", "secret")

    async def scene(stage: Scene) -> None:
        argv = ("/bin/sh", "-c", 'pwd; env; printf "%s|" "$@" >&2', "x", "a b", "$HOME", "%n;")
        await stage.backend.start(stage.claim, Command(argv, str(stage.workspace), 60_000))
        await stage.ended()
        out = (stage.claim.directory / "stdout").read_text()
        assert out.startswith(f"{stage.workspace}\n")
        assert "OPENCLAW_JOB_ID=j1" in out
        assert "secret" not in out
        assert (stage.claim.directory / "stderr").read_text() == "a b|$HOME|%n;|"
        assert (stage.claim.directory / "stdout").stat().st_mode & 0o777 == 0o600

    play(settings, scene)


def test_a_job_that_ignores_sigterm_is_killed_with_its_hidden_daemons(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processes, "TERM_SECONDS", 0.5)

    async def scene(stage: Scene) -> None:
        stage.write_daemon()
        await stage.start("trap '' TERM; setsid sh daemon.sh & while :; do sleep 0.1; done")
        daemon = await stage.appears("daemon")
        await stage.backend.stop(stage.claim)
        assert await stage.ended() == Ending("signal", "killed", "KILL")
        assert gone(daemon)

    play(settings, scene)


def test_daemons_end_with_their_job(settings: Settings) -> None:
    async def scene(stage: Scene) -> None:
        stage.write_daemon()
        await stage.start("sh daemon.sh & while ! [ -e daemon ]; do sleep 0.01; done")
        assert await stage.ended() == Ending("success", "exited", "0")
        assert gone((stage.workspace / "daemon").read_text())

    play(settings, scene)


def test_a_stop_is_told_from_an_end(settings: Settings) -> None:
    async def scene(stage: Scene) -> None:
        await stage.start("echo > .up; mv .up up; exec sleep 300")
        await stage.appears("up")
        await stage.backend.stop(stage.claim)
        assert await stage.ended() == Ending("success", "killed", "TERM")

    play(settings, scene)


def test_a_time_out(settings: Settings) -> None:
    async def scene(stage: Scene) -> None:
        await stage.start("trap 'exit 0' TERM; while :; do sleep 0.05; done", timeout_ms=300)
        assert await stage.ended() == Ending("timeout", "exited", "0")

    play(settings, scene)


def test_without_renewal_the_job_is_killed_inside_its_lease(settings: Settings) -> None:
    async def scene(stage: Scene) -> None:
        clock = asyncio.get_running_loop().time
        begun = clock()
        await stage.start("trap '' TERM; while :; do sleep 0.05; done")
        assert await stage.ended() == Ending("signal", "killed", "KILL")
        assert 1.5 < clock() - begun < 3
        assert records.read(stage.claim.directory / records.STOP) == {"why": "lease"}

    play(settings, scene, lease_seconds=2.4)


def test_renewal_puts_that_off(settings: Settings) -> None:
    async def scene(stage: Scene) -> None:
        await stage.start("sleep 2.5")
        for _ in range(4):
            await asyncio.sleep(0.6)
            await stage.backend.renew(stage.claim)
        assert await stage.ended() == Ending("success", "exited", "0")

    play(settings, scene, lease_seconds=1.6)


def test_another_runner_finds_the_job_running_and_cannot_start_it_again(settings: Settings) -> None:
    async def scene(stage: Scene) -> None:
        await stage.start("echo x >> .runs; mv .runs runs; while ! [ -e go ]; do sleep 0.02; done")
        await stage.appears("runs")
        other = ProcessGroups(settings)
        assert await other.stage(stage.claim) is Stage.RUNNING
        command = Command(("/bin/sh", "-c", "echo y >> runs"), str(stage.workspace), 60_000)
        await other.start(stage.claim, command)
        await other.close(stage.claim)
        (stage.workspace / "go").touch()
        assert await stage.ended() == Ending("success", "exited", "0")
        assert (stage.workspace / "runs").read_text() == "x\n"

    play(settings, scene)


def test_a_supervisor_that_died_unheard_is_a_lost_attempt(settings: Settings) -> None:
    async def scene(stage: Scene) -> None:
        await stage.start("echo $$ > .pid; mv .pid pid; exec sleep 300")
        job = await stage.appears("pid")
        started = records.read(stage.claim.directory / records.STARTED)
        assert started
        os.kill(int(str(started["pid"])), signal.SIGKILL)
        await stage.backend.close(stage.claim)
        assert await stage.backend.stage(stage.claim) is Stage.LOST
        os.kill(int(job), signal.SIGKILL)

    play(settings, scene)


def test_a_pid_that_is_used_again_is_not_our_supervisor(settings: Settings) -> None:
    async def scene(stage: Scene) -> None:
        identity = {"pid": os.getpid(), "ticks": "1", "invocation": ""}
        records.write(stage.claim.directory / records.STARTED, {**identity, **records.moment()})
        assert await stage.backend.stage(stage.claim) is Stage.LOST
        identity["ticks"] = supervisor.start_ticks(os.getpid()) or ""
        records.write(stage.claim.directory / records.STARTED, {**identity, **records.moment()})
        assert await stage.backend.stage(stage.claim) is Stage.RUNNING
        records.write(stage.claim.directory / records.STARTED, {**identity, "boot": "another", "uptime": 1.0})
        assert await stage.backend.stage(stage.claim) is Stage.LOST

    play(settings, scene)


def test_a_watcher_wakes_for_its_directory_only(tmp_path: Path) -> None:
    async def scene() -> None:
        (tmp_path / "a").mkdir()
        (tmp_path / "b").mkdir()
        watcher = Watcher()
        with watcher.watching(tmp_path / "a") as first, watcher.watching(tmp_path / "b") as second:
            records.write(tmp_path / "a" / "exit.json", {}, exclusive=True)
            async with asyncio.timeout(SECONDS):
                await first.wait()
            assert not second.is_set()
        watcher.close()

    asyncio.run(scene())


def test_what_cannot_be_killed_is_waited_for(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """A program of root's ends by its guard."""

    def refuse(*_: object) -> None:
        raise PermissionError

    rounds = iter([[4_000_000], [4_000_000], []])
    monkeypatch.setattr(supervisor, "children", lambda: next(rounds))
    monkeypatch.setattr(os, "kill", refuse)
    records.write(settings.jobs_dir / supervisor.COMMAND, {"environment": {}, "term_seconds": 1, "timeout_ms": 1})
    supervisor.Supervision(settings.jobs_dir)._kill_tree()
    assert next(rounds, None) is None
