"""The lab's hosts as an Ansible inventory, to be read beside the project's own `inventory/`."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Any

import yaml

if TYPE_CHECKING:
    from lab.lab import Lab

# On the lab's bridge it is the firewall that says who reaches the broker; hosts in a tailnet have its policy for that.
_FROM_RUNNERS = {
    "port": "{{ broker_port }}",
    "from": "{{ groups['runners'] | map('extract', hostvars, 'private_address') | list }}",
}


def render(lab: Lab) -> str:
    """Return the inventory as YAML: `private_address` is where other nodes reach a host.

    The cloud's servers are not in it: who made them knows how they are reached.
    """
    machines = [machine for machine in lab.machines() if not machine.spec.server]
    hosts = {m.name: {"ansible_host": m.address, "private_address": m.address} for m in machines}
    groups = {m.spec.group for m in machines if m.spec.group}
    children: dict[str, Any] = {
        g: {"hosts": {m.name: {} for m in machines if m.spec.group == g}} for g in sorted(groups)
    }
    if "brokers" in children:
        children["brokers"]["vars"] = {"base_firewall_allow": [_FROM_RUNNERS]}
    everything: dict[str, Any] = {"vars": _connection(lab), "hosts": hosts, "children": children}
    return yaml.safe_dump({"all": everything}, sort_keys=False)


def _connection(lab: Lab) -> dict[str, str]:
    return {
        "ansible_user": "deploy",
        "ansible_python_interpreter": "/usr/bin/python3",
        "ansible_ssh_private_key_file": str(lab.private_key),
        "ansible_ssh_common_args": " ".join(f"-o {shlex.quote(option)}" for option in lab.ssh_options()),
        # Small, so that a test can fill it.
        "runner_disk": "256M",
    }
