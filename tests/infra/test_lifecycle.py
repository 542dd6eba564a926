"""The kit's own program over its life: the real engine, the stand-ins, and a cloud and a tailnet without machines.

Each test begins with a copy of one fleet that is up.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from tests.support.kit import BROKER, NODES, PUBLIC_KEY

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


def test_a_rename_that_was_interrupted_goes_on_with_the_same_server(fleet: Fleet) -> None:
    server = fleet.servers()["broker-1"]
    volume = fleet.hosts()["broker-1"]["volume_device"]
    fleet.nodes(broker_1=None, hub_1={**BROKER, "renamedFrom": "broker-1"})
    fleet.apis.fault(match="PUT /servers/{id}", code="service_error", status=500, times=20)
    assert fleet.stack.up().status != 0
    fleet.apis.mend()
    done = fleet.up()
    assert "delete" not in done
    assert "create" not in done
    assert fleet.servers()["hub-1"] == server
    assert fleet.hosts()["hub-1"]["volume_device"] == volume
    assert set(fleet.apis.devices()) == {"hub-1", "agents-1", "agents-2"}
    fleet.is_settled()


def test_a_rename_to_a_number_of_another_ten_leaves_the_server_in_its_group(fleet: Fleet) -> None:
    server = fleet.servers()["agents-2"]
    fleet.nodes(agents_2=None, agents_12={"role": "runner", "renamedFrom": "agents-2", "placement": 0})
    assert fleet.up() == {"update": ["agents-12-server"]}
    assert fleet.servers()["agents-12"] == server
    fleet.nodes(agents_12={"role": "runner"})
    assert fleet.up() == {"create": ["lab-runners-1-group"]}
    fleet.is_settled()


def test_only_a_generation_moves_a_node_to_another_location(fleet: Fleet) -> None:
    before = fleet.servers()
    fleet.nodes(agents_1={"role": "runner", "location": "nbg1"})
    fleet.is_settled()
    assert fleet.servers() == before
    fleet.nodes(agents_1={"role": "runner", "location": "nbg1", "generation": 2})
    fleet.up()
    assert fleet.location("agents-1") == "nbg1"
    assert set(fleet.apis.devices()) == set(NODES)
    fleet.is_settled()


def test_a_node_stays_where_its_volume_is(fleet: Fleet) -> None:
    fleet.nodes(broker_1={**BROKER, "location": "nbg1", "generation": 2})
    result = fleet.stack.up().succeeded()
    assert "broker-1: its volume is in fsn1, so that the server is made there too" in result.output
    assert fleet.location("broker-1") == "fsn1"
    assert set(fleet.apis.devices()) == set(NODES)
    fleet.is_settled()


def test_the_network_stays_as_it_was_made(fleet: Fleet) -> None:
    fleet.stack.configure({"fleet:network": {"cidr": "10.30.0.0/16", "subnet": "10.30.1.0/24"}})
    fleet.is_settled()
    assert fleet.hosts()["broker-1"]["private"].startswith("10.20.1.")


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
    fleet.stack.destroy().succeeded()
    cloud = fleet.apis.cloud
    assert not fleet.servers()
    assert not fleet.apis.devices()
    assert not [*cloud.volumes.get_all(), *cloud.networks.get_all(), *cloud.firewalls.get_all()]
    assert not [*cloud.ssh_keys.get_all(), *cloud.placement_groups.get_all()]


def test_an_ssh_key_registered_by_hand_is_used_and_outlives_the_stack(new: Fleet) -> None:
    theirs = new.apis.cloud.ssh_keys.create(name="by hand", public_key=PUBLIC_KEY)
    new.nodes(agents_1=None, agents_2=None)
    assert not [name for name in new.up()["create"] if name.endswith("-ssh-key")]
    new.is_settled()
    destroy = new.stack.destroy()
    assert destroy.status == 0, destroy.output
    (kept,) = new.apis.cloud.ssh_keys.get_all()
    assert (kept.id, kept.name, kept.labels) == (theirs.id, "by hand", {})
