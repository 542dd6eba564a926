"""``exec`` with ``sudo``: a program as root that ends with its job: ``python -m runner_app.elevated run PROGRAM …``.

Neither the agent's user nor its systemd manager can signal what root runs. So a guard of root's stands beside the
program and holds a pipe of ours: it ends the program with its whole tree when the pipe closes, as it does when we are
gone. No module is looked for in the current directory, where anybody may have left one for root.
"""

import ctypes
import os
import select
import signal
import subprocess
import sys

from runner_app.execution import PACKAGES, TERM_SECONDS
from runner_app.supervisor import PR_SET_CHILD_SUBREAPER, children

_GRACE_SECONDS = TERM_SECONDS / 2  # so that all is over before systemd gives up


def command(verb: str, argv: tuple[str, ...]) -> tuple[str, ...]:
    """Return how this program is called."""
    return ("/usr/bin/env", f"PYTHONPATH={PACKAGES}", sys.executable, "-PSs", "-m", "runner_app.elevated", verb, *argv)


def run(argv: tuple[str, ...]) -> int:
    """Have root run a program, and return its exit code."""
    try:
        guard = subprocess.Popen(["sudo", "-n", "--", *command("guard", argv)], stdin=subprocess.PIPE)
    except FileNotFoundError:
        sys.stderr.write("exec: sudo is not installed on this agent's host\n")
        return 127
    return guard.wait()


def guard(argv: tuple[str, ...]) -> int:
    """Run a program, for as long as the other end of standard input is open."""
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    try:
        program = subprocess.Popen(argv, stdin=subprocess.DEVNULL, start_new_session=True)
    except OSError as error:
        sys.stderr.write(f"exec: {argv[0]}: {error.strerror}\n")
        return 127
    ended = os.pidfd_open(program.pid)
    if ended not in select.select([ended, sys.stdin], [], [])[0]:
        os.killpg(program.pid, signal.SIGTERM)
        select.select([ended], [], [], _GRACE_SECONDS)
    status = program.poll()
    while pids := children():
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
    return 128 + signal.SIGKILL if status is None else status if status >= 0 else 128 - status


if __name__ == "__main__":
    sys.exit({"run": run, "guard": guard}[sys.argv[1]](tuple(sys.argv[2:])))
