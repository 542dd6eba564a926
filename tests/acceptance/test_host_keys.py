"""No other machine is taken for a node."""

from __future__ import annotations

import os
import signal
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from lab.errors import CommandFailedError
from lab.layer import HOST_KEY
from lab.process import run, wait_until

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterator

    from lab.machines import Machine
    from tests.support.fleet import TestFleet

NODE = "broker-1"
PROGRAMS = {
    "ssh": ("fleet", "shell", NODE, "true"),
    "ansible": ("ansible", NODE, "-m", "ansible.builtin.ping"),
    "fleet": ("fleet", "status"),
}
# Without a connection that is still there from before.
AFRESH = {"ANSIBLE_SSH_ARGS": "-o ControlMaster=no -o ControlPath=none", "ANSIBLE_FORCE_COLOR": "0"}


def _ask(fleet: TestFleet) -> dict[str, subprocess.CompletedProcess[str]]:
    return {name: fleet.program(*argv, **AFRESH) for name, argv in PROGRAMS.items()}


def test_a_machine_that_has_another_key_is_not_taken_for_the_node(fleet: TestFleet) -> None:
    """Ssh, Ansible and fleet all refuse it, and take the node again once it has its own key."""
    with _another_key(fleet.lab.machine(NODE)):
        refused = _ask(fleet)
    taken = _ask(fleet)
    assert {name: done.returncode for name, done in taken.items()} == dict.fromkeys(PROGRAMS, 0), taken
    assert all(done.returncode for done in refused.values()), refused
    for name in ("ssh", "ansible"):
        assert "Host key verification failed" in refused[name].stdout + refused[name].stderr
    assert "does not match" in refused["fleet"].stderr


@contextmanager
def _another_key(machine: Machine) -> Iterator[None]:
    """Have a host's sshd show another key of the same kind. No log-in is needed for that, nor for its end."""
    key = Path(f"/proc/{machine.process(1)}/root") / HOST_KEY
    own = key.read_bytes()
    other = machine.lab.folder / "other-key"
    public = other.with_suffix(".pub")
    run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(other)])
    try:
        key.write_bytes(other.read_bytes())
        _show(machine, " ".join(public.read_text().split()[:2]))
        yield
    finally:
        key.write_bytes(own)
        _show(machine, machine.host_key)
        other.unlink()
        public.unlink()


def _show(machine: Machine, key: str) -> None:
    """Have sshd read its keys anew, as `systemctl reload ssh` does, and return when it shows this one."""
    pid_file = Path(f"/proc/{machine.process(1)}/root/run/sshd.pid")
    os.kill(machine.process(int(pid_file.read_text())), signal.SIGHUP)
    ask = ["nsenter", f"--net={machine.namespace}", "ssh-keyscan", "-t", "ed25519", "127.0.0.1"]

    def shows() -> bool | None:
        with suppress(CommandFailedError):  # it is beginning
            return key in run(ask) or None
        return None

    wait_until(shows, what=f"sshd of {machine.name}", timeout=30, pause=0.3)
