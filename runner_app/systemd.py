"""A job as a unit of the user's systemd manager."""

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from runner_app import records, sandbox, walls
from runner_app.execution import ExecutionError, StartError, becoming, recorded_ending, write_script
from runner_app.job import Command
from runner_app.journal import Claim
from runner_app.outcome import STOP_OUTPUT, Stage, kept_ending, stage
from runner_app.scratch import Scratch
from runner_app.settings import Settings
from runner_app.usermanager import ManagerRefusedError, UserManager


class SystemdUnits:
    """Runs commands as units. A unit that failed stays loaded until its record is safe; see ``tidy``."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._manager = UserManager()
        self._scratch = Scratch(settings)
        self._units = Path(os.environ.get("XDG_RUNTIME_DIR", "/nonexistent"), "systemd/user")

    async def prepare(self) -> None:
        """Bound what all jobs use together, so that the runner can always work beside them.

        Raises:
            ExecutionError: The manager does not answer.
        """
        if limits := self._settings.jobs_limits:
            await self._manager.limit(sandbox.JOBS_SLICE, limits)

    async def start(self, claim: Claim, command: Command) -> None:
        """See Executor. The dead-man timer comes first, so that no job is ever without one."""
        tmp = self._scratch.make(claim)
        write_script(claim, walls.script(command, self._settings, tmp) if command.walled else becoming(command))
        self._units.mkdir(parents=True, exist_ok=True)
        texts = (
            sandbox.job_unit(claim, command, self._settings),
            sandbox.lease_timer(claim),
            sandbox.lease_service(claim),
        )
        for file, text in zip(self._files(claim.name), texts, strict=True):
            file.write_text(text, encoding="utf-8")
        # The manager reads the directory again when its time has changed; what the kernel sets is too coarse for that.
        os.utime(self._units, ns=(now := time.time_ns(), now))
        try:
            await self._manager.restart(_timer(claim))
            await self._manager.start(_unit(claim))
        except ManagerRefusedError as refusal:
            message = f"could not be started: {refusal}"
            raise StartError(message) from refusal

    async def stage(self, claim: Claim) -> Stage:
        """See Executor."""
        if recorded_ending(claim):
            return Stage.ENDED
        unit = await self._manager.service(_unit(claim))
        if unit is not None and unit["ActiveState"] == "failed":
            self._keep(claim, unit)
        started = records.read(claim.directory / records.STARTED) is not None
        return stage(started=started, ended=recorded_ending(claim) is not None, alive=_alive(unit))

    async def renew(self, claim: Claim) -> None:
        """See Executor."""
        await self._manager.restart(_timer(claim))

    async def stop(self, claim: Claim) -> None:
        """See Executor. The 10 s are the unit's own TimeoutStopSec; a job that fills the disk does not get them."""
        order = records.read(claim.directory / records.STOP)
        if order and order["why"] == STOP_OUTPUT:
            await self._manager.kill(_unit(claim))
        await self._manager.stop(_unit(claim))

    async def close(self, claim: Claim) -> None:
        """See Executor."""
        await self._manager.stop(_timer(claim))
        for file in self._files(claim.name):
            file.unlink(missing_ok=True)
        await self._scratch.remove(claim.name)

    async def tidy(self, is_open: Callable[[str], bool]) -> None:
        """See Executor. What is left are failed units, and files whose runner died before it removed them."""
        for unit in await self._manager.failed("job-*.service"):
            if not is_open(_name(unit)):
                await self._manager.reset_failed(unit)
        for file in self._units.glob("job-*"):
            if not is_open(_name(file.name)):
                file.unlink(missing_ok=True)
        await self._scratch.tidy(is_open)

    def _files(self, name: str) -> list[Path]:
        return [self._units / f"{name}{suffix}" for suffix in (".service", "-lease.timer", "-lease.service")]

    def _keep(self, claim: Claim, unit: dict[str, Any]) -> None:
        """Write the record that the failed unit could not write, unless another start owns the directory."""
        invocation = bytes(unit["InvocationID"]).hex()
        started = records.read(claim.directory / records.STARTED)
        if recorded_ending(claim) or (started is not None and started["invocation"] != invocation):
            return
        ending = kept_ending(result=unit["Result"], main_code=unit["ExecMainCode"], main_status=unit["ExecMainStatus"])
        record = {"result": ending.result, "code": ending.code, "status": ending.status, "invocation": invocation}
        try:
            records.write(claim.directory / records.EXIT, {**record, **records.moment()})
        except OSError as error:
            message = f"the end of {claim.name} cannot be recorded: {error}"
            raise ExecutionError(message) from error


def _alive(unit: dict[str, Any] | None) -> bool:
    if unit is None or unit["ActiveState"] == "failed":
        return False
    return bool(unit["ActiveState"] != "inactive" or unit["Job"][0])


def _unit(claim: Claim) -> str:
    return f"{claim.name}.service"


def _timer(claim: Claim) -> str:
    return f"{claim.name}-lease.timer"


def _name(unit: str) -> str:
    return unit.rpartition(".")[0].removesuffix("-lease")
