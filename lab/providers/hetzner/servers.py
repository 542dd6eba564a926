"""hcloud.Server: as internal/server/resource.go of the Terraform provider has it."""

from __future__ import annotations

import base64
import binascii
import hashlib
import ipaddress
from typing import TYPE_CHECKING, Any

from hcloud.firewalls import Firewall, FirewallResource
from hcloud.images import Image
from hcloud.locations import Location
from hcloud.networks import Network
from hcloud.placement_groups import PlacementGroup
from hcloud.server_types import ServerType
from hcloud.servers import Server, ServerCreatePublicNetwork

from lab.providers.hetzner.api import Api, found
from lab.providers.kinds import Kind, Made, ProviderError

if TYPE_CHECKING:
    from hcloud.ssh_keys import BoundSSHKey

    from lab.providers.values import Properties

_SHUTDOWN_CHECKS = 5
_NOT_READ = ("sshKeys", "publicNets", "keepDisk", "shutdownBeforeDeletion")


class Servers(Kind):
    """Servers, with their membership in networks, groups and firewalls."""

    computed = (
        "backupWindow",
        "firewallIds",
        "ipv4Address",
        "ipv6Address",
        "ipv6Network",
        "location",
        "primaryDiskSize",
        "status",
    )

    def __init__(self, api: Api) -> None:
        self._api = api
        self._servers = api.client.servers

    def check(self, inputs: Properties) -> None:
        """Refuse two attachments to one network, as resourceServerCustomizeDiff does."""
        ids = [_network_id(network) for network in inputs.get("networks", [])]
        if len(ids) != len(set(ids)):
            raise ProviderError(f"networks: a server can be in a network only once: {ids}")

    def create(self, inputs: Properties, made: Made) -> None:
        """Make a server, then attach it to its networks, then protect it."""
        response = self._servers.create(
            name=inputs["name"],
            server_type=ServerType(name=inputs["serverType"]),
            image=self._image(inputs),
            ssh_keys=[self._ssh_key(key) for key in inputs.get("sshKeys", [])],
            firewalls=[Firewall(id=int(firewall)) for firewall in inputs.get("firewallIds", [])],
            user_data=inputs.get("userData"),
            labels=inputs.get("labels"),
            location=Location(name=inputs["location"]) if inputs.get("location") else None,
            placement_group=_group(inputs.get("placementGroupId")),
            public_net=_public_net(inputs.get("publicNets") or [{}]),
        )
        made(str(response.server.id))
        self._api.wait(response.action, *response.next_actions)
        for network in inputs.get("networks", []):
            self._attach(response.server, network)
        if inputs.get("deleteProtection") or inputs.get("rebuildProtection"):
            self._protect(response.server, inputs)

    def read(self, object_id: str, known: Properties) -> Properties | None:
        """Return the state; the API tells neither user data nor SSH keys."""
        if not (server := found(self._servers.get_by_id, object_id)):
            return None
        kept: Properties = {
            name: known[name] for name in ("sshKeys", "keepDisk", "shutdownBeforeDeletion") if name in known
        }
        if known.get("userData"):
            kept["userData"] = fingerprint(known["userData"])
        if "networks" in known:  # else another resource may manage them
            kept["networks"] = _networks(server, known["networks"])
        return {
            **kept,
            **_addresses(server),
            "name": server.name,
            "location": server.location.name,
            "status": server.status,
            "serverType": server.server_type.name,
            "image": _image_name(server, known),
            "backupWindow": server.backup_window or "",
            "labels": server.labels,
            "deleteProtection": server.protection["delete"],
            "rebuildProtection": server.protection["rebuild"],
            "firewallIds": [attached.firewall.id for attached in server.public_net.firewalls or []],
            "placementGroupId": server.placement_group.id if server.placement_group else None,
            "primaryDiskSize": server.primary_disk_size,
        }

    def update(self, object_id: str, changed: Properties, news: Properties) -> None:
        """Change a server in place. Its type needs it off, which the API turns it on from by itself."""
        if "publicNets" in changed:
            raise ProviderError("publicNets: the lab's stand-in changes no addresses of a server that is there")
        server: Any = self._servers.get_by_id(int(object_id))
        if "name" in changed:
            server.update(name=changed["name"])
        if "labels" in changed:
            server.update(labels=changed["labels"] or {})
        if "serverType" in changed:
            if server.status == Server.STATUS_RUNNING:
                self._api.wait(server.power_off())
            type_ = ServerType(name=changed["serverType"])
            self._api.wait(server.change_type(type_, upgrade_disk=not news.get("keepDisk", False)))
        if "networks" in changed:
            self._set_networks(server, changed["networks"] or [])
        if "firewallIds" in changed:
            self._set_firewalls(server, {int(firewall) for firewall in changed["firewallIds"] or []})
        if "placementGroupId" in changed:
            self._set_group(server, changed["placementGroupId"])
        if "deleteProtection" in changed or "rebuildProtection" in changed:
            self._protect(server, news)

    def delete(self, object_id: str, state: Properties) -> None:
        """Delete a server. One that is gone already is an error here, as it is to the plugin: refresh first."""
        server = Server(id=int(object_id))
        if state.get("shutdownBeforeDeletion"):
            self._api.wait(self._servers.shutdown(server))
            self._await_off(int(object_id))
        self._api.wait(self._servers.delete(server))

    def _await_off(self, server_id: int) -> None:
        for _ in range(_SHUTDOWN_CHECKS):
            if self._servers.get_by_id(server_id).status == Server.STATUS_OFF:
                return
            self._api.pause()

    def _image(self, inputs: Properties) -> Image:
        type_ = self._api.client.server_types.get_by_name(inputs["serverType"])
        if type_ is None:
            raise ProviderError(f"serverType: there is no {inputs['serverType']}")
        name = inputs.get("image", "")
        if name.isdigit():
            return Image(id=int(name))
        image = self._api.client.images.get_by_name_and_architecture(name, type_.architecture or "")
        if image is None:
            raise ProviderError(f"image: there is no {name!r} for {type_.architecture}")
        return image

    def _ssh_key(self, id_or_name: str) -> BoundSSHKey:
        keys = self._api.client.ssh_keys
        key = keys.get_by_name(id_or_name) or (found(keys.get_by_id, id_or_name) if id_or_name.isdigit() else None)
        if key is None:
            raise ProviderError(f"sshKeys: there is no SSH key {id_or_name}")
        return key

    def _attach(self, server: Any, network: Properties) -> None:
        self._api.wait(
            server.attach_to_network(
                Network(id=_network_id(network)),
                ip=network.get("ip") or None,
                alias_ips=network.get("aliasIps") or None,
                ip_range=str(network["subnetId"]).partition("-")[2] if network.get("subnetId") else None,
            )
        )

    def _set_networks(self, server: Any, networks: list[Properties]) -> None:
        wanted = {_network_id(network): network for network in networks}
        for attached in server.private_net:
            network = wanted.get(attached.network.id)
            if network and network.get("ip") in (None, "", attached.ip):
                del wanted[attached.network.id]
            else:
                self._api.wait(server.detach_from_network(attached.network))
        for network in wanted.values():
            self._attach(server, network)

    def _set_firewalls(self, server: Any, wanted: set[int]) -> None:
        target = [FirewallResource(type=FirewallResource.TYPE_SERVER, server=Server(id=server.id))]
        present = {attached.firewall.id for attached in server.public_net.firewalls or []}
        firewalls = self._api.client.firewalls
        for firewall in present - wanted:
            self._api.wait(*firewalls.remove_from_resources(Firewall(id=firewall), target))
        for firewall in wanted - present:
            self._api.wait(*firewalls.apply_to_resources(Firewall(id=firewall), target))

    def _set_group(self, server: Any, group: int | None) -> None:
        if server.placement_group:
            if server.status != Server.STATUS_OFF:
                raise ProviderError(
                    "placementGroupId: the plugin takes no running server out of a placement group; shut the server "
                    "down, run this again, and start the server"
                )
            self._api.wait(server.remove_from_placement_group())
        if group:
            self._api.wait(server.add_to_placement_group(PlacementGroup(id=group)))

    def _protect(self, server: Any, inputs: Properties) -> None:
        delete, rebuild = inputs.get("deleteProtection", False), inputs.get("rebuildProtection", False)
        self._api.wait(server.change_protection(delete=delete, rebuild=rebuild))


