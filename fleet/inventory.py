"""Nodes and agents, as Ansible sees them."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeVar

from fleet.errors import FleetError, UnknownNameError

T = TypeVar("T")

PROJECT = Path(__file__).resolve().parent.parent
_INVENTORY_SECONDS = 60
_OUR_PLUGIN = re.compile(r"Failed to parse inventory with 'auto' plugin: (.+)")


@dataclass(frozen=True)
class Node:
    """A server: how to reach it by SSH. `options` are ssh_config(5) keywords and values."""

    name: str
    address: str
    user: str | None
    port: int | None
    key_file: str | None
    options: dict[str, str]


@dataclass(frozen=True)
class Agent:
    """A worker identity, the name of the node it lives on, and how its runner speaks with the broker."""

    name: str
    type: str
    node: str
    dialect: str


@dataclass(frozen=True)
class Inventory:
    """Everything the command line needs to know of a fleet."""

    nodes: dict[str, Node]
    agents: dict[str, Agent]
    brokers: tuple[str, ...]
    tailnet: tuple[str, ...]
    broker_port: int

    def node(self, name: str) -> Node:
        """Return the node of that name; UnknownNameError where there is none."""
        return _named(self.nodes, name, "node")

    def agent(self, name: str) -> Agent:
        """Return the agent of that name; UnknownNameError where there is none."""
        return _named(self.agents, name, "agent")

    def of_agents(self, names: list[str]) -> Inventory:
        """Return the same with these agents only."""
        return replace(self, agents={name: self.agents[name] for name in names})

    def broker(self) -> Node:
        """Return the broker's node; FleetError where the inventory's group `brokers` is empty."""
        if not self.brokers:
            raise FleetError("the inventory has no host in the group 'brokers'")
        return self.node(self.brokers[0])


def sources(extra: list[Path]) -> list[str]:
    """Return `-i` arguments for Ansible: the project's inventory (its group_vars), then the others.

    With no others there are none: Ansible's own setting counts, which is ansible.cfg's or ANSIBLE_INVENTORY.
    """
    if not extra:
        return []
    return [word for path in (PROJECT / "inventory", *extra) for word in ("-i", str(path))]


def environment() -> dict[str, str]:
    """Return the environment for Ansible's programs: the project's settings, and no files in the home folder."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    home = os.environ.get("ANSIBLE_HOME") or str(cache / "openclaw-fleet" / "ansible")
    return {
        **os.environ,
        # Ansible's programs stand beside this interpreter, also where nobody activated its environment.
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)]),
        "ANSIBLE_CONFIG": str(PROJECT / "ansible.cfg"),
        "ANSIBLE_HOME": home,
        "ANSIBLE_SSH_CONTROL_PATH_DIR": f"{home}/cp",
    }


def load(extra: list[Path]) -> Inventory:
    """Read the inventory with Ansible itself. Templates in connection variables are not rendered.

    Raises:
        FleetError: Ansible could not read it.
    """
    done = subprocess.run(
        ["ansible-inventory", *sources(extra), "--list"],
        cwd=PROJECT,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=_INVENTORY_SECONDS,
        check=False,
    )
    if done.returncode:
        raise FleetError(f"the inventory cannot be read: {_reason(done.stderr)}")
    return parse(json.loads(done.stdout, object_hook=_plain))


def _reason(said: str) -> str:
    """Return why the plugin of openclaw.yml gave up; Ansible tries its other plugins then, and tells of each."""
    ours = _OUR_PLUGIN.search(said)
    return ours[1] if ours else said.strip()


def _plain(value: dict[str, Any]) -> Any:
    """Return what Ansible marks as not to be rendered (values from a stack) without the mark."""
    return value.get("__ansible_unsafe", value)


def parse(listed: dict[str, Any]) -> Inventory:
    """Turn what `ansible-inventory --list` prints into an Inventory."""
    hosts: dict[str, dict[str, Any]] = listed["_meta"]["hostvars"]
    shared = next(iter(hosts.values()), {})
    brokers = tuple(listed.get("brokers", {}).get("hosts", ()))
    port = hosts[brokers[0]].get("broker_port", 8000) if brokers else 8000
    agents = [_agent(number, agent) for number, agent in enumerate(shared.get("agents", []), start=1)]
    return Inventory(
        nodes={name: _node(name, variables) for name, variables in hosts.items()},
        agents={agent.name: agent for agent in agents},
        brokers=brokers,
        tailnet=tuple(listed.get("tailnet", {}).get("hosts", ())),
        broker_port=port,
    )


def _agent(number: int, declared: dict[str, Any]) -> Agent:
    missing = [field for field in ("name", "node") if not declared.get(field)]
    if missing:
        raise FleetError(f"agent {number} of the inventory's list `agents` has no {' and no '.join(missing)}")
    dialect = declared.get("dialect", "jobs")
    return Agent(declared["name"], declared.get("type", ""), declared["node"], dialect)


def _node(name: str, variables: dict[str, Any]) -> Node:
    return Node(
        name=name,
        address=variables.get("ansible_host", name),
        user=variables.get("ansible_user"),
        port=variables.get("ansible_port"),
        key_file=variables.get("ansible_ssh_private_key_file"),
        options=_options(variables.get("ansible_ssh_common_args", "")),
    )


def _options(arguments: str) -> dict[str, str]:
    """Return the `-o Keyword=value` options among ssh arguments."""
    words = shlex.split(arguments)
    pairs = (value.partition("=") for flag, value in pairwise(words) if flag == "-o")
    return {keyword: value for keyword, _, value in pairs}


def _named(known: dict[str, T], name: str, kind: str) -> T:
    if name not in known:
        raise UnknownNameError(f"no {kind} {name!r} in the inventory; there are: {', '.join(sorted(known)) or 'none'}")
    return known[name]
