"""The commands that the runner answers itself, each within milliseconds and repeatable for the same job."""

import json
import platform
from typing import TYPE_CHECKING

from runner_app import __version__
from runner_app.handlers.catalogue import COMMANDS
from runner_app.handlers.plans import Plans
from runner_app.job import Job, JobFailedError
from runner_app.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Callable


class InlineCommands:
    """ping, capabilities, plan_echo and approve_echo."""

    def __init__(self, settings: Settings) -> None:
        plans = Plans(settings.plans_dir)
        self._settings = settings
        self._commands: dict[str, Callable[[Job], str]] = {
            "approve_echo": plans.approve,
            "capabilities": self._capabilities,
            "ping": lambda job: f"pong: {job.payload}",
            "plan_echo": plans.propose,
        }

    def answer(self, job: Job) -> str:
        """Return the job's result.

        Raises:
            JobFailedError: The command is unknown, or failed.
        """
        command = self._commands.get(job.command)
        if command is None:
            message = f"unknown command {job.command!r}: this runner knows {', '.join(self.known())}"
            raise JobFailedError(message)
        return command(job)

    def known(self) -> list[str]:
        """Return every command this runner can do, in order."""
        return sorted([*self._commands, *COMMANDS])

    def _capabilities(self, _: Job) -> str:
        facts = {
            "worker_id": self._settings.worker_id,
            "version": __version__,
            "commands": self.known(),
            "capabilities": self._settings.capabilities,
            "backend": self._settings.backend,
            "max_jobs": self._settings.max_jobs,
            "python": platform.python_version(),
            "platform": f"{platform.system()} {platform.machine()}",
        }
        return json.dumps(facts)