def fingerprint(user_data: str) -> str:
    """Return what the state keeps of user data: its SHA-1 in base64 (userDataHashSum), if it is not that already."""
    try:
        if len(base64.b64decode(user_data, validate=True)) == hashlib.sha1(usedforsecurity=False).digest_size:
            return user_data
    except (binascii.Error, ValueError):
        pass
    return base64.b64encode(hashlib.sha1(user_data.encode(), usedforsecurity=False).digest()).decode()


def _network_id(network: Properties) -> int:
    return int(network.get("networkId") or str(network["subnetId"]).partition("-")[0])


def _group(group_id: int | None) -> Any:
    return PlacementGroup(id=group_id) if group_id else None


def _public_net(nets: list[Properties]) -> ServerCreatePublicNetwork:
    if any(net.get("ipv4") or net.get("ipv6") for net in nets):
        raise ProviderError("publicNets: the lab's stand-in knows no primary addresses; leave ipv4 and ipv6 out")
    return ServerCreatePublicNetwork(
        enable_ipv4=all(net.get("ipv4Enabled", True) for net in nets),
        enable_ipv6=all(net.get("ipv6Enabled", True) for net in nets),
    )


def _image_name(server: Any, known: Properties) -> str:
    if not server.image:
        return str(known.get("image", ""))
    by_id = known.get("image") == str(server.image.id)
    return str(server.image.id) if by_id or not server.image.name else server.image.name


def _addresses(server: Any) -> Properties:
    net = server.public_net
    addresses = {"ipv4Address": net.ipv4.ip if net.ipv4 else ""}
    if net.ipv6:
        network = ipaddress.IPv6Network(net.ipv6.ip)
        addresses |= {"ipv6Network": str(network), "ipv6Address": str(network[1])}
    return addresses


def _networks(server: Any, known: list[Properties]) -> list[Properties]:
    named_by = {_network_id(network): network for network in known}
    attached = []
    for private in server.private_net:
        named = named_by.get(private.network.id, {"networkId": private.network.id})
        names = {key: named[key] for key in ("networkId", "subnetId") if named.get(key)}
        rest = {"ip": private.ip, "aliasIps": private.alias_ips or [], "macAddress": private.mac_address}
        attached.append(names | rest)
    return attached
