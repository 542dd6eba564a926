"""A fleet to break: its processes as this machine sees them, its records, and faults at a moment of one's choice."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx

from lab import cgroups
from tests.support.fleet import CONVERGED, TestFleet

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from lab.machines import Machine

_SETTLE_SECONDS = 45.0
_JOB_SECONDS = 90  # that of a test that failed shall not be in the way of the others for longer
_STATE = ".local/state/openclaw-runner/jobs"


def until(happened: Callable[[], Any], what: str, seconds: float = _SETTLE_SECONDS) -> Any:
    """Wait until something is true, and return it."""
    deadline = time.monotonic() + seconds
    while not (value := happened()):
        assert time.monotonic() < deadline, f"not in {seconds:g} s: {what}"
        time.sleep(0.02)
    return value


def exec_payload(script: str) -> dict[str, Any]:
    """What a task of type exec has to know to run a script."""
    return {"argv": ["bash", "-c", script], "timeout": _JOB_SECONDS * 1000}


class Agent:
    """An agent on its node, and the dialect that its runner speaks."""

    def __init__(self, name: str, machine: Machine) -> None:
        self.name = name
        self.machine = machine
        self.dialect = "jobs"
        self._home = Path("/nonexistent")

    @property
    def home(self) -> Path:
        """Its home, as this machine sees it while the node is up; each boot has another."""
        if not self._home.is_dir():
            self._home = Path(f"/proc/{self.machine.process(1)}/root/home/{self.name}")
        return self._home

    @property
    def workspace(self) -> Path:
        """Where its jobs write."""
        return self.home / "workspace"

    def attempt(self, job: str, epoch: int = 1) -> Path:
        """The journal's directory of an attempt."""
        return self.home / _STATE / f"job-{job}-e{epoch}"

    def unit(self, job: str, epoch: int = 1) -> Path:
        """The unit's file of an attempt."""
        uid = self.home.stat().st_uid
        return self.home.parents[1] / f"run/user/{uid}/systemd/user/job-{job}-e{epoch}.service"

    def claims(self) -> list[str]:
        """The attempts that the runner holds."""
        return sorted(claim.parent.name for claim in (self.home / _STATE).glob("job-*/claim.json"))

    @property
    def runner(self) -> int | None:
        """The runner's process, by this machine's id."""
        with suppress(OSError):
            uid = self.home.stat().st_uid
            return _find(self.machine, "runner_app", "run", uid)
        return None

    def go(self, job: str) -> None:
        """Let a job of `script_until(go-ID)` end."""
        (self.workspace / f"go-{job}").touch()


class Stand:
    """The fleet, with a bot's client."""

    def __init__(self, fleet: TestFleet, token: str) -> None:
        self.fleet = fleet
        headers = {"Authorization": f"Bearer {token}"}
        self.bot = httpx.Client(base_url=fleet.url, headers=headers, timeout=30, trust_env=False)
        self.token = token
        self._lease = 0
        self.broker_host = fleet.lab.machine("broker-1")
        nodes = {"agent1": "agents-1", "agent2": "agents-1", "agent3": "agents-2"}
        self.agents = {name: Agent(name, fleet.lab.machine(node)) for name, node in nodes.items()}

    @property
    def broker(self) -> int | None:
        """The broker's process, by this machine's id."""
        return _find(self.broker_host, "broker_app", "serve", None)

    def order(self, agent: str | None, script: str) -> dict[str, Any]:
        """What a job of the jobs dialect is that keeps the ledger, for an agent or for any."""
        return {"command": "exec", "payload": json.dumps(exec_payload(script)), "agent": agent}

    def submit(self, agent: str | None, script: str, **more: Any) -> str:
        """Queue such a job."""
        body = {**self.order(agent, script), **more}
        return str(self.bot.post("/jobs", json=body).raise_for_status().json()["id"])

    def job(self, job: str, wait: float = 0) -> dict[str, Any]:
        """What the broker knows of a job."""
        return dict(self.bot.get(f"/jobs/{job}", params={"wait": wait}).raise_for_status().json())

    def ended(self, job: str, seconds: float = _SETTLE_SECONDS) -> dict[str, Any]:
        """Wait for a job's end."""

        def look() -> dict[str, Any] | None:
            with suppress(httpx.TransportError, httpx.HTTPStatusError):
                found = self.job(job, wait=5)
                return found if found["status"] in {"done", "failed"} else None
            return None

        return dict(until(look, f"the end of job {job}", seconds))

    def lease(self, seconds: int) -> None:
        """Have the broker give jobs that are submitted from now on leases of that length."""
        if seconds != self._lease:
            setting = f"sudo sed -i s/^LEASE_SECONDS=.*/LEASE_SECONDS={seconds}/ /etc/openclaw/broker.env"
            self.broker_host.ssh(f"{setting} && sudo systemctl restart openclaw-broker")
            self._lease = seconds

    def answers(self) -> bool:
        """Whether the broker answers."""
        with suppress(httpx.TransportError):
            return self.bot.get("/jobs", params={"limit": 1}).is_success
        return False

    def all_well(self) -> None:
        """Put everything right, and wait until every runner works again."""
        for machine in self.fleet.lab.lab.machines():
            machine.resume()
            machine.heal()
            if not machine.is_running:
                machine.start()
                machine.wait()
        until(self.answers, "the broker answers")
        for agent in self.agents.values():
            until(partial(getattr, agent, "runner"), f"the runner of {agent.name} runs")


