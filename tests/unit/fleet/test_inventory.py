"""The inventory as the command line sees it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from fleet import hostkeys, inventory, ssh
from fleet.errors import FleetError, UnknownNameError

if TYPE_CHECKING:
    from pathlib import Path

_LISTED = {
    "brokers": {"hosts": ["broker-1"]},
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
    assert fleet.agent("agent1") == inventory.Agent("agent1", "builder", "agents-1", "jobs")
    assert fleet.node("agents-1").address == "agents-1"
    assert fleet.broker().address == "192.0.2.1"
    assert fleet.broker_port == 8001


@pytest.mark.parametrize("find", ["node", "agent"])
def test_an_unknown_name_is_refused_with_those_there_are(find: str) -> None:
    with pytest.raises(UnknownNameError, match=f"no {find} 'x' in the inventory; there are: a"):
        getattr(inventory.parse(_LISTED), find)("x")


def test_a_fleet_without_a_broker_is_refused() -> None:
    with pytest.raises(FleetError, match="group 'brokers'"):
        inventory.parse({"_meta": {"hostvars": {}}}).broker()


def test_what_is_wrong_with_the_nodes_is_told_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    outputs = tmp_path / "outputs.json"
    outputs.write_text("{}")
    monkeypatch.setenv("OPENCLAW_OUTPUTS", str(outputs))
    with pytest.raises(FleetError, match=r"\Athe inventory cannot be read: .*no output `inventory`.*\Z"):
        inventory.load([])


def test_a_persons_own_ssh_settings_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = tmp_path / "ssh"
    home.mkdir()
    (home / "id").touch()
    (home / "known_hosts").touch()
    config = home / "config"
    config.write_text(f"Host web\n  HostName 192.0.2.9\n  Port 2022\n  IdentityFile {home}/id\n")
    node = inventory.Node("node", "web", "me", None, None, {"UserKnownHostsFile": f"{home}/known_hosts {home}/none"})
    monkeypatch.setattr(ssh, "_SSH", ("ssh", "-F", str(config)))
    settings = ssh.resolved(node)
    text = ssh.ssh_config("node", settings)
    for line in ("hostname 192.0.2.9", "user me", "port 2022", f"identityfile {home}/id"):
        assert f"  {line}\n" in text
    assert str(home / "known_hosts") in hostkeys.known_hosts(settings)
    assert str(home / "none") not in hostkeys.known_hosts(settings)


def test_the_connection_is_the_same_for_programs_and_people() -> None:
    node = inventory.parse(_LISTED).node("broker-1")
    argv = ssh.ssh_argv(node, ["uptime"], terminal=False)
    assert argv == [
        *("ssh", "-l", "deploy", "-p", "2222", "-i", "/keys/id"),
        *("-o", "ConnectTimeout=5", "-o", "ProxyCommand=nc %h %p"),
        *("192.0.2.1", "--", "uptime"),
    ]
