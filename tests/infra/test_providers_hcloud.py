"""The hcloud stand-in against the stand-in of Hetzner's API: what it sends, and what it makes of the answers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import grpc
import pytest
from hcloud.servers import Server
from pulumi.runtime.proto import provider_pb2

from lab.providers.hetzner.servers import fingerprint
from lab.providers.values import UNKNOWN, unpack
from tests.support.plugins import Resources, configure, started

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.engine import Apis

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl one"


class Cloud:
    """The provider's kinds, and names that were not used yet."""

    def __init__(self, channel: grpc.Channel, apis: Apis) -> None:
        self._channel = channel
        self._count = 0
        self.apis = apis
        self.api = apis.cloud

    def __getattr__(self, kind: str) -> Resources:
        return Resources(self._channel, f"hcloud:index/{kind[0].lower()}{kind[1:]}:{kind}")

    def name(self) -> str:
        self._count += 1
        return f"thing-{self._count}"

    def server(self, **inputs: Any) -> tuple[str, dict[str, Any], dict[str, Any]]:
        """Make a server; return its id, inputs and state."""
        inputs = {"name": self.name(), "serverType": "cx23", "image": "debian-12", **inputs}
        return self._made(self.Server, inputs)

    def made(self, kind: str, **inputs: Any) -> tuple[str, dict[str, Any], dict[str, Any]]:
        return self._made(getattr(self, kind), {"name": self.name(), **inputs})

    @staticmethod
    def _made(resources: Resources, inputs: dict[str, Any]) -> tuple[str, dict[str, Any], dict[str, Any]]:
        object_id, state = resources.create(inputs)
        return object_id, inputs, state


@pytest.fixture(scope="module")
def cloud(apis: Apis) -> Iterator[Cloud]:
    with started("lab.providers", "hcloud") as (_, channel):
        settings = {k.partition(":")[2]: v for k, v in apis.settings.items() if k.startswith("hcloud:")}
        configure(channel, "hcloud", **settings)
        yield Cloud(channel, apis)


def test_a_server_is_made_whole(cloud: Cloud) -> None:
    network, *_ = cloud.made("Network", ipRange="10.0.0.0/16")
    subnet = {"networkId": int(network), "type": "cloud", "networkZone": "eu-central", "ipRange": "10.0.1.0/24"}
    subnet_id, subnet_state = cloud.NetworkSubnet.create(subnet)
    assert (subnet_id, subnet_state["gateway"]) == (f"{network}-10.0.1.0/24", "10.0.0.1")
    firewall, *_ = cloud.made("Firewall", rules=[])
    group, *_ = cloud.made("PlacementGroup", type="spread")
    key, *_ = cloud.made("SshKey", publicKey=KEY)
    server, inputs, state = cloud.server(
        location="fsn1",
        labels={"role": "runner"},
        firewallIds=[int(firewall)],
        placementGroupId=int(group),
        sshKeys=[key],
        networks=[{"networkId": int(network)}],
        publicNets=[{"ipv4Enabled": True, "ipv6Enabled": True}],
        deleteProtection=True,
        rebuildProtection=True,
        userData="#cloud-config\n",
    )
    there = cloud.api.servers.get_by_id(int(server))
    assert there.protection == {"delete": True, "rebuild": True}
    assert state["networks"][0]["ip"] == there.private_net[0].ip  # type: ignore[index]
    assert state["userData"] == fingerprint("#cloud-config\n") != "#cloud-config\n"
    assert state["ipv6Address"].endswith("::1")
    expected = {
        "location": "fsn1",
        "firewallIds": [int(firewall)],
        "placementGroupId": int(group),
        "image": "debian-12",
    }
    assert {name: state[name] for name in expected} == expected
    assert cloud.Server.read(server, inputs, state) == (server, inputs, state), "a refresh sees a change where none is"
    unprotected = {**inputs, "deleteProtection": False, "rebuildProtection": False}
    state = cloud.Server.update(server, state, inputs, unprotected)
    cloud.Server.delete(server, state)
    assert cloud.Server.read(server, unprotected, state)[0] == ""


def test_a_preview_calls_nothing_and_leaves_open_what_the_api_decides(cloud: Cloud) -> None:
    name = cloud.name()
    inputs = {"name": name, "serverType": "cx23", "image": "debian-12", "networks": [{"networkId": UNKNOWN}]}
    object_id, state = cloud.Server.create(inputs, preview=True)
    assert (object_id, state["name"], state["ipv4Address"]) == ("", name, UNKNOWN)
    assert cloud.api.servers.get_by_name(name) is None


