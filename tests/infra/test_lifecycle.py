"""The kit's own program over its life: the real engine, the stand-ins, and a cloud and a tailnet without machines.

Each test begins with a copy of one fleet that is up.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from tests.support.kit import NODES

if TYPE_CHECKING:
    from tests.support.kit import Fleet


def test_a_fleet_is_up_and_settled(fleet: Fleet) -> None:
    fleet.is_settled()
    assert set(fleet.servers()) == set(fleet.apis.devices()) == set(fleet.hosts()) == set(NODES)
    broker = fleet.hosts()["broker-1"]
    assert broker["id"] == fleet.servers()["broker-1"]
    assert broker["volume_device"].startswith("/dev/disk/by-id/scsi-0HC_Volume_")
    assert broker["private"].startswith("10.20.1.")
    assert fleet.apis.devices()["broker-1"]["tags"] == ["tag:broker"]
    assert "tskey-auth" not in fleet.stack.state()


def test_a_node_is_added_beside_the_others(fleet: Fleet) -> None:
    before = fleet.servers()
    fleet.nodes(agents_3={"role": "runner"})
    assert fleet.up() == {"create": ["agents-3", "agents-3-key", "agents-3-server"]}
    assert set(fleet.apis.devices()) == {*NODES, "agents-3"}
    assert fleet.servers().items() > before.items()
    fleet.is_settled()


def test_a_node_is_removed_with_its_device(fleet: Fleet) -> None:
    fleet.nodes(agents_2=None)
    assert fleet.up() == {"delete": ["agents-2", "agents-2-key", "agents-2-server"]}
    assert set(fleet.servers()) == set(fleet.apis.devices()) == {"broker-1", "agents-1"}
    fleet.is_settled()


def test_a_node_is_renamed_in_place_with_its_device(fleet: Fleet) -> None:
    server = fleet.servers()["agents-2"]
    fleet.nodes(agents_2=None, scout_1={"role": "runner", "renamedFrom": "agents-2"})
    assert fleet.up() == {"update": ["scout-1-server"]}
    assert fleet.servers()["scout-1"] == server
    assert set(fleet.apis.devices()) == {"broker-1", "agents-1", "scout-1"}
    fleet.is_settled()


def test_a_server_changes_its_type_in_place_and_runs_again(fleet: Fleet) -> None:
    before = fleet.servers()
    fleet.nodes(agents_1={"role": "runner", "type": "cx33"})
    assert fleet.up() == {"update": ["agents-1-server"]}
    assert fleet.servers() == before
    server = fleet.apis.cloud.servers.get_by_name("agents-1")
    assert (server.server_type.name, server.status) == ("cx33", "running")  # type: ignore[union-attr]
    fleet.is_settled()


def test_another_generation_is_another_server_with_a_new_key_and_the_old_name(fleet: Fleet) -> None:
    before, devices = fleet.servers(), fleet.apis.devices()
    fleet.nodes(agents_1={"role": "runner", "generation": 2})
    done = fleet.up()
    assert done["replace"] == ["agents-1-key", "agents-1-server"]
    after = fleet.servers()
    assert after["agents-1"] != before.pop("agents-1")
    assert after.items() > before.items()
    now = fleet.apis.devices()
    assert set(now) == set(NODES)
    assert now["agents-1"]["id"] != devices["agents-1"]["id"]
    assert now["agents-1"]["tags"] == ["tag:runner"]
    fleet.is_settled()


def test_labels_changed_by_hand_are_found_and_put_right(fleet: Fleet) -> None:
    server = fleet.apis.cloud.servers.get_by_name("agents-1")
    assert server
    labels = server.labels
    server.update(labels={"by": "hand"})
    assert fleet.stack.refresh().operations == {"update": ["agents-1-server"]}
    assert fleet.up() == {"update": ["agents-1-server"]}
    server.reload()
    assert server.labels == labels
    fleet.is_settled()


def test_rules_changed_by_hand_are_found_and_put_right(fleet: Fleet) -> None:
    fleet.stack.configure({"tailnet:udp": True})
    assert fleet.up() == {"update": ["lab-firewall"]}
    firewall = fleet.apis.cloud.firewalls.get_by_name("lab")
    assert firewall
    rules = firewall.rules or []
    rules[-1].port = "1-65535"
    for action in firewall.set_rules(rules):
        action.wait_until_finished()
    assert fleet.stack.refresh().operations == {"update": ["lab-firewall"]}
    assert fleet.up() == {"update": ["lab-firewall"]}
    firewall.reload()
    assert "41641" in [rule.port for rule in firewall.rules or []]
    assert "1-65535" not in [rule.port for rule in firewall.rules or []]


def test_a_rule_that_is_wanted_no_longer_is_gone(fleet: Fleet) -> None:
    fleet.stack.configure({"fleet:rescueCidr": "203.0.113.7/32"})
    fleet.up()
    assert "22" in open_ports(fleet)
    fleet.stack.configure({"fleet:rescueCidr": None})
    fleet.up()
    assert "22" not in open_ports(fleet)
    fleet.is_settled()


def open_ports(fleet: Fleet) -> list[str | None]:
    firewall = fleet.apis.cloud.firewalls.get_by_name("lab")
    assert firewall
    return [rule.port for rule in firewall.rules or []]


def test_a_server_deleted_by_hand_is_found_and_made_anew_by_its_next_generation(fleet: Fleet) -> None:
    server = fleet.apis.cloud.servers.get_by_name("agents-1")
    assert server
    server.delete().wait_until_finished()
    device = fleet.apis.devices()["agents-1"]
    fleet.apis.tailnet("DELETE", f"device/{device['id']}")
    assert fleet.stack.refresh().operations == {"delete": ["agents-1-server"]}
    fleet.nodes(agents_1={"role": "runner", "generation": 2})
    fleet.up()
    assert set(fleet.servers()) == set(fleet.apis.devices()) == set(NODES)
    fleet.is_settled()


def test_a_policy_edited_by_hand_is_found_and_put_right(fleet: Fleet) -> None:
    ours = fleet.apis.tailnet("GET", "tailnet/-/acl").text
    opened = {**json.loads(ours), "acls": [{"action": "accept", "src": ["*"], "dst": ["*:*"]}]}
    fleet.apis.tailnet("POST", "tailnet/-/acl", content=json.dumps(opened))
    assert fleet.stack.refresh().operations == {"update": ["policy"]}
    assert fleet.up() == {"update": ["policy"]}
    assert json.loads(fleet.apis.tailnet("GET", "tailnet/-/acl").text) == json.loads(ours)
    fleet.is_settled()


def test_all_is_gone_after_destroy(fleet: Fleet) -> None:
    destroy = fleet.stack.destroy()
    assert destroy.status == 0, destroy.output
    cloud = fleet.apis.cloud
    assert not fleet.servers()
    assert not fleet.apis.devices()
    assert not [*cloud.volumes.get_all(), *cloud.networks.get_all(), *cloud.firewalls.get_all()]
    assert not [*cloud.ssh_keys.get_all(), *cloud.placement_groups.get_all()]
