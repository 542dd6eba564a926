"""Running a command apart from the runner: what both ways of doing it share.

A job is no child of the runner: it lives on when the runner dies, writes its records into its own directory, and the
next runner finds it there.
"""

import asyncio
import hashlib
import logging
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from runner_app import records
from runner_app.job import Command
from runner_app.journal import Claim
from runner_app.outcome import Ending, Stage
from runner_app.supervisor import SCRIPT
from runner_app.watch import Watcher

PACKAGES = Path(__file__).resolve().parent.parent  # what programs of ours that run apart import from
TERM_SECONDS = 10  # between SIGTERM and SIGKILL
LOOK_SECONDS = 30  # how often a job is looked up although no record woke us
_FIRST_LOOK_SECONDS = 0.25  # a start that fails may leave no record, and shows soon

_log = logging.getLogger(__name__)


class ExecutionError(Exception):
    """The machinery that runs jobs did not answer; what became of the job is not known yet."""


class StartError(Exception):
    """The job was not started and never will be; the text says why."""


class Executor(Protocol):
    """A way to run commands apart from the runner."""

    async def start(self, claim: Claim, command: Command) -> None:
        """Start the command, or find that it was started already.

        Raises:
            StartError: It cannot be started.
            OSError: The disk does not take what starting needs.
            ExecutionError: Not known; look again later.
        """

    async def stage(self, claim: Claim) -> Stage:
        """Say where an attempt stands.

        Raises:
            ExecutionError: Not known; look again later.
        """

    async def renew(self, claim: Claim) -> None:
        """Put off the moment at which the job is killed because nobody renews its lease.

        Raises:
            ExecutionError: Not known; renew again.
        """

    async def stop(self, claim: Claim) -> None:
        """Order the end of the whole tree of processes: SIGTERM, then SIGKILL after ``TERM_SECONDS``.

        Raises:
            ExecutionError: Not known; order again.
        """

    async def close(self, claim: Claim) -> None:
        """Let go of an attempt that has ended.

        Raises:
            ExecutionError: What is left ends by itself.
        """

    async def tidy(self, is_open: Callable[[str], bool]) -> None:
        """Drop what is left of attempts whose claims are closed. A name must be asked about at the last moment.

        Raises:
            ExecutionError: Another time.
        """


def deadman_seconds(lease_seconds: float) -> float:
    """Return when an unrenewed job is killed: late, but safely before the broker delivers it again."""
    return lease_seconds * 11 / 12


def giving_up_seconds(lease_seconds: float) -> float:
    """Return when a runner that cannot renew stops the job in order; 10 s before the kill if the lease is 60 s."""
    return lease_seconds * 3 / 4


def write_script(claim: Claim, text: str) -> None:
    """Write what the job's shell reads; so nothing that a submitter wrote stands in a unit file."""
    (claim.directory / SCRIPT).write_text(text, encoding="utf-8")


def becoming(command: Command) -> str:
    """Return the line by which a shell becomes a command.

    The directory is entered inside the job, so that one that vanished fails the job and not its records.
    """
    return f"cd -- {shlex.quote(command.cwd)} && exec {shlex.join(command.argv)} {stdin(command)}\n"


def stdin(command: Command) -> str:
    """Return the redirection that gives a command what it can read, through a pipe: no file of it can be changed.

    Its last line stands alone, and the text cannot have it, since that would have to hold its own digest.
    """
    if command.stdin is None:
        return "</dev/null"
    end = f"END-{hashlib.sha256(command.stdin.encode()).hexdigest()}"
    return f"<<'{end}'\n{command.stdin}\n{end}"


def environment(command_home: str, claim: Claim) -> dict[str, str]:
    """Return the variables that every job gets."""
    return {"HOME": command_home, "LANG": "C.UTF-8", "OPENCLAW_JOB_ID": claim.job.id}


def recorded_ending(claim: Claim) -> Ending | None:
    """Return the end that was recorded, if the start that owns the directory recorded it."""
    started = records.read(claim.directory / records.STARTED)
    ended = records.read(claim.directory / records.EXIT)
    if ended is None or (started is not None and started["invocation"] != ended["invocation"]):
        return None
    return Ending(result=str(ended["result"]), code=str(ended["code"]), status=str(ended["status"]))


def duration_ms(claim: Claim) -> int:
    """Return how long the recorded attempt took."""
    started = records.read(claim.directory / records.STARTED)
    ended = records.read(claim.directory / records.EXIT)
    if started is None or ended is None or started["boot"] != ended["boot"]:
        return 0
    return round((float(str(ended["uptime"])) - float(str(started["uptime"]))) * 1000)


async def until_ended(executor: Executor, watcher: Watcher, claim: Claim) -> Stage:
    """Wait until an attempt is no longer running, and say where it stands then."""
    look = _FIRST_LOOK_SECONDS
    with watcher.watching(claim.directory) as woken:
        while True:
            try:
                stage = await executor.stage(claim)
                if stage is not Stage.RUNNING:
                    return stage
            except ExecutionError as error:
                _log.warning("%s: %s", claim.name, error)
            woken.clear()
            try:
                await asyncio.wait_for(woken.wait(), look)
            except TimeoutError:
                look = min(LOOK_SECONDS, look * 2)
