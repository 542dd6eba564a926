"""Whether the walls hold on this host: a probe, run just as a job is, before any job may."""

import os
import shutil
import time
from pathlib import Path

from runner_app import execution, walls
from runner_app.execution import ExecutionError, StartError
from runner_app.handlers.output import error
from runner_app.job import Command, Job
from runner_app.journal import Claim
from runner_app.outcome import SUCCESS, describe
from runner_app.settings import SYSTEMD, Settings
from runner_app.systemd import SystemdUnits
from runner_app.watch import Watcher

_LEASE_SECONDS = 30
# Arguments: the runner's pid, the home, and what must not be seen.
_PROBE = """
fails() { echo "$1" >&2; exit 1; }
kill -0 "$1" 2>/dev/null && fails "a job can signal its runner"
(: > "$2/.openclaw-probe") 2>/dev/null && fails "a job can write to $2"
shift 2
for path; do [ -e "$path" ] && fails "a job can see $path"; done
: > /tmp/probe
"""


class Selftest:
    """The probe, and what it last found: ``fault`` is None once the walls held, ``claim`` the probe under way."""

    def __init__(self, units: SystemdUnits, settings: Settings, watcher: Watcher) -> None:
        self._units = units
        self._settings = settings
        self._watcher = watcher
        self.claim: Claim | None = None
        self.fault: str | None = "it was not tried yet whether this host can isolate a job"

    async def run(self) -> str | None:
        """Find out, and return what is wrong, or None; where there is no systemd, nothing is promised."""
        if self._settings.backend != SYSTEMD:
            return None
        try:
            await self._units.prepare()
            why = await self._probe()
        except (StartError, ExecutionError, OSError) as refusal:
            why = str(refusal)
        self.fault = f"this host cannot isolate a job: {why}" if why else None
        return self.fault

    async def _probe(self) -> str | None:
        directory = self._settings.state_dir / "selftest"
        shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir(mode=0o700)
        job = Job("selftest", "exec", "", time.time_ns(), _LEASE_SECONDS, 1)
        self.claim = claim = Claim(job, SYSTEMD, directory)
        watched = (str(os.getpid()), str(Path.home()), *walls.hidden(self._settings))
        argv = ("/bin/sh", "-c", _PROBE, "probe", *watched)
        try:
            await self._units.start(claim, Command(argv, str(self._settings.workspace), _LEASE_SECONDS * 1000))
            await execution.until_ended(self._units, self._watcher, claim)
            ending = execution.recorded_ending(claim)
            if ending == SUCCESS:
                return None
            return error(directory, describe(ending, stop=None, duration_ms=0) if ending else "no end was recorded")
        finally:
            await self._units.close(claim)
            await self._units.tidy(lambda name: name != claim.name)
            self.claim = None
