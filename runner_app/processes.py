"""A job as a process group under a supervisor of its own, where there is no systemd user manager.

This keeps the promises about records, leases and adoption, but it isolates nothing: such a job can do whatever the
runner's user can.
"""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable

from runner_app import progress, records, supervisor
from runner_app.execution import (
    PACKAGES,
    TERM_SECONDS,
    ExecutionError,
    StartError,
    becoming,
    deadman_seconds,
    environment,
    recorded_ending,
    write_script,
)
from runner_app.job import Command
from runner_app.journal import Claim
from runner_app.outcome import Stage, stage
from runner_app.settings import Settings

_START_SECONDS = 20


class ProcessGroups:
    """Runs commands under supervisors."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._supervisors: dict[str, subprocess.Popen[bytes]] = {}

    async def start(self, claim: Claim, command: Command) -> None:
        """See Executor."""
        path = os.environ.get("PATH", os.defpath)
        order: dict[str, object] = {
            "environment": {
                "PATH": path,
                **environment(str(self._settings.workspace), claim),
                progress.VARIABLE: str(claim.directory / progress.FILE),
            },
            "timeout_ms": command.timeout_ms,
            "term_seconds": TERM_SECONDS,
        }
        try:
            write_script(claim, becoming(command))
            records.write(claim.directory / supervisor.COMMAND, order)
            await self.renew(claim)
            self._supervisors[claim.name] = process = self._spawn(claim, path)
        except (OSError, ExecutionError) as error:
            message = f"could not be started: {error}"
            raise StartError(message) from error
        await self._until_started(claim, process)

    async def stage(self, claim: Claim) -> Stage:
        """See Executor."""
        started = records.read(claim.directory / records.STARTED)
        alive = started is not None and self._is_alive(started)
        if not alive and (process := self._supervisors.get(claim.name)):
            process.poll()
        return stage(started=started is not None, ended=recorded_ending(claim) is not None, alive=alive)

    async def renew(self, claim: Claim) -> None:
        """See Executor."""
        end = time.clock_gettime(time.CLOCK_BOOTTIME) + deadman_seconds(claim.job.lease_seconds)
        draft = claim.directory / f".{supervisor.LEASE}"
        try:
            draft.write_text(f"{end:.3f}", encoding="ascii")
            draft.replace(claim.directory / supervisor.LEASE)
        except OSError as error:
            message = f"the lease of {claim.name} cannot be noted: {error}"
            raise ExecutionError(message) from error

    async def stop(self, claim: Claim) -> None:
        """See Executor. The supervisor counts the 10 s."""
        started = records.read(claim.directory / records.STARTED)
        if started is not None and self._is_alive(started):
            os.kill(int(str(started["pid"])), signal.SIGTERM)

    async def close(self, claim: Claim) -> None:
        """See Executor."""
        if process := self._supervisors.pop(claim.name, None):
            await asyncio.to_thread(process.wait)

    async def tidy(self, is_open: Callable[[str], bool]) -> None:
        """See Executor. A process leaves nothing behind."""

    @staticmethod
    def _is_alive(started: dict[str, object]) -> bool:
        same_boot = started["boot"] == records.moment()["boot"]
        return same_boot and supervisor.start_ticks(int(str(started["pid"]))) == started["ticks"]

    @staticmethod
    def _spawn(claim: Claim, path: str) -> subprocess.Popen[bytes]:
        # Its own session: a signal to the runner's terminal or group must not reach the jobs.
        return subprocess.Popen(
            [sys.executable, "-S", "-s", "-m", "runner_app.supervisor", str(claim.directory)],
            env={"PATH": path, "PYTHONPATH": str(PACKAGES)},
            stdin=subprocess.DEVNULL,
            start_new_session=True,
            cwd="/",
        )

    @staticmethod
    async def _until_started(claim: Claim, process: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + _START_SECONDS
        while not (claim.directory / records.STARTED).exists():
            if process.poll() is not None:
                message = "could not be started: its supervisor ended at once"
                raise StartError(message)
            if time.monotonic() > deadline:
                message = f"the supervisor of {claim.name} does not start"
                raise ExecutionError(message)
            await asyncio.sleep(0.01)
