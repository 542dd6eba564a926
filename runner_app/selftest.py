"""Whether the walls hold on this host: one probe, run just as a job is, before any job may."""

import os
import shutil
import time
from pathlib import Path

from runner_app import execution, walls
from runner_app.execution import StartError
from runner_app.handlers.exec import error
from runner_app.job import Command, Job
from runner_app.journal import Claim
from runner_app.outcome import SUCCESS, describe
from runner_app.settings import SYSTEMD, Settings
from runner_app.systemd import SystemdUnits
from runner_app.watch import Watcher

_LEASE_SECONDS = 30
_NO_WALLS = "this host cannot isolate a job"
# Arguments: the runner's pid, the home, and what must not be seen.
_PROBE = """
fails() { echo "$1" >&2; exit 1; }
kill -0 "$1" 2>/dev/null && fails "a job can signal its runner"
(: > "$2/.openclaw-probe") 2>/dev/null && fails "a job can write to $2"
shift 2
for path; do [ -e "$path" ] && fails "a job can see $path"; done
: > /tmp/probe
"""


async def fault(units: SystemdUnits, settings: Settings, watcher: Watcher) -> str | None:
    """Run the probe, and return what is wrong, or None.

    Raises:
        ExecutionError: The user's manager does not answer.
    """
    directory = settings.state_dir / "selftest"
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(mode=0o700)
    job = Job("selftest", "exec", "", time.time_ns(), _LEASE_SECONDS, 1)
    claim = Claim(job, SYSTEMD, directory)
    watched = (str(os.getpid()), str(Path.home()), *walls.hidden(settings))
    argv = ("/bin/sh", "-c", _PROBE, "probe", *watched)
    try:
        await units.start(claim, Command(argv, str(settings.workspace), _LEASE_SECONDS * 1000))
        await execution.until_ended(units, watcher, claim)
    except StartError as refusal:
        return f"{_NO_WALLS}: {refusal}"
    finally:
        await units.close(claim)
        await units.tidy(lambda name: name != claim.name)
    ending = execution.recorded_ending(claim)
    if ending == SUCCESS:
        return None
    why = describe(ending, stop=None, duration_ms=0) if ending else "no end was recorded"
    return f"{_NO_WALLS}: {error(directory, why)}"
