"""The shape of each answer, held against the answers that the official client is tested with."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from hcloud.firewalls import FirewallResource, FirewallResourceLabelSelector, FirewallRule
from hcloud.networks import NetworkRoute

from tests.infra.test_hetzner_api_resources import KEY, SSH, create_network, create_volume
from tests.support import fixtures
from tests.support.hetzner import create_server, unique

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.hetzner import Hetzner

# The fixtures have it in an image within a server, and not in an image: it is a server's, there by mistake.
_NEVER = "image.protection.rebuild"


@pytest.fixture(scope="module")
def source() -> Path:
    found = fixtures.archive()
    if isinstance(found, str):
        pytest.skip(found)
    return found


def lacking(expected: Any, got: Any, where: str) -> list[str]:
    """Return what `got` lacks or has of another type; null fits everything, and a list is as its first item."""
    if expected is None or got is None:
        return []
    if isinstance(expected, dict) and isinstance(got, dict):
        missing = [f"{where}.{key}" for key in expected.keys() - got.keys() if where.rpartition(".")[2] != "labels"]
        shared = expected.keys() & got.keys()
        return missing + [found for key in shared for found in lacking(expected[key], got[key], f"{where}.{key}")]
    if isinstance(expected, list) and isinstance(got, list):
        return lacking(expected[0], got[0], where) if expected and got else []
    numbers = isinstance(expected, int | float) and isinstance(got, int | float)
    return [] if numbers or type(expected) is type(got) else [f"{where}: {type(got).__name__}"]


def test_a_difference_is_seen() -> None:
    expected = {"server": {"id": 1, "name": "x", "list": [{"a": 1}], "null": None}}
    got = {"server": {"id": "1", "list": [{"b": 1}], "null": 5}}
    assert sorted(lacking(expected, got, "")) == [".server.id: str", ".server.list.a", ".server.name"]


@pytest.fixture(scope="module")
def answers(hetzner: Hetzner) -> dict[str, Any]:
    """One answer of each call, by the fixture that it is compared with."""
    cloud = hetzner.client()
    label = unique("label")
    network, volume = create_network(cloud), create_volume(cloud)
    network.add_route(NetworkRoute("10.100.1.0/24", "10.0.1.9")).wait_until_finished()
    group = cloud.placement_groups.create(unique(), "spread").placement_group
    server = create_server(cloud, networks=[network], volumes=[volume], placement_group=group, labels={label: ""})
    key = cloud.ssh_keys.create(unique(), KEY.format(unique("")[-8:]))
    snapshot = server.create_image(type="snapshot").image
    outbound = FirewallRule("out", "tcp", [], destination_ips=["0.0.0.0/0"], port="80")
    selector = FirewallResource("label_selector", label_selector=FirewallResourceLabelSelector(selector=label))
    targets = [FirewallResource("server", server=server), selector]
    firewall = cloud.firewalls.create(unique(), rules=[SSH, outbound], resources=targets).firewall
    get = {
        ("servers", "response_simple_server"): f"servers/{server.id}",
        ("servers", "response_full_server"): f"servers/{server.id}",
        ("servers", "response_simple_servers"): "servers",
        ("servers", "response_get_actions"): f"servers/{server.id}/actions",
        ("networks", "network_response"): f"networks/{network.id}",
        ("networks", "two_networks_response"): "networks",
        ("firewalls", "firewall_response"): f"firewalls/{firewall.id}",
        ("firewalls", "two_firewalls_response"): "firewalls",
        ("volumes", "volume_response"): f"volumes/{volume.id}",
        ("volumes", "two_volumes_response"): "volumes",
        ("placement_groups", "placement_group_response"): f"placement_groups/{group.id}",
        ("ssh_keys", "ssh_key_response"): f"ssh_keys/{key.id}",
        ("locations", "location_response"): "locations/1",
        ("server_types", "server_type_response"): "server_types/114",
        ("server_types", "two_server_types_response"): "server_types",
        ("images", "image1"): "images/201",
        ("images", "image2"): f"images/{snapshot.id}",
        ("primary_ips", "primary_ip1"): f"primary_ips/{server.public_net.primary_ipv4.id}",
    }
    return {"/".join(name): hetzner.call("GET", f"/v1/{path}").json() for name, path in get.items()} | posted(
        hetzner, cloud, server
    )


def posted(hetzner: Hetzner, cloud: Any, server: Any) -> dict[str, Any]:
    wanted = {"name": unique("server"), "server_type": "cx23", "image": "debian-12", "location": "fsn1"}
    volume = {"name": unique("volume"), "size": 10, "server": create_server(cloud).id}
    firewall = {
        "name": unique(),
        "rules": [SSH.to_payload()],
        "apply_to": [{"type": "server", "server": {"id": server.id}}],
    }
    network = {"name": unique(), "ip_range": "10.0.0.0/16"}
    group = {"name": unique(), "type": "spread"}
    post = {
        "servers/response_create_simple_server": ("servers", wanted),
        "servers/response_server_create_image": (f"servers/{server.id}/actions/create_image", {}),
        "volumes/volume_create_response": ("volumes", volume),
        "firewalls/response_create_firewall": ("firewalls", firewall),
        "networks/network_create_response": ("networks", network),
        "placement_groups/response_create_placement_group": ("placement_groups", group),
    }
    return {name: hetzner.call("POST", f"/v1/{path}", body).json() for name, (path, body) in post.items()}


def test_each_answer_has_the_official_shape(source: Path, answers: dict[str, Any]) -> None:
    found = {}
    for name, answer in answers.items():
        kind, _, fixture = name.partition("/")
        expected = fixtures.answer(source, kind, fixture)
        # Some fixtures are the resource alone, without its envelope.
        got = answer if expected.keys() & answer.keys() else next(iter(answer.values()))
        found[name] = [text for text in lacking(expected, got, "") if not text.endswith(_NEVER)]
    assert {name: texts for name, texts in found.items() if texts} == {}
