"""A job as a transient unit of the user's systemd manager."""

from typing import Any

from runner_app import records
from runner_app.execution import ExecutionError, StartError, recorded_ending
from runner_app.job import Command
from runner_app.journal import Claim
from runner_app.outcome import Stage, kept_ending, stage
from runner_app.sandbox import job_properties, killer_properties, timer_properties
from runner_app.settings import Settings
from runner_app.usermanager import ManagerRefusedError, Property, UserManager


class SystemdUnits:
    """Runs commands as units. A unit that failed stays loaded until its record is safe; see ``tidy``."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._manager = UserManager()

    async def start(self, claim: Claim, command: Command) -> None:
        """See Executor. The dead-man timer comes first, so that no job is ever without one."""
        killer = [(f"{claim.name}-lease.service", killer_properties(claim))]
        try:
            await self._start(_timer(claim), timer_properties(claim), killer)
            await self._start(_unit(claim), job_properties(claim, command, self._settings), [])
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
        """See Executor. The 10 s are the unit's own TimeoutStopSec."""
        await self._manager.stop(_unit(claim))

    async def close(self, claim: Claim) -> None:
        """See Executor."""
        await self._manager.stop(_timer(claim))

    async def tidy(self, open_names: set[str]) -> None:
        """See Executor. What is left are failed units."""
        for unit in await self._manager.failed("job-*.service"):
            if unit.removesuffix(".service").removesuffix("-lease") not in open_names:
                await self._manager.reset_failed(unit)

    async def _start(self, name: str, properties: list[Property], auxiliary: list[tuple[str, list[Property]]]) -> None:
        try:
            await self._manager.start_transient(name, properties, auxiliary)
        except ManagerRefusedError as refusal:
            if refusal.name != "UnitExists":
                raise

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
