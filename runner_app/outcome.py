"""What the records of an attempt mean. Pure, so that every row is tested as a table."""

import os
import signal
from dataclasses import dataclass
from enum import Enum, auto


class Stage(Enum):
    """Where an attempt stands."""

    FRESH = auto()
    RUNNING = auto()
    ENDED = auto()
    LOST = auto()


class Verdict(Enum):
    """How an attempt that ended is reported."""

    DONE = auto()
    FAILED = auto()
    RELEASED = auto()  # given back, not charged
    ABANDONED = auto()  # not reported: the lease runs out, and the broker delivers again or closes the job


@dataclass(frozen=True, slots=True)
class Ending:
    """How the main process ended, in systemd's words (SERVICE_RESULT, EXIT_CODE, EXIT_STATUS)."""

    result: str
    code: str
    status: str


SUCCESS = Ending("success", "exited", "0")
INTERRUPTED = Ending("success", "killed", "TERM")  # systemd counts SIGTERM as a clean end; nobody here sent it

# Reasons in stop.json: who ordered a stop.
STOP_LEASE = "lease"
STOP_OUTPUT = "output"
STOP_RUNNER = "runner"
_STOPPED = {
    STOP_LEASE: "its lease was lost",
    STOP_OUTPUT: "too much output",
    STOP_RUNNER: "its runner was stopped",
}
_RESULTS = {"timeout": "timed out after {duration_ms} ms", "oom-kill": "killed: out of memory"}


def stage(*, started: bool, ended: bool, alive: bool) -> Stage:
    """Decide where an attempt stands.

    Args:
        started: There is a record of the start.
        ended: There is a record of the end, or the unit that systemd kept tells it.
        alive: The unit or the supervisor exists. Must be asked *before* ``ended`` is looked up: only then does
            "gone and no record" prove that no record will come.
    """
    if ended:
        return Stage.ENDED
    if alive:
        return Stage.RUNNING
    return Stage.LOST if started else Stage.FRESH


def judge(ending: Ending, *, stop: str | None) -> Verdict:
    """Decide what to report. ``stop`` is why a stop was ordered, if one was."""
    if stop == STOP_LEASE:
        return Verdict.ABANDONED
    if stop == STOP_RUNNER:
        return Verdict.RELEASED
    if stop is None and ending == SUCCESS:
        return Verdict.DONE
    if stop is None and ending == INTERRUPTED:
        return Verdict.ABANDONED
    return Verdict.FAILED


def describe(ending: Ending, *, stop: str | None, duration_ms: int) -> str:
    """Say in a few words why an attempt did not succeed."""
    if stop is not None:
        return f"stopped: {_STOPPED[stop]}"
    if ending == INTERRUPTED:
        return "interrupted: the host or the user's manager was stopped"
    if ending.result in _RESULTS:
        return _RESULTS[ending.result].format(duration_ms=duration_ms)
    if ending.code in {"killed", "dumped"}:
        return f"killed by signal {ending.status}"
    if ending.code == "exited" and ending.status != "0":
        return f"exit code {ending.status}{_as_signal(int(ending.status))}"
    return f"could not be started ({ending.result})"


def _as_signal(status: int) -> str:
    """Name the signal that a shell, or bubblewrap, tells of by such an exit code."""
    names = {128 + number: number.name for number in signal.Signals}
    return f" ({names[status]})" if status in names else ""


def kept_ending(*, result: str, main_code: int, main_status: int) -> Ending:
    """Translate what systemd keeps of a failed unit, for one whose record could not be written.

    Args:
        result: The unit's Result.
        main_code: ExecMainCode, a CLD_* number; 0 if the main process never ran.
        main_status: ExecMainStatus, an exit code or a signal's number.
    """
    if main_code == os.CLD_EXITED:
        # The main process ended well and only the writing of the record failed.
        well = result == "exit-code" and main_status == 0
        return Ending("success" if well else result, "exited", str(main_status))
    if main_code in {os.CLD_KILLED, os.CLD_DUMPED}:
        name = signal.Signals(main_status).name.removeprefix("SIG")
        return Ending(result, "killed" if main_code == os.CLD_KILLED else "dumped", name)
    return Ending(result, "", "")
