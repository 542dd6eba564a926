"""The inventory as the command line sees it."""

from __future__ import annotations

import pytest

from fleet import inventory, ssh
from fleet.errors import FleetError, UnknownNameError

_LISTED = {
    "broker": {"hosts": ["broker-1"]},
    "_meta": {
        "hostvars": {
            "broker-1": {
                "ansible_host": "192.0.2.1",
                "ansible_user": "deploy",
                "ansible_port": 2222,
                "ansible_ssh_private_key_file": "/keys/id",
                "ansible_ssh_common_args": "-4 -o ConnectTimeout=5 -o 'ProxyCommand=nc %h %p'",
                "broker_port": 8001,
                "agents": [{"name": "agent1", "type": "builder", "node": "agents-1"}],
            },
            "agents-1": {"agents": [{"name": "agent1", "type": "builder", "node": "agents-1"}]},
        }
    },
}


def test_nodes_agents_and_the_broker_are_found() -> None:
    fleet = inventory.parse(_LISTED)
    assert fleet.agent("agent1") == inventory.Agent("agent1", "builder", "agents-1")
    assert fleet.node("agents-1").address == "agents-1"
    assert fleet.broker().address == "192.0.2.1"
    assert fleet.broker_port == 8001


@pytest.mark.parametrize("find", ["node", "agent"])
def test_an_unknown_name_is_refused_with_those_there_are(find: str) -> None:
    with pytest.raises(UnknownNameError, match=f"no {find} 'x' in the inventory; there are: a"):
        getattr(inventory.parse(_LISTED), find)("x")


def test_a_fleet_without_a_broker_is_refused() -> None:
    with pytest.raises(FleetError, match="group 'broker'"):
        inventory.parse({"_meta": {"hostvars": {}}}).broker()


def test_the_connection_is_the_same_for_programs_and_people() -> None:
    node = inventory.parse(_LISTED).node("broker-1")
    assert ssh.ssh_config(node).splitlines() == [
        "Host broker-1",
        "  HostName 192.0.2.1",
        "  User deploy",
        "  Port 2222",
        "  IdentityFile /keys/id",
        "  ConnectTimeout 5",
        "  ProxyCommand nc %h %p",
    ]
    argv = ssh.ssh_argv(node, ["uptime"], terminal=False)
    assert argv == [
        *("ssh", "-l", "deploy", "-p", "2222", "-i", "/keys/id"),
        *("-o", "ConnectTimeout=5", "-o", "ProxyCommand=nc %h %p"),
        *("192.0.2.1", "--", "uptime"),
    ]