def test_a_server_s_changes_reach_the_api(cloud: Cloud) -> None:
    server, inputs, state = cloud.server(labels={"a": "1"})
    news = {**inputs, "name": cloud.name(), "labels": {"b": "2"}, "serverType": "cx33"}
    state = cloud.Server.update(server, state, inputs, news)
    there = cloud.api.servers.get_by_id(int(server))
    assert (there.name, there.labels, there.server_type.name) == (news["name"], {"b": "2"}, "cx33")  # type: ignore[union-attr]
    assert there.status == Server.STATUS_RUNNING
    assert state["serverType"] == "cx33"


def test_firewalls_of_a_server_come_and_go(cloud: Cloud) -> None:
    first, second = int(cloud.made("Firewall")[0]), int(cloud.made("Firewall")[0])
    server, inputs, state = cloud.server(firewallIds=[first])
    state = cloud.Server.update(server, state, inputs, {**inputs, "firewallIds": [second]})
    assert state["firewallIds"] == [second]
    cloud.Server.update(server, state, {**inputs, "firewallIds": [second]}, {**inputs, "firewallIds": []})
    assert not cloud.api.servers.get_by_id(int(server)).public_net.firewalls  # type: ignore[union-attr]


def test_a_running_server_stays_in_its_placement_group(cloud: Cloud) -> None:
    group = int(cloud.made("PlacementGroup", type="spread")[0])
    server, inputs, state = cloud.server(placementGroupId=group)
    with pytest.raises(grpc.RpcError, match="placementGroupId: the plugin takes no running server out"):
        cloud.Server.update(server, state, inputs, {**inputs, "placementGroupId": None})


def test_drift_shows_in_inputs_and_only_where_the_program_spoke(cloud: Cloud) -> None:
    server, inputs, state = cloud.server(labels={"a": "1"})
    there = cloud.api.servers.get_by_id(int(server))
    there.update(labels={"a": "2"})
    there.change_protection(delete=True, rebuild=True).wait_until_finished()
    _, seen, now = cloud.Server.read(server, inputs, state)
    assert seen == {**inputs, "labels": {"a": "2"}}
    assert now["deleteProtection"] is True


def test_deleting_a_server_that_is_gone_is_an_error_as_with_the_plugin(cloud: Cloud) -> None:
    server, _, state = cloud.server()
    cloud.api.servers.get_by_id(int(server)).delete().wait_until_finished()
    with pytest.raises(grpc.RpcError, match="not_found"):
        cloud.Server.delete(server, state)


@pytest.mark.parametrize("kind", ["Firewall", "Network", "SshKey", "Volume"])
def test_deleting_anything_else_that_is_gone_is_fine(cloud: Cloud, kind: str) -> None:
    inputs: dict[str, dict[str, Any]] = {
        "Network": {"ipRange": "10.9.0.0/16"},
        "SshKey": {"publicKey": KEY.replace("Jl one", "Jm")},
        "Volume": {"size": 10, "location": "fsn1"},
    }
    object_id, _, state = cloud.made(kind, **inputs.get(kind, {}))
    getattr(cloud, kind).delete(object_id, state)
    getattr(cloud, kind).delete(object_id, state)
    assert getattr(cloud, kind).read(object_id, {}, {})[0] == ""


def test_a_protected_server_is_not_deleted(cloud: Cloud) -> None:
    server, _, state = cloud.server(deleteProtection=True, rebuildProtection=True)
    with pytest.raises(grpc.RpcError, match="protected"):
        cloud.Server.delete(server, state)


def test_an_import_tells_what_a_program_must_say(cloud: Cloud) -> None:
    volume, _, state = cloud.made("Volume", size=10, location="fsn1", labels={"a": "b"})
    _, seen, now = cloud.Volume.read(volume, {}, {})
    assert seen == {"name": state["name"], "size": 10, "location": "fsn1", "labels": {"a": "b"}}
    assert now["linuxDevice"] == state["linuxDevice"]


def test_a_volume_grows_and_moves(cloud: Cloud) -> None:
    first, second = cloud.server(location="fsn1")[0], cloud.server(location="fsn1")[0]
    volume, inputs, state = cloud.made("Volume", size=10, location="fsn1", format="ext4", deleteProtection=True)
    attachment = {"volumeId": int(volume), "serverId": int(first), "automount": False}
    assert cloud.VolumeAttachment.create(attachment) == (volume, attachment)
    cloud.VolumeAttachment.delete(volume, attachment)
    assert cloud.VolumeAttachment.read(volume, attachment, attachment)[0] == ""
    moved = {**attachment, "serverId": int(second)}
    cloud.VolumeAttachment.create(moved)
    news = {**inputs, "size": 20, "deleteProtection": False}
    state = cloud.Volume.update(volume, state, inputs, news)
    assert (state["size"], state["serverId"], state["format"]) == (20, int(second), "ext4")
    cloud.Volume.delete(volume, state)


