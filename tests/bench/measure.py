"""Running a command, and what it cost: seconds on the clock, and of CPU here and on every host."""

from __future__ import annotations

import os
import subprocess
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from lab import cgroups
from lab.errors import LabError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


@dataclass(frozen=True)
class Usage:
    """What a run cost in seconds.

    Attributes:
        wall: On the clock.
        controller: CPU of the command and all it started on this machine, SSH's lasting connections too.
        hosts: CPU of each host.
        elsewhere: CPU that the machine gave to others meanwhile: how much they disturbed.
        load: The machine's load before the run.
    """

    wall: float
    controller: float
    hosts: dict[str, float]
    elsewhere: float
    load: float


class CommandError(Exception):
    """A command of the bench failed; the message has the end of what it said."""


def cpu_seconds(group: str) -> float:
    """Return the CPU time that a control group has used since it was made; 0 if it is not there.

    Raises:
        LabError: The machine has no cgroup v2, which counts the time also where it controls nothing.
    """
    unified = [hierarchy for hierarchy in cgroups.hierarchies() if (hierarchy / "cgroup.controllers").exists()]
    if not unified:
        raise LabError("CPU time is read from cgroup v2, which is not mounted here")
    try:
        counted = (unified[0] / group / "cpu.stat").read_text()
    except FileNotFoundError:
        return 0.0
    return int(counted.removeprefix("usage_usec ").partition("\n")[0]) / 1e6


def busy_seconds() -> float:
    """Return the CPU time that the whole machine has spent on work since it booted."""
    fields = Path("/proc/stat").read_text().partition("\n")[0].split()[1:9]
    user, nice, system, _idle, _iowait, irq, softirq, steal = map(int, fields)
    return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")


def run(
    argv: Sequence[str], *, group: str, hosts: Mapping[str, str], environment: Mapping[str, str], cwd: Path, log: Path
) -> Usage:
    """Run a command in a control group of its own, and end what it leaves running there.

    Args:
        argv: The command.
        group: Its control group.
        hosts: The control group of each host.
        environment: Its environment.
        cwd: Where it runs.
        log: Takes what it prints: a file, since SSH's lasting connections would hold a pipe open.

    Raises:
        CommandError: It failed.
    """

    def counters() -> tuple[float, dict[str, float], float]:
        return cpu_seconds(group), {name: cpu_seconds(host) for name, host in hosts.items()}, busy_seconds()

    load = os.getloadavg()[0]
    before, since = counters(), time.monotonic()
    with log.open("w") as output:
        done = subprocess.run(
            argv,
            cwd=cwd,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            preexec_fn=partial(cgroups.join, group),  # safe: there are no threads
            check=False,
        )
    wall, after = time.monotonic() - since, counters()
    cgroups.kill(group)
    if done.returncode:
        raise CommandError(f"{argv[0]} failed:\n" + "\n".join(log.read_text().splitlines()[-40:]))
    controller, each = after[0] - before[0], {name: after[1][name] - before[1][name] for name in hosts}
    return Usage(wall, controller, each, max(0.0, after[2] - before[2] - controller - sum(each.values())), load)
