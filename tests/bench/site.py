"""Fresh hosts for a run, and the two ways to make a fleet of them: site.yml, and the shell script."""

from __future__ import annotations

import hashlib
import json
import re
import shlex
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from fleet import broker, inventory
from lab import folders
from lab.process import wait_until
from tests.bench import measure
from tests.support.ansible import logged, module_runs
from tests.support.lab import NODES, PROJECT, TestLab

if TYPE_CHECKING:
    from lab.machines import Machine

PURPOSE = "bench"
_ONLINE_SECONDS = 60
_DECLARED = PROJECT / "inventory/group_vars/all.yml"
_DEFAULTS = PROJECT / "roles/runner/defaults/main.yml"
# What a sysadmin would have in a folder: the roles' files as they stand on a host, save tokens and what depends on
# the number of a user.
_COLLECT = """
cd /
{ grep -rlI 'Managed by Ansible' etc usr/local; find etc/openclaw -type d; } |
  grep -v '/user[-@][0-9][0-9]*[.]' | tar -c --no-recursion -T -
"""
# The names that Ansible gave to apt.
_PACKAGES = "sed -n 's/^Commandline: apt-get .* install -- //p' /var/log/apt/history.log"


@dataclass(frozen=True)
class Converged:
    """One run.

    Attributes:
        usage: What it cost.
        modules: Module runs on each host; none for the script.
        changed: Changed tasks of all hosts.
    """

    usage: measure.Usage
    modules: dict[str, int]
    changed: int


class Site:
    """A fleet of some hosts on the bench's lab, with as many agents per node as the project's inventory declares."""

    def __init__(self, size: int, results: Path) -> None:
        """Describe it; `results` is where the runs' output goes."""
        self.lab = TestLab(PURPOSE)
        self.results = results
        self.scratch = self.lab.lab.folder / "bench"
        self.nodes = [*NODES, *((f"agents-{n}", NODES[2 - n % 2][1], "runners") for n in range(3, size))]
        self.agents: list[dict[str, Any]] = yaml.safe_load(_DECLARED.read_text())["agents"]
        for n in range(3, size):
            like = [agent for agent in self.agents if agent["node"] == f"agents-{2 - n % 2}"]
            first = len(self.agents) + 1
            self.agents += [
                {**agent, "name": f"agent{first + k}", "node": f"agents-{n}"} for k, agent in enumerate(like)
            ]

    def fresh(self) -> None:
        """Make the hosts anew; they have never seen a run, and their connections are new as well."""
        existing = [machine.name for machine in self.lab.lab.machines()]
        if existing:
            self.lab.run("destroy", *existing)
        self.lab.run("create", *(":".join(node) for node in self.nodes))
        self.forget_connections()

    def forget_connections(self) -> None:
        """Have the next run log in anew, as one on another day does."""
        shutil.rmtree(self.scratch, ignore_errors=True)
        self.scratch.mkdir(mode=0o700)

    def site_yml(self, name: str) -> Converged:
        """Run site.yml as a user does: plain SSH, Ansible's own strategy, the project's settings."""
        variables, trace = self.scratch / "agents.json", self.scratch / "ansible.log"
        variables.write_text(json.dumps({"agents": self.agents}))
        usage = self._measured(
            [
                "ansible-playbook",
                *inventory.sources([self.lab.lab.inventory]),
                "site.yml",
                # The project's own fleet needs nothing said.
                *(["-e", f"@{variables}"] if len(self.nodes) > len(NODES) else []),
            ],
            name,
            {"ANSIBLE_HOME": str(self.scratch), **logged(trace)},
        )
        changed = re.findall(r"^\S+ +: ok=\d+ +changed=(\d+)", (self.results / f"{name}.log").read_text(), re.MULTILINE)
        runs = module_runs(trace.read_text())
        modules = {machine.name: runs[machine.address] for machine in self._machines()}
        return Converged(usage, modules, sum(map(int, changed)))

    def script(self, bundle: Path, name: str) -> Converged:
        """Run converge.sh with what `bundle` collected."""
        shutil.copyfile(self.lab.lab.ssh_config, bundle / "ssh_config")
        usage = self._measured([str(Path(__file__).with_name("converge.sh")), str(bundle)], name, {})
        return Converged(usage, {}, 0)

    def bundle(self) -> Path:
        """Collect what converge.sh needs from a fleet that site.yml made."""
        folder = self.lab.lab.folder / f"bundle-{len(self.nodes)}"
        for machine in self._machines():
            mine = folder / machine.name
            mine.mkdir(parents=True)
            role = machine.spec.group.removesuffix("s")
            (mine / "role").write_text(f"{role}\n")
            (mine / "packages").write_bytes(self._root(machine, _PACKAGES))
            (mine / "settings.tar").write_bytes(self._root(machine, _COLLECT))
            release = self._root(machine, f"ls /opt/openclaw/releases/{role}").decode().strip()
            [archive] = (folders.cache() / "artefacts").glob(f"{role}-{release}-*.tgz")
            shutil.copyfile(archive, mine / "release.tgz")
            (mine / "release").write_text(f"{release} {hashlib.sha256(archive.read_bytes()).hexdigest()}\n")
            (mine / "agents").write_text("".join(map(_line, self._agents(machine))))
        return folder

    def _agents(self, machine: Machine) -> list[dict[str, Any]]:
        return [agent for agent in self.agents if agent["node"] == machine.name]

    def wait_online(self) -> None:
        """Wait until every agent asks the broker for work: what was converged is a fleet that works."""
        names = {agent["name"] for agent in self.agents}
        with broker.connect(inventory.load([self.lab.lab.inventory])) as client:

            def online() -> bool | None:
                found = {agent["id"] for agent in client.agents() if agent["status"] == "online"}
                return True if names <= found else None

            wait_until(online, what=f"agents {sorted(names)} to be online", timeout=_ONLINE_SECONDS, pause=0.2)

    def _root(self, machine: Machine, command: str) -> bytes:
        argv = ["ssh", "-F", str(self.lab.lab.ssh_config), machine.name, f"sudo sh -c {shlex.quote(command)}"]
        return subprocess.run(argv, stdout=subprocess.PIPE, check=True, timeout=60).stdout

    def _machines(self) -> list[Machine]:
        return self.lab.lab.machines()

    def _measured(self, argv: list[str], name: str, settings: dict[str, str]) -> measure.Usage:
        group = self.lab.lab.cgroup
        home = str(self.scratch)
        return measure.run(
            argv,
            group=f"{group}/bench",
            hosts={machine.name: machine.cgroup for machine in self._machines()},
            environment={**inventory.environment(), "ANSIBLE_SSH_CONTROL_PATH_DIR": f"{home}/cp", **settings},
            cwd=PROJECT,
            log=self.results / f"{name}.log",
        )


def _line(agent: dict[str, Any]) -> str:
    """Return an agent as host.sh wants it."""
    limits = {"disk": yaml.safe_load(_DEFAULTS.read_text())["runner_disk"], **agent["limits"]}
    return " ".join([agent["name"], *(str(limits[name]) for name in ("memory", "cpu", "tasks", "disk"))]) + "\n"