def test_the_last_rule_of_a_firewall_stays_as_with_the_plugin(cloud: Cloud) -> None:
    ssh = {"direction": "in", "protocol": "tcp", "port": "22", "sourceIps": ["192.0.2.0/24"], "description": "rescue"}
    udp = {"direction": "in", "protocol": "udp", "port": "41641", "sourceIps": ["0.0.0.0/0", "::/0"]}
    firewall, inputs, state = cloud.made("Firewall", rules=[udp, ssh])
    only = {**inputs, "rules": [ssh]}
    state = cloud.Firewall.update(firewall, state, inputs, only)
    assert [rule.port for rule in cloud.api.firewalls.get_by_id(int(firewall)).rules or []] == ["22"]
    cloud.Firewall.update(firewall, state, only, {**inputs, "rules": []})
    assert [rule.port for rule in cloud.api.firewalls.get_by_id(int(firewall)).rules or []] == ["22"]


def test_a_firewall_in_use_is_taken_off_and_deleted(cloud: Cloud) -> None:
    firewall, _, state = cloud.made("Firewall")
    server, *_ = cloud.server(firewallIds=[int(firewall)])
    cloud.Firewall.delete(firewall, state)
    assert not cloud.api.servers.get_by_id(int(server)).public_net.firewalls  # type: ignore[union-attr]


def test_what_the_api_refuses_is_told_in_its_words(cloud: Cloud) -> None:
    _, inputs, _ = cloud.server()
    with pytest.raises(grpc.RpcError, match="uniqueness_error"):
        cloud.Server.create(inputs)
    with pytest.raises(grpc.RpcError, match="image: there is no 'debian-9'"):
        cloud.server(image="debian-9")


def test_two_attachments_to_one_network_are_refused_before_anything_is_made(cloud: Cloud) -> None:
    name = cloud.name()
    with pytest.raises(grpc.RpcError, match="networks: a server can be in a network only once"):
        cloud.server(name=name, networks=[{"networkId": 1}, {"subnetId": "1-10.0.0.0/24"}])
    assert cloud.api.servers.get_by_name(name) is None


def partial(error: grpc.RpcError) -> provider_pb2.ErrorResourceInitFailed:
    from google.rpc import status_pb2  # noqa: PLC0415

    status = status_pb2.Status.FromString(dict(error.trailing_metadata())["grpc-status-details-bin"])
    failed = provider_pb2.ErrorResourceInitFailed()
    assert status.details[0].Unpack(failed)
    return failed


def test_a_server_whose_creation_fails_halfway_is_kept_and_completed_later(cloud: Cloud) -> None:
    cloud.apis.fault(action="create_server", code="action_failed", message="no disk")
    name = cloud.name()
    inputs = {
        "name": name,
        "serverType": "cx23",
        "image": "debian-12",
        "deleteProtection": True,
        "rebuildProtection": True,
    }
    with pytest.raises(grpc.RpcError, match="no disk") as raised:
        cloud.Server.create(inputs)
    failed = partial(raised.value)
    assert failed.id == str(cloud.api.servers.get_by_name(name).id)  # type: ignore[union-attr]
    assert "no disk" in failed.reasons[0]
    seen = unpack(failed.inputs)
    assert seen == {**inputs, "deleteProtection": False, "rebuildProtection": False}, "what is left to do is lost"
    assert set(cloud.Server.diff(seen, inputs).diffs) == {"deleteProtection", "rebuildProtection"}
    cloud.Server.update(failed.id, unpack(failed.properties), seen, inputs)
    assert cloud.api.servers.get_by_id(int(failed.id)).protection["delete"]  # type: ignore[index]


def test_a_creation_that_made_nothing_leaves_nothing(cloud: Cloud) -> None:
    cloud.apis.fault(match="POST /servers", code="resource_unavailable", status=412)
    with pytest.raises(grpc.RpcError, match="resource_unavailable") as raised:
        cloud.server()
    assert "grpc-status-details-bin" not in dict(raised.value.trailing_metadata())


def test_a_property_that_is_only_recorded_calls_nothing(cloud: Cloud) -> None:
    server, inputs, state = cloud.server()
    cloud.api.servers.get_by_id(int(server)).update(labels={"by": "hand"})
    state = cloud.Server.update(server, state, inputs, {**inputs, "keepDisk": True})
    assert state["keepDisk"] is True
    assert cloud.api.servers.get_by_id(int(server)).labels == {"by": "hand"}
