"""A fleet on a lab of its own, deployed with the commands of the README and looked at from outside."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import httpx
import testinfra

from fleet import inventory
from lab import rehearsal
from lab.stack import LabStack
from tests.support import programs
from tests.support.lab import PROJECT, TestLab

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from testinfra.host import Host

# The purpose of a lab that somebody else has converged; tests/acceptance and tests/faults then look at that one.
CONVERGED = "OPENCLAW_CONVERGED"
_PROGRAMS = Path(sys.executable).parent
# What a person may have set for fleets of their own, and what must not be about the lab's.
_OF_OTHER_FLEETS = {
    "HCLOUD_TOKEN": "of another project",
    "OPENCLAW_OUTPUTS": "/nonexistent/outputs.json",
    "PULUMI_CONFIG_PASSPHRASE": "of another stack",
    "PULUMI_IGNORE_AMBIENT_PLUGINS": "true",
    "PULUMI_STACK": "another",
    "TAILSCALE_API_KEY": "of another tailnet",
}


class TestFleet:
    """The rehearsal's fleet on a lab for one purpose."""

    __test__ = False

    def __init__(self, purpose: str) -> None:
        self.lab = TestLab(purpose)
        self.environment = {**os.environ, "OPENCLAW_LAB": self.lab.name}

    def fleet(
        self, *arguments: str, timeout: float = 600, settings: Mapping[str, str] = MappingProxyType({})
    ) -> subprocess.CompletedProcess[str]:
        """Run `fleet --lab …` to its end; `settings` are added to its environment."""
        argv = [str(_PROGRAMS / "fleet"), "--lab", *arguments]
        return programs.run(argv, environment={**self.environment, **_OF_OTHER_FLEETS, **settings}, timeout=timeout)

    @contextmanager
    def started(self, *arguments: str, stderr: int | None = None) -> Iterator[subprocess.Popen[str]]:
        """Have `fleet --lab …` run, killed at the latest when the context ends; its output is a pipe."""
        argv = [str(_PROGRAMS / "fleet"), "--lab", *arguments]
        environment = {**self.environment, **_OF_OTHER_FLEETS, "PYTHONUNBUFFERED": "1"}
        program = subprocess.Popen(
            argv,
            cwd=PROJECT,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
        )
        with program:
            try:
                yield program
            finally:
                program.kill()

    def kill_up(self, *, after: str) -> None:
        """Start `fleet --lab up` and kill it when it has printed a line that starts so; its children live on."""
        with subprocess.Popen(
            [str(_PROGRAMS / "fleet"), "--lab", "up"],
            cwd=PROJECT,
            env={**self.environment, **_OF_OTHER_FLEETS},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        ) as up:
            for line in up.stdout or ():
                if line.startswith(after):
                    break
            assert up.poll() is None, "it ended before it could be killed"
            up.kill()

    def playbook(self, *arguments: str, timeout: float = 600) -> subprocess.CompletedProcess[str]:
        """Run `ansible-playbook site.yml …` against the lab, as a person at the repository's root would.

        Its nodes are the stack's, where there is one, and else the lab's plain hosts, as one's own inventory.
        """
        stacked = LabStack(self.lab.lab).is_up
        own = ["-i", "inventory", "-i", str(self.lab.lab.inventory)]
        settings = rehearsal.settings(self.lab.lab) if stacked else {"OPENCLAW_OUTPUTS": os.devnull}
        argv = [str(_PROGRAMS / "ansible-playbook"), *([] if stacked else own), "site.yml", *arguments]
        environment = {**self.environment, **inventory.environment(), **settings, "ANSIBLE_FORCE_COLOR": "0"}
        return programs.run(argv, environment=environment, timeout=timeout)

    def program(self, *argv: str, **settings: str) -> subprocess.CompletedProcess[str]:
        """Run a program for which the stack's nodes are the fleet; `settings` are added to its environment."""
        environment = {**inventory.environment(), **rehearsal.settings(self.lab.lab), **settings}
        environment["PATH"] = os.pathsep.join([str(_PROGRAMS), environment["PATH"]])
        program = shutil.which(argv[0], path=environment["PATH"])
        assert program
        return programs.run([program, *argv[1:]], environment=environment, timeout=120)

    def host(self, name: str) -> Host:
        """Return a node as testinfra sees it, over SSH and with root's rights."""
        return testinfra.get_host(f"ssh://{name}", ssh_config=str(self.lab.lab.ssh_config), sudo=True)

    @cached_property
    def url(self) -> str:
        """The broker as the relay on loopback shows it."""
        return f"http://127.0.0.1:{(self.lab.lab.folder / 'relay.port').read_text()}"

    @contextmanager
    def token(self, role: str, name: str) -> Iterator[str]:
        """Mint a token on the broker's node for a while."""
        mint = self.host("broker-1").run_expect([0], f"openclaw-broker token mint {name} --role {role}")
        try:
            yield mint.stdout.strip()
        finally:
            self.host("broker-1").run_expect([0], f"openclaw-broker token revoke {name} --role {role}")

    def status(self) -> dict[str, dict[str, Any]]:
        """Return `fleet status --json` by agent."""
        done = self.fleet("status", "--json")
        assert done.returncode == 0, done.stderr
        return {agent["agent"]: agent for agent in json.loads(done.stdout)}


def changed_tasks(output: str) -> list[tuple[str, str]]:
    """Return (task, host) for everything that a run of a playbook reported as changed, handlers too."""
    found: list[tuple[str, str]] = []
    task = ""
    for line in output.splitlines():
        if heading := re.match(r"^(TASK|RUNNING HANDLER) \[(.*)\]", line):
            task = heading[2]
        elif change := re.match(r"^changed: \[([^ \]]+)", line):
            found.append((task, change[1]))
    return found


class Submitter:
    """A client of the jobs dialect with a bot's token."""

    def __init__(self, url: str, token: str) -> None:
        self._client = httpx.Client(base_url=url, headers={"X-Bot-Token": token}, timeout=60, trust_env=False)

    def submit(self, agent: str, command: str, payload: str) -> str:
        body = {"command": command, "payload": payload, "agent": agent}
        return str(self._client.post("/jobs", json=body).raise_for_status().json()["id"])

    def job(self, job_id: str, *, wait: int = 0) -> dict[str, Any]:
        answer = self._client.get(f"/jobs/{job_id}", params={"wait": wait}).raise_for_status().json()
        assert isinstance(answer, dict)
        return answer

    def close(self) -> None:
        self._client.close()
