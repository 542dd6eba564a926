"""Each code with which the API refuses, and that nothing is left of what was refused."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hcloud import APIException
from hcloud.firewalls import FirewallResource, FirewallRule
from hcloud.locations import Location
from hcloud.networks import NetworkSubnet
from hcloud.server_types import ServerType
from hcloud.servers import Server, ServerCreatePublicNetwork
from hcloud.volumes import Volume

from tests.infra.test_hetzner_api_resources import KEY, SSH, create_firewall, create_network, create_volume
from tests.support.hetzner import create_server, start_server, unique

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.support.hetzner import Hetzner

NBG1 = Location(name="nbg1")


def refusal(attempt: Callable[[], object]) -> APIException:
    with pytest.raises(APIException) as caught:
        attempt()
    return caught.value


def field(attempt: Callable[[], object]) -> str:
    """Return the field that `invalid_input` names."""
    error = refusal(attempt)
    assert error.code == "invalid_input"
    [entry] = error.details["fields"]
    return str(entry["name"])


@pytest.mark.parametrize("given", [{}, {"Authorization": "Bearer wrong"}, {"Authorization": "Basic x"}])
@pytest.mark.parametrize("path", ["/v1/servers", "/v1/nothing", "/_lab/faults"])
def test_nothing_is_told_without_the_token(hetzner: Hetzner, given: dict[str, str], path: str) -> None:
    answer = hetzner.call("GET", path, headers=given)
    assert answer.status_code == 401
    assert answer.json() == {"error": {"code": "unauthorized", "message": "unable to authenticate", "details": None}}


def test_the_token_is_no_argument(hetzner: Hetzner) -> None:
    assert hetzner.process
    assert hetzner.token.encode() not in Path(f"/proc/{hetzner.process.pid}/cmdline").read_bytes()


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", "/v1/floating_ips"), ("POST", "/v1/servers/1/actions/enable_rescue"), ("PATCH", "/v1/servers/1")],
)
def test_a_call_that_is_not_stood_in_for_is_named(hetzner: Hetzner, method: str, path: str) -> None:
    answer = hetzner.call(method, path)
    assert (answer.status_code, answer.json()["error"]["code"]) == (501, "not_implemented")
    assert f"{method} {path}" in answer.json()["error"]["message"]


def test_a_field_or_parameter_without_effect_is_named(hetzner: Hetzner) -> None:
    answer = hetzner.call("POST", "/v1/placement_groups", {"name": unique(), "type": "spread", "colour": "red"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (501, "not_implemented")
    assert "colour" in answer.json()["error"]["message"]
    assert hetzner.call("GET", "/v1/servers", params={"colour": "red"}).status_code == 501


@pytest.mark.parametrize("body", [b"{", b"[]", b"\xff"])
def test_a_body_that_is_no_json_object(hetzner: Hetzner, body: bytes) -> None:
    answer = hetzner.call("POST", "/v1/ssh_keys", content=body)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "json_error")


def test_what_is_not_there_is_not_found(cloud: Any) -> None:
    for kind in (
        "servers",
        "ssh_keys",
        "networks",
        "firewalls",
        "volumes",
        "placement_groups",
        "primary_ips",
        "images",
    ):
        assert refusal(partial(getattr(cloud, kind).get_by_id, 1)).code == "not_found"
    key = cloud.ssh_keys.create(unique(), KEY.format(unique("")[-8:]))
    assert refusal(lambda: cloud.servers.get_by_id(key.id)).code == "not_found"


@pytest.mark.parametrize(
    "kind", ["firewalls", "networks", "placement_groups", "primary_ips", "servers", "ssh_keys", "volumes"]
)
def test_names_are_unique_within_a_kind(cloud: Any, kind: str) -> None:
    makers: dict[str, Callable[[str], Any]] = {
        "firewalls": cloud.firewalls.create,
        "networks": lambda name: cloud.networks.create(name, "10.0.0.0/16"),
        "placement_groups": lambda name: cloud.placement_groups.create(name, "spread"),
        "primary_ips": lambda name: cloud.primary_ips.create(name=name, type="ipv4", location=NBG1),
        "servers": lambda name: start_server(cloud, name=name),
        "ssh_keys": lambda name: cloud.ssh_keys.create(name, KEY.format(unique("")[-8:])),
        "volumes": lambda name: cloud.volumes.create(10, name, location=NBG1),
    }
    name, other = unique(), unique()
    makers[kind](name)
    makers[kind](other)
    assert refusal(lambda: makers[kind](name)).code == "uniqueness_error"
    records = getattr(cloud, kind)
    assert [record.name for record in records.get_all()].count(name) == 1
    assert refusal(lambda: records.get_by_name(other).update(name=name)).code == "uniqueness_error"
    assert records.get_by_name(name).update(name=name).name == name


def test_a_key_is_kept_once(cloud: Any) -> None:
    material = KEY.format(unique("")[-8:])
    cloud.ssh_keys.create(unique(), material)
    assert refusal(lambda: cloud.ssh_keys.create(unique(), f"{material} again")).code == "uniqueness_error"


@pytest.mark.parametrize(
    ("options", "wrong"),
    [
        ({"name": "under_score"}, "name"),
        ({"name": "-x"}, "name"),
        ({"name": ""}, "name"),
        ({"server_type": ServerType(name="cx1")}, "server_type"),
        ({"location": Location(name="moon")}, "location"),
        ({"location": Location(name="ash")}, "location"),
        ({"labels": {"a": "with space"}}, "labels"),
        ({"labels": {"-": "x"}}, "labels"),
        ({"user_data": "ä" * 16_385}, "user_data"),
        ({"volumes": [Volume(id=1)]}, "volumes"),
        ({"automount": True}, "automount"),
    ],
)
def test_a_server_is_refused_for_a_field(cloud: Any, options: dict[str, Any], wrong: str) -> None:
    before = len(cloud.servers.get_all())
    assert field(lambda: start_server(cloud, **options)) == wrong
    assert len(cloud.servers.get_all()) == before


def test_user_data_may_have_32_kib(cloud: Any) -> None:
    create_server(cloud, user_data="ä" * 16_384)


def test_an_image_for_another_architecture(cloud: Any) -> None:
    [arm] = cloud.images.get_all(name="debian-12", architecture=["arm"])
    assert field(lambda: start_server(cloud, image=arm)) == "image"


def test_a_snapshot_that_is_larger_than_the_disk(cloud: Any) -> None:
    large = create_server(cloud, server_type=ServerType(name="cx33"))
    created = large.create_image(type="snapshot")
    created.action.wait_until_finished()
    assert field(lambda: start_server(cloud, image=created.image)) == "image"


def test_a_volume_of_another_location(cloud: Any) -> None:
    volume, server = create_volume(cloud, "nbg1"), create_server(cloud)
    assert field(lambda: volume.attach(server)) == "server"
    assert field(lambda: start_server(cloud, volumes=[volume])) == "server"
    assert volume.id not in [attached.id for attached in cloud.servers.get_by_id(server.id).volumes]


@pytest.mark.parametrize("size", [9, 10_241])
def test_a_volume_has_10_to_10240_gb(cloud: Any, size: int) -> None:
    assert field(lambda: cloud.volumes.create(size, unique(), location=NBG1)) == "size"


def test_a_volume_cannot_shrink(cloud: Any) -> None:
    volume = create_volume(cloud)
    assert field(lambda: volume.resize(10)) == "size"


def test_a_volume_is_on_one_server(cloud: Any) -> None:
    volume, server = create_volume(cloud), create_server(cloud)
    volume.attach(server).wait_until_finished()
    assert refusal(lambda: volume.attach(create_server(cloud))).code == "volume_already_attached"


def test_what_is_in_use_stays(cloud: Any) -> None:
    volume, firewall = create_volume(cloud), create_firewall(cloud, rules=[SSH])
    group = cloud.placement_groups.create(unique(), "spread").placement_group
    network = create_network(cloud)
    create_server(cloud, volumes=[volume], firewalls=[firewall], placement_group=group, networks=[network])
    for attempt in (volume.delete, firewall.delete, group.delete, lambda: network.delete_subnet(network.subnets[0])):
        assert refusal(attempt).code == "resource_in_use"


def test_what_is_protected_stays(cloud: Any) -> None:
    volume, network, server = create_volume(cloud), create_network(cloud), create_server(cloud)
    address = cloud.primary_ips.create(name=unique(), type="ipv4", location=NBG1).primary_ip
    for protected in (volume, network, address):
        protected.change_protection(delete=True).wait_until_finished()
        assert refusal(protected.delete).code == "protected"
        protected.change_protection(delete=False).wait_until_finished()
        protected.delete()
    server.change_protection(delete=True, rebuild=True).wait_until_finished()
    assert refusal(server.delete).code == "protected"
    assert refusal(lambda: server.rebuild(server.image)).code == "protected"
    server.change_protection(delete=False, rebuild=False).wait_until_finished()
    server.delete().wait_until_finished()


def test_a_server_is_protected_from_deletion_and_rebuilding_alike(cloud: Any) -> None:
    server = create_server(cloud)
    assert field(lambda: server.change_protection(delete=True)) == "rebuild"


def test_a_server_or_volume_with_an_action_is_locked(hetzner: Hetzner, cloud: Any) -> None:
    server, volume = create_server(cloud), create_volume(cloud)
    hetzner.fault(action="stop_server", seconds=5)
    hetzner.fault(action="resize_volume", seconds=5)
    waiting = [server.power_off(), volume.resize(20)]
    assert cloud.servers.get_by_id(server.id).locked
    for attempt in (server.power_on, server.delete, lambda: volume.attach(server), lambda: volume.resize(30)):
        assert refusal(attempt).code == "locked"
    assert hetzner.call("DELETE", f"/v1/volumes/{volume.id}").status_code == 423
    for action in waiting:
        action.wait_until_finished()
    assert not cloud.servers.get_by_id(server.id).locked
    server.power_on().wait_until_finished()


def test_a_network_that_changes_is_locked(hetzner: Hetzner, cloud: Any) -> None:
    network = cloud.networks.create(unique(), "10.0.0.0/16")
    hetzner.fault(action="add_subnet", seconds=3)
    action = network.add_subnet(NetworkSubnet("10.0.1.0/24", "cloud", "eu-central"))
    assert refusal(lambda: network.add_subnet(NetworkSubnet("10.0.2.0/24", "cloud", "eu-central"))).code == "locked"
    action.wait_until_finished()


def test_what_needs_a_server_that_is_off(cloud: Any) -> None:
    server = create_server(cloud)
    group = cloud.placement_groups.create(unique(), "spread").placement_group
    for attempt in (
        lambda: server.change_type(ServerType(name="cx33"), upgrade_disk=False),
        lambda: server.add_to_placement_group(group),
        lambda: cloud.primary_ips.get_by_id(server.public_net.primary_ipv4.id).unassign(),
        lambda: cloud.primary_ips.get_by_id(server.public_net.primary_ipv4.id).delete(),
    ):
        assert refusal(attempt).code == "server_not_stopped"


@pytest.mark.parametrize("name", ["cx23", "cax21", "cx1"])
def test_types_that_a_server_cannot_change_to(cloud: Any, name: str) -> None:
    server = create_server(cloud, start_after_create=False)
    assert field(lambda: server.change_type(ServerType(name=name), upgrade_disk=False)) == "server_type"


def test_a_type_with_a_smaller_disk(cloud: Any) -> None:
    server = create_server(cloud, server_type=ServerType(name="cx33"), start_after_create=False)
    assert field(lambda: server.change_type(ServerType(name="cx23"), upgrade_disk=False)) == "server_type"


def test_a_placement_group_takes_ten_servers(cloud: Any) -> None:
    group = cloud.placement_groups.create(unique(), "spread").placement_group
    for _ in range(10):
        start_server(cloud, placement_group=group)
    assert refusal(lambda: start_server(cloud, placement_group=group)).code == "placement_error"
    other = create_server(cloud, start_after_create=False)
    assert refusal(lambda: other.add_to_placement_group(group)).code == "placement_error"
    assert len(cloud.placement_groups.get_by_id(group.id).servers) == 10


def test_addresses_of_a_network(cloud: Any) -> None:
    network = create_network(cloud, subnet="10.0.1.0/30")
    create_server(cloud, networks=[network]), create_server(cloud, networks=[network])
    server = create_server(cloud)
    for attempt in (lambda: start_server(cloud, networks=[network]), lambda: server.attach_to_network(network)):
        assert refusal(attempt).code == "no_subnet_available"
    for taken in ("10.0.1.1", "10.0.9.9", "10.0.1.3"):
        assert refusal(partial(server.attach_to_network, network, ip=taken)).code == "ip_not_available"
    assert field(lambda: server.attach_to_network(network, ip="x")) == "ip"


def test_a_subnet_of_another_zone(cloud: Any) -> None:
    network = cloud.networks.create(unique(), "10.0.0.0/16", subnets=[NetworkSubnet("10.0.1.0/24", "cloud", "us-east")])
    assert refusal(lambda: start_server(cloud, networks=[network])).code == "no_subnet_available"


def test_networks_of_a_server_are_apart(cloud: Any) -> None:
    one, same, other = create_network(cloud), create_network(cloud), create_network(cloud, "10.1.0.0/16", "10.1.1.0/24")
    server = create_server(cloud, networks=[one])
    assert refusal(lambda: server.attach_to_network(one)).code == "server_already_attached"
    assert refusal(lambda: server.attach_to_network(same)).code == "networks_overlap"
    assert refusal(lambda: server.detach_from_network(other)).code == "server_not_attached_to_network"
    server.attach_to_network(other).wait_until_finished()


@pytest.mark.parametrize(
    ("ip_range", "subnets", "wrong"),
    [
        ("10.0.0.0/25", [], "ip_range"),
        ("10.0.0.1/16", [], "ip_range"),
        ("8.8.0.0/16", [], "ip_range"),
        ("fd00::/64", [], "ip_range"),
        ("10.0.0.0/16", ["10.1.0.0/24"], "ip_range"),
        ("10.0.0.0/16", ["10.0.1.0/24", "10.0.1.128/25"], "ip_range"),
        ("10.0.0.0/16", ["10.0.1.0/31"], "ip_range"),
    ],
)
def test_ranges_that_a_network_cannot_have(cloud: Any, ip_range: str, subnets: list[str], wrong: str) -> None:
    wanted = [NetworkSubnet(text, "cloud", "eu-central") for text in subnets]
    name = unique()
    assert field(lambda: cloud.networks.create(name, ip_range, subnets=wanted)) == wrong
    assert cloud.networks.get_by_name(name) is None


def test_a_network_only_grows(cloud: Any) -> None:
    assert field(lambda: create_network(cloud).change_ip_range("10.0.0.0/24")) == "ip_range"


@pytest.mark.parametrize(
    ("rule", "wrong"),
    [
        (FirewallRule("in", "tcp", ["0.0.0.0/0"]), "rules.0.port"),
        (FirewallRule("in", "tcp", ["0.0.0.0/0"], port="0"), "rules.0.port"),
        (FirewallRule("in", "tcp", ["0.0.0.0/0"], port="90-80"), "rules.0.port"),
        (FirewallRule("in", "udp", ["0.0.0.0/0"], port="65536"), "rules.0.port"),
        (FirewallRule("in", "icmp", ["0.0.0.0/0"], port="1"), "rules.0.port"),
        (FirewallRule("in", "tcp", ["10.0.0.1/8"], port="1"), "rules.0.source_ips"),
        (FirewallRule("in", "tcp", [], port="1"), "rules.0.source_ips"),
        (FirewallRule("out", "tcp", ["0.0.0.0/0"], port="1"), "rules.0.destination_ips"),
        (FirewallRule("up", "tcp", ["0.0.0.0/0"], port="1"), "direction"),
        (FirewallRule("in", "sctp", ["0.0.0.0/0"], port="1"), "protocol"),
    ],
)
def test_rules_that_a_firewall_cannot_have(cloud: Any, rule: FirewallRule, wrong: str) -> None:
    assert field(lambda: cloud.firewalls.create(unique(), rules=[rule])) == wrong


def test_a_firewall_has_at_most_50_rules(cloud: Any) -> None:
    assert field(lambda: cloud.firewalls.create(unique(), rules=[SSH] * 51)) == "rules"


def test_a_firewall_is_applied_once_and_removed_once(cloud: Any) -> None:
    firewall, server = create_firewall(cloud), create_server(cloud)
    target = FirewallResource("server", server=server)
    assert refusal(lambda: firewall.remove_from_resources([target])).code == "firewall_already_removed"
    firewall.apply_to_resources([target])
    assert refusal(lambda: firewall.apply_to_resources([target])).code == "firewall_already_applied"
    absent = FirewallResource("server", server=Server(id=1))
    assert refusal(lambda: firewall.apply_to_resources([absent])).code == "firewall_resource_not_found"


def test_a_primary_ip_that_a_server_cannot_have(cloud: Any) -> None:
    def wanted(kind: str, location: str) -> ServerCreatePublicNetwork:
        created = cloud.primary_ips.create(name=unique(), type=kind, location=Location(name=location))
        return ServerCreatePublicNetwork(ipv4=created.primary_ip)

    assert field(lambda: start_server(cloud, public_net=wanted("ipv6", "fsn1"))) == "public_net.ipv4"
    assert field(lambda: start_server(cloud, public_net=wanted("ipv4", "nbg1"))) == "public_net.ipv4"
    taken = wanted("ipv4", "fsn1")
    create_server(cloud, public_net=taken)
    assert refusal(lambda: start_server(cloud, public_net=taken)).code == "primary_ip_assigned"


@pytest.mark.parametrize(("name", "value"), [("per_page", "51"), ("page", "0"), ("sort", "colour"), ("sort", "id:up")])
def test_lists_that_cannot_be_had(hetzner: Hetzner, cloud: Any, name: str, value: str) -> None:
    cloud.firewalls.create(unique())
    error = hetzner.call("GET", "/v1/firewalls", params={name: value}).json()["error"]
    assert (error["code"], error["details"]["fields"][0]["name"]) == ("invalid_input", name)


@pytest.mark.parametrize("selector", ["a in b", "!a=b", "a=b=c", "a,", "="])
def test_a_label_selector_that_cannot_be_understood(cloud: Any, selector: str) -> None:
    cloud.firewalls.create(unique())
    assert field(lambda: cloud.firewalls.get_all(label_selector=selector)) == "label_selector"


def test_a_project_has_limits(hetzner: Hetzner, cloud: Any) -> None:
    hetzner.limit(server=len(cloud.servers.get_all()), placement_group=0)
    try:
        assert refusal(lambda: start_server(cloud)).code == "resource_limit_exceeded"
        assert refusal(lambda: cloud.placement_groups.create(unique(), "spread")).code == "resource_limit_exceeded"
        cloud.firewalls.create(unique())
    finally:
        hetzner.limit()
    start_server(cloud)
