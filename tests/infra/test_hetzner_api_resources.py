"""What each call does, seen through the official client, whose results are Any: it types nearly all as optional."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from hcloud.firewalls import Firewall, FirewallResource, FirewallResourceLabelSelector, FirewallRule
from hcloud.images import Image
from hcloud.locations import Location
from hcloud.networks import NetworkRoute, NetworkSubnet
from hcloud.server_types import ServerType
from hcloud.servers import ServerCreatePublicNetwork

from tests.support.hetzner import create_server, unique

if TYPE_CHECKING:
    from tests.support.hetzner import Hetzner

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAI{}A== someone"
SSH = FirewallRule("in", "tcp", ["198.51.100.0/24"], port="22", description="rescue")
ANY_RANGE: Any = None
FSN1 = Location(name="fsn1")


def create_network(cloud: Any, ip_range: str = "10.0.0.0/16", subnet: str = "10.0.1.0/24") -> Any:
    subnets = [NetworkSubnet(ip_range=subnet, type="cloud", network_zone="eu-central")]
    return cloud.networks.create(unique("network"), ip_range, subnets=subnets)


def create_volume(cloud: Any, location: str = "fsn1") -> Any:
    created = cloud.volumes.create(10, unique("volume"), location=Location(name=location), format="ext4")
    created.action.wait_until_finished()
    return cloud.volumes.get_by_id(created.volume.id)


def create_firewall(cloud: Any, **options: Any) -> Any:
    created = cloud.firewalls.create(unique("firewall"), **options)
    for action in created.actions or []:
        action.wait_until_finished()
    return created.firewall


def behind(cloud: Any, server: Any) -> list[int]:
    public_net = cloud.servers.get_by_id(server.id).public_net
    assert public_net
    assert all(entry.status == "applied" for entry in public_net.firewalls or [])
    return [entry.firewall.id for entry in public_net.firewalls or []]


def test_a_server_comes_with_all_that_was_asked_for(cloud: Any) -> None:
    network, volume = create_network(cloud), create_volume(cloud)
    firewall = create_firewall(cloud, rules=[SSH])
    group = cloud.placement_groups.create(unique("group"), "spread").placement_group
    server = create_server(
        cloud, networks=[network], volumes=[volume], firewalls=[firewall], placement_group=group, labels={"role": "x"}
    )
    assert (server.status, server.locked, server.labels) == ("running", False, {"role": "x"})
    assert server.server_type.name == "cx23"
    assert server.image.name == "debian-12"
    assert server.location.name == "fsn1"
    assert [place.ip for place in server.private_net] == ["10.0.1.1"]
    assert [attached.id for attached in server.volumes] == [volume.id]
    assert server.placement_group.id == group.id
    assert behind(cloud, server) == [firewall.id]
    assert {server.public_net.primary_ipv4.id, server.public_net.primary_ipv6.id} == {
        address.id for address in cloud.primary_ips.get_all() if address.assignee_id == server.id
    }
    assert [found.id for found in cloud.networks.get_by_id(network.id).servers] == [server.id]
    assert cloud.placement_groups.get_by_id(group.id).servers == [server.id]
    assert cloud.volumes.get_by_id(volume.id).server.id == server.id


def test_a_deleted_server_leaves_what_outlives_it_and_nothing_else(cloud: Any) -> None:
    network, volume, firewall = create_network(cloud), create_volume(cloud), create_firewall(cloud, rules=[SSH])
    group = cloud.placement_groups.create(unique("group"), "spread").placement_group
    address = cloud.primary_ips.create(name=unique("ip"), type="ipv4", location=FSN1, auto_delete=False).primary_ip
    server = create_server(
        cloud,
        networks=[network],
        volumes=[volume],
        firewalls=[firewall],
        placement_group=group,
        public_net=ServerCreatePublicNetwork(ipv4=address),
    )
    assert server.public_net.ipv4.ip == address.ip
    server.delete().wait_until_finished()
    assert cloud.servers.get_by_name(server.name) is None
    assert cloud.volumes.get_by_id(volume.id).server is None
    assert cloud.firewalls.get_by_id(firewall.id).applied_to == []
    assert cloud.networks.get_by_id(network.id).servers == []
    assert cloud.placement_groups.get_by_id(group.id).servers == []
    assert cloud.primary_ips.get_by_id(address.id).assignee_id is None
    assert server.public_net.primary_ipv6.id not in {other.id for other in cloud.primary_ips.get_all()}


def test_power_goes_off_and_on(cloud: Any) -> None:
    server = create_server(cloud)
    seen = []
    for operation in (server.shutdown, server.power_on, server.reboot, server.reset, server.power_off):
        operation().wait_until_finished()
        seen.append(cloud.servers.get_by_id(server.id).status)
    assert seen == ["off", "running", "running", "running", "off"]


def test_a_server_without_a_start_is_off(cloud: Any) -> None:
    assert create_server(cloud, start_after_create=False).status == "off"


@pytest.mark.parametrize(("upgrades_disk", "disk"), [(False, 40), (True, 80)])
def test_a_server_changes_its_type_while_it_is_off(cloud: Any, upgrades_disk: bool, disk: int) -> None:
    server = create_server(cloud, start_after_create=False)
    server.change_type(ServerType(name="cx33"), upgrade_disk=upgrades_disk).wait_until_finished()
    server = cloud.servers.get_by_id(server.id)
    assert (server.server_type.name, server.primary_disk_size) == ("cx33", disk)


def test_names_and_labels_change(cloud: Any) -> None:
    server, name = create_server(cloud), unique("renamed")
    server.update(name=name, labels={"a": "b"})
    server = cloud.servers.get_by_id(server.id)
    assert (server.name, server.labels) == (name, {"a": "b"})
    server.power_off().wait_until_finished()


def test_a_server_is_rebuilt_from_another_image(cloud: Any) -> None:
    server = create_server(cloud)
    server.rebuild(Image(name="debian-13")).action.wait_until_finished()
    server = cloud.servers.get_by_id(server.id)
    assert (server.image.name, server.status) == ("debian-13", "running")


def test_a_snapshot_makes_another_server(cloud: Any) -> None:
    server = create_server(cloud)
    created = server.create_image(description="before the upgrade", type="snapshot")
    created.action.wait_until_finished()
    image = cloud.images.get_by_id(created.image.id)
    assert (image.status, image.type, image.created_from.id) == ("available", "snapshot", server.id)
    assert create_server(cloud, image=image).image.id == image.id
    image.delete()
    assert image.id not in {other.id for other in cloud.images.get_all()}


def test_an_image_by_name_is_that_of_the_server_types_architecture(cloud: Any) -> None:
    server = create_server(cloud, server_type=ServerType(name="cax11"))
    assert server.image.architecture == "arm"


def test_servers_join_and_leave_networks(cloud: Any) -> None:
    network, server = create_network(cloud), create_server(cloud)
    server.attach_to_network(network, ip="10.0.1.77").wait_until_finished()
    assert [place.ip for place in cloud.servers.get_by_id(server.id).private_net] == ["10.0.1.77"]
    server.detach_from_network(network).wait_until_finished()
    assert cloud.servers.get_by_id(server.id).private_net == []


def test_a_deleted_network_lets_its_servers_go(cloud: Any) -> None:
    network = create_network(cloud)
    server = create_server(cloud, networks=[network])
    network.delete()
    assert cloud.servers.get_by_id(server.id).private_net == []


def test_a_network_gets_and_loses_subnets_and_routes_and_grows(cloud: Any) -> None:
    network = cloud.networks.create(unique("network"), "10.0.0.0/16")
    network.add_subnet(NetworkSubnet(ANY_RANGE, type="cloud", network_zone="eu-central")).wait_until_finished()
    network.add_route(NetworkRoute("10.100.1.0/24", "10.0.0.9")).wait_until_finished()
    network.change_ip_range("10.0.0.0/12").wait_until_finished()
    network = cloud.networks.get_by_id(network.id)
    assert network.ip_range == "10.0.0.0/12"
    assert [(subnet.ip_range, subnet.gateway) for subnet in network.subnets] == [("10.0.0.0/24", "10.0.0.1")]
    network.delete_route(network.routes[0]).wait_until_finished()
    network.delete_subnet(network.subnets[0]).wait_until_finished()
    network = cloud.networks.get_by_id(network.id)
    assert (network.subnets, network.routes) == ([], [])


def test_a_firewall_is_applied_removed_and_changed(cloud: Any) -> None:
    server, firewall = create_server(cloud), create_firewall(cloud)
    assert behind(cloud, server) == []
    target = FirewallResource("server", server=server)
    for action in firewall.apply_to_resources([target]):
        action.wait_until_finished()
    assert behind(cloud, server) == [firewall.id]
    for action in firewall.set_rules([SSH]):
        action.wait_until_finished()
    assert [rule.port for rule in cloud.firewalls.get_by_id(firewall.id).rules] == ["22"]
    for action in firewall.remove_from_resources([target]):
        action.wait_until_finished()
    assert behind(cloud, server) == []


def test_a_label_selector_takes_servers_in_and_out(cloud: Any) -> None:
    label = unique("label")
    selector = FirewallResourceLabelSelector(selector=f"{label}=yes")
    server = create_server(cloud, labels={label: "yes"})
    firewall = create_firewall(
        cloud, rules=[SSH], resources=[FirewallResource("label_selector", label_selector=selector)]
    )
    assert behind(cloud, server) == [firewall.id]
    server.update(labels={label: "no"})
    assert cloud.servers.get_by_id(server.id).public_net.firewalls == []
    server.update(labels={label: "yes"})
    later = create_server(cloud, labels={label: "yes"})
    assert behind(cloud, later) == [firewall.id]


def test_a_volume_is_attached_grown_and_detached(cloud: Any) -> None:
    volume, server = create_volume(cloud), create_server(cloud)
    assert volume.linux_device == f"/dev/disk/by-id/scsi-0HC_Volume_{volume.id}"
    volume.attach(server).wait_until_finished()
    volume.resize(20).wait_until_finished()
    volume = cloud.volumes.get_by_id(volume.id)
    assert (volume.server.id, volume.size, volume.format) == (server.id, 20, "ext4")
    volume.detach().wait_until_finished()
    assert cloud.volumes.get_by_id(volume.id).server is None
    volume.delete()
    assert cloud.volumes.get_by_name(volume.name) is None


def test_a_volume_is_made_on_a_server(cloud: Any) -> None:
    server = create_server(cloud)
    created = cloud.volumes.create(10, unique("volume"), server=server)
    for action in [created.action, *created.next_actions]:
        action.wait_until_finished()
    assert cloud.volumes.get_by_id(created.volume.id).server.id == server.id


def test_a_primary_ip_moves_between_servers(cloud: Any) -> None:
    address = cloud.primary_ips.create(name=unique("ip"), type="ipv4", location=FSN1).primary_ip
    without = ServerCreatePublicNetwork(enable_ipv4=False)
    server = create_server(cloud, public_net=without, start_after_create=False)
    assert server.public_net.ipv4 is None
    address.assign(server.id, "server").wait_until_finished()
    assert cloud.servers.get_by_id(server.id).public_net.ipv4.ip == address.ip
    address.unassign().wait_until_finished()
    assert cloud.servers.get_by_id(server.id).public_net.ipv4 is None
    address.delete()


def test_a_server_changes_its_placement_group(cloud: Any) -> None:
    group = cloud.placement_groups.create(unique("group"), "spread").placement_group
    server = create_server(cloud, start_after_create=False)
    server.add_to_placement_group(group).wait_until_finished()
    assert cloud.servers.get_by_id(server.id).placement_group.id == group.id
    server.remove_from_placement_group().wait_until_finished()
    assert cloud.servers.get_by_id(server.id).placement_group is None
    group.delete()


def test_ssh_keys_are_found_by_name_and_fingerprint(cloud: Any) -> None:
    key = cloud.ssh_keys.create(unique("key"), KEY.format(unique("")[-8:]))
    assert cloud.ssh_keys.get_by_name(key.name).public_key == key.public_key
    assert cloud.ssh_keys.get_by_fingerprint(key.fingerprint).id == key.id
    key.update(labels={"a": "b"})
    assert cloud.ssh_keys.get_by_id(key.id).labels == {"a": "b"}
    create_server(cloud, ssh_keys=[key])
    key.delete()
    assert cloud.ssh_keys.get_by_name(key.name) is None


def test_prices_add_up(hetzner: Hetzner, cloud: Any) -> None:
    pricing = hetzner.call("GET", "/v1/pricing").json()["pricing"]
    for server_type in cloud.server_types.get_all():
        [listed] = [entry for entry in pricing["server_types"] if entry["name"] == server_type.name]
        assert listed["prices"] == server_type.prices
        for price in listed["prices"]:
            amount = price["price_monthly"]
            assert float(amount["gross"]) == pytest.approx(
                float(amount["net"]) * (1 + float(pricing["vat_rate"]) / 100)
            )
    assert float(pricing["volume"]["price_per_gb_month"]["net"]) > 0
    assert {entry["type"] for entry in pricing["primary_ips"]} == {"ipv4", "ipv6"}


def test_lists_come_in_pages_sorted_and_filtered(hetzner: Hetzner, cloud: Any) -> None:
    label = unique("label")
    names = [f"{label}-{number:02}" for number in range(60)]
    for name in names:
        cloud.firewalls.create(name, labels={label: "last" if name == names[-1] else "yes"})
    found = cloud.firewalls.get_all(label_selector=label, sort=["name:desc"])
    assert [firewall.name for firewall in found] == names[::-1]
    query = {"label_selector": f"{label}=yes", "page": 2, "per_page": 25}
    page = hetzner.call("GET", "/v1/firewalls", params=query).json()
    assert [firewall["name"] for firewall in page["firewalls"]] == names[25:50]
    assert page["meta"]["pagination"] == {
        "page": 2,
        "per_page": 25,
        "previous_page": 1,
        "next_page": 3,
        "last_page": 3,
        "total_entries": 59,
    }


@pytest.mark.parametrize(
    ("selector", "chosen"),
    [
        ("env", "ab"),
        ("!env", "c"),
        ("env=dev", "a"),
        ("env==dev", "a"),
        ("env!=dev", "bc"),
        ("env in (dev, prod)", "ab"),
        ("env notin (dev)", "bc"),
        ("env,tier=web", "a"),
        ("env in (dev,prod),!tier", "b"),
    ],
)
def test_label_selectors_choose(cloud: Any, selector: str, chosen: str) -> None:
    labels = {"a": {"env": "dev", "tier": "web"}, "b": {"env": "prod"}, "c": {"other": ""}}
    for name, of_name in labels.items():
        if not cloud.placement_groups.get_by_name(name):
            cloud.placement_groups.create(name, "spread", labels=of_name)
    found = cloud.placement_groups.get_all(label_selector=selector)
    assert sorted(group.name for group in found if group.name in labels) == list(chosen)


def test_what_was_done_to_a_server_can_be_read(cloud: Any) -> None:
    server = create_server(cloud)
    actions = cloud.servers.get_actions(server, sort=["id"])
    assert [action.command for action in actions] == ["create_server", "start_server"]
    assert {action.progress for action in actions} == {100}
    assert cloud.servers.actions.get_by_id(actions[0].id).resources == [{"id": server.id, "type": "server"}]


def test_every_answer_tells_the_calls_left(hetzner: Hetzner) -> None:
    first, second = (hetzner.call("GET", "/v1/servers").headers for _ in range(2))
    assert first["RateLimit-Limit"] == "3600"
    assert int(second["RateLimit-Remaining"]) <= int(first["RateLimit-Remaining"]) < 3600
    assert int(first["RateLimit-Reset"]) > 0


def test_firewalls_of_others_are_untouched(cloud: Any) -> None:
    server, firewall = create_server(cloud), create_firewall(cloud, rules=[SSH])
    assert behind(cloud, server) == []
    assert cloud.firewalls.get_by_id(Firewall(id=firewall.id).id).applied_to == []
