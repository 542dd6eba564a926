"""The process beside a job where no systemd does the work: ``python -m runner_app.supervisor DIR``.

It takes the directory (exactly one start can), runs the ``script`` in a session of its own, ends it
with its whole tree (time-out, SIGTERM to us, an unrenewed lease), and records the end. It outlives the runner.
"""

import ctypes
import json
import os
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path

from runner_app import records

COMMAND = "command.json"
SCRIPT = "script"
LEASE = "lease"

PR_SET_CHILD_SUBREAPER = 36
_LOOK_SECONDS = 0.5
_SHELL = ["/bin/sh"]
_SIGNALS = {signal.SIGCHLD, signal.SIGTERM}


class Supervision:
    """One job's life."""

    def __init__(self, directory: Path) -> None:
        command = json.loads((directory / COMMAND).read_text(encoding="utf-8"))
        self._directory = directory
        self._environment: dict[str, str] = command["environment"]
        self._grace: float = command["term_seconds"]
        self._deadline = _now() + command["timeout_ms"] / 1000
        self._child = 0
        self._status: int | None = None

    def run(self) -> None:
        """Run the job to its end and record it."""
        self._spawn()
        reason = self._wait()
        if reason == "lease":
            records.write(self._directory / records.STOP, {"why": reason})
        elif reason:
            self._signal_group(signal.SIGTERM)
            self._wait_for_child(_now() + self._grace)
        self._kill_tree()
        records.write(self._directory / records.EXIT, {**self._ending(reason), "invocation": "", **records.moment()})

    def _spawn(self) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
        files = [(os.POSIX_SPAWN_OPEN, 0, str(self._directory / SCRIPT), os.O_RDONLY, 0)] + [
            (os.POSIX_SPAWN_OPEN, number, str(self._directory / name), flags, 0o600)
            for number, name in ((1, "stdout"), (2, "stderr"))
        ]
        self._child = os.posix_spawn(
            _SHELL[0], _SHELL, self._environment, file_actions=files, setsid=True, setsigmask=[]
        )

    def _wait(self) -> str:
        """Wait for the child's end (returns "") or a reason to end it."""
        while not self._reap():
            if _now() >= self._deadline:
                return "timeout"
            if _now() >= self._lease_end():
                return "lease"
            received = signal.sigtimedwait(_SIGNALS, min(_LOOK_SECONDS, max(0.0, self._deadline - _now())))
            if received and received.si_signo == signal.SIGTERM:
                return "stop"
        return ""

    def _wait_for_child(self, until: float) -> None:
        while not self._reap() and _now() < until:
            signal.sigtimedwait({signal.SIGCHLD}, min(_LOOK_SECONDS, max(0.0, until - _now())))

    def _reap(self) -> bool:
        """Collect what has ended; True once the main process has."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                break
            if pid == 0:
                break
            if pid == self._child:
                self._status = status
        return self._status is not None

    def _kill_tree(self) -> None:
        """Kill every descendant: an orphan becomes our child, so none can hide behind setsid or a double fork."""
        while pids := children():
            for pid in pids:
                with suppress(PermissionError):  # root's, whose guard ends it
                    os.kill(pid, signal.SIGKILL)
            signal.sigtimedwait({signal.SIGCHLD}, _LOOK_SECONDS)
            self._reap()

    def _signal_group(self, number: signal.Signals) -> None:
        try:
            os.killpg(self._child, number)
        except ProcessLookupError:
            return

    def _lease_end(self) -> float:
        return float((self._directory / LEASE).read_text(encoding="ascii"))

    def _ending(self, reason: str) -> dict[str, object]:
        status = self._status or 0
        if os.WIFSIGNALED(status):
            word = signal.Signals(os.WTERMSIG(status)).name.removeprefix("SIG")
            result, code = "success" if word == "TERM" else "signal", "killed"
        else:
            word = str(os.WEXITSTATUS(status))
            result, code = "success" if word == "0" else "exit-code", "exited"
        return {"result": "timeout" if reason == "timeout" else result, "code": code, "status": word}


def children() -> list[int]:
    """Return the processes whose parent we are."""
    pids = (int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdecimal())
    return [pid for pid in pids if (fields := _stat(pid)) and fields[1] == str(os.getpid())]


def _stat(pid: int) -> list[str] | None:
    """Return the fields of /proc/PID/stat from the state on; None if the process is gone."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return None
    return text.rpartition(")")[2].split()


def _now() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def start_ticks(pid: int) -> str | None:
    """Return when a process started, which with its pid names it for the whole boot; None if it is gone."""
    fields = _stat(pid)
    return fields[19] if fields and fields[0] not in "ZX" else None


def main(directory: Path) -> int:
    """Supervise the job in ``directory``, unless another start has taken it."""
    os.umask(0o077)
    signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    supervision = Supervision(directory)
    identity = {"pid": os.getpid(), "ticks": start_ticks(os.getpid()), "invocation": ""}
    try:
        records.write(directory / records.STARTED, {**identity, **records.moment()}, exclusive=True)
    except FileExistsError:
        return 0
    supervision.run()
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
