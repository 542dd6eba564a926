"""The inventory that is shipped, and the example beside it, as Ansible reads them."""

from __future__ import annotations

import json
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import fleet.inventory

PROJECT = Path(__file__).resolve().parents[3]
SOURCES = ("-i", "inventory", "-i", "docs/examples/hosts.yml")


def ansible(command: str, *arguments: str) -> str:
    done = subprocess.run(
        [str(Path(sys.executable).with_name(command)), *SOURCES, *arguments],
        cwd=PROJECT,
        env={**fleet.inventory.environment(), "ANSIBLE_NOCOLOR": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "WARNING" not in done.stderr
    return done.stdout


@cache
def inventory() -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(ansible("ansible-inventory", "--list"))
    return loaded


def variables(host: str) -> dict[str, Any]:
    found: dict[str, Any] = inventory()["_meta"]["hostvars"][host]
    return found


def test_every_agent_lives_on_a_node_of_the_example() -> None:
    nodes = inventory()["runners"]["hosts"]

    assert {agent["node"] for agent in variables(nodes[0])["agents"]} == set(nodes)


def test_every_host_says_where_the_others_reach_it() -> None:
    hosts = inventory()["_meta"]["hostvars"]

    assert all(hosts[host]["private_address"] for host in hosts)


def test_agents_are_declared_once() -> None:
    declared = [path for path in PROJECT.glob("inventory/**/*.yml") if "limits:" in path.read_text()]

    assert declared == [PROJECT / "inventory/group_vars/all.yml"]


def test_the_playbook_reads() -> None:
    assert "playbook: site.yml" in ansible("ansible-playbook", "--syntax-check", "site.yml")
