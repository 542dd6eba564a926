"""Keeps one host running: makes its network, boots it, and boots it again when it asked for a reboot.

python -m lab.supervisor LAB HOST
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

from lab import cgroups
from lab.lab import Lab

if TYPE_CHECKING:
    from lab.machines import Machine

# With --keep-unit, systemd-nspawn ends with this status when the host wants to be booted again.
_REBOOT = 133


def main(lab_name: str, host_name: str) -> None:
    """Run the host until it is powered off or killed."""
    machine = Lab(lab_name).machine(host_name)
    cgroups.join(machine.cgroup)
    machine.pid_file.write_text(str(os.getpid()))
    while _boot(machine) == _REBOOT:
        continue


def _boot(machine: Machine) -> int:
    machine.connect()
    with machine.console.open("ab") as console:
        guest = subprocess.Popen(
            _command(machine), env=_environment(), stdin=subprocess.DEVNULL, stdout=console, stderr=console
        )
        # A plain SIGTERM to this process powers the host off in good order.
        signal.signal(signal.SIGTERM, lambda *_: guest.terminate())
        return guest.wait()


def _command(machine: Machine) -> list[str]:
    return [
        "systemd-nspawn",
        "--quiet",
        "--register=no",
        "--keep-unit",
        f"--machine={machine.nspawn_name}",
        f"--hostname={machine.name}",
        f"--directory={machine.root}",
        "--kill-signal=SIGRTMIN+3",
        f"--network-namespace-path={machine.namespace}",
        "--capability=CAP_NET_ADMIN",
        "--bind=/dev/net/tun",
        f"--bind-ro={machine.disks}:/dev/disk/by-id",
        "--system-call-filter=bpf",
        "--resolv-conf=off",
        "--timezone=off",
        "--link-journal=no",
        "--console=read-only",
        "/usr/local/sbin/lab-init",
    ]


def _environment() -> dict[str, str]:
    return {
        "PATH": os.environ["PATH"],
        # Else /proc/sys/net is read-only for a host whose namespace was made outside it.
        "SYSTEMD_NSPAWN_API_VFS_WRITABLE": "network",
        # A crash would leave the lock's file; that a host runs once is the lab's to see to.
        "SYSTEMD_NSPAWN_LOCK": "0",
    }


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