@contextmanager
def deployed(purpose: str) -> Iterator[Stand]:
    """A fleet on a lab that is taken down afterwards, or the one that somebody else has converged."""
    if converged := os.environ.get(CONVERGED):
        with _stand(TestFleet(converged)) as stand:
            yield stand
        return
    fleet = TestFleet(purpose)
    fleet.lab.run("down")
    try:
        up = fleet.fleet("up", timeout=900)
        assert up.returncode == 0, up.stdout + up.stderr
        with _stand(fleet) as stand:
            yield stand
    finally:
        fleet.lab.run("down")


@contextmanager
def _stand(fleet: TestFleet) -> Iterator[Stand]:
    with fleet.token("bot", "faults") as token:
        stand = Stand(fleet, token)
        yield stand
        stand.bot.close()


@contextmanager
def stopped_after(pid: int, call: str, log: Path) -> Iterator[Callable[[], bool]]:
    """Have a process stop after its next call of a system call; it goes on, where it lives, when the context ends.

    Yields:
        What says whether it has stopped.
    """
    inject = f"inject={call}:signal=SIGSTOP:when=1"
    tracer = subprocess.Popen(["strace", "-f", "-e", f"trace={call}", "-e", inject, "-o", str(log), "-p", str(pid)])

    def has_stopped() -> bool:
        if "stopped by SIGSTOP" not in log.read_text():
            return False
        # Without strace: it stays stopped, and is dead at once when it is killed.
        tracer.terminate()
        tracer.wait(10)
        return True

    try:
        until(lambda: _status(pid, "TracerPid") == str(tracer.pid), "strace is attached", 10)
        yield has_stopped
    finally:
        tracer.terminate()
        tracer.wait(10)
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)


def kill(pid: int | None) -> None:
    """Kill a process as kill -9 does, and return when it is gone."""
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    until(lambda: not _is_alive(pid), f"the end of process {pid}", 10)


def _find(machine: Machine, program: str, verb: str, uid: int | None) -> int | None:
    for pid in cgroups.processes(machine.cgroup):
        with suppress(OSError):
            folder = Path(f"/proc/{pid}")
            words = (folder / "cmdline").read_text().split("\0")
            if words[-4:] == ["-m", program, verb, ""] and uid in (None, folder.stat().st_uid):
                return pid
    return None


def inside(pid: int) -> int:
    """The id that a process has on its host."""
    return int(_status(pid, "NSpid").split()[1])


def _status(pid: int, key: str) -> str:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(line.partition(":")[2].strip() for line in lines if line.startswith(f"{key}:"))


def _is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False
