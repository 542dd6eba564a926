"""A node: its key to the tailnet, its server, and its data volume."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pulumi
import pulumi_hcloud as hcloud
from pulumi import Alias, ComponentResource, Output, ResourceHookBinding, ResourceOptions

from infra import text
from infra.devices import JoinKey
from infra.leftovers import KEY_LABEL
from infra.tailnet import join_key

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pulumi_tailscale as tailscale
    from pulumi import Resource

    from infra.devices import Devices
    from infra.network import Perimeter
    from infra.settings import Node as Declared
    from infra.settings import Role, Settings


_AT_FIRST_START = ("userData", "image", "location", "sshKeys", "networks", "publicNets", "placementGroupId")


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What all nodes of a stack share.

    Attributes:
        labels: Of everything at Hetzner.
        ready: What keys wait for.
    """

    settings: Settings
    labels: Mapping[str, str]
    perimeter: Perimeter
    ssh_keys: list[Output[str]]
    groups: Mapping[tuple[Role, int], Output[int]]
    devices: Devices
    ready: list[Resource]
    server_hooks: ResourceHookBinding
    key_hooks: ResourceHookBinding


class Node(ComponentResource):
    """One node. `host` is its entry in the output `inventory`."""

    def __init__(self, declared: Declared, around: Surroundings) -> None:
        former = [Alias(name=declared.renamed_from)] if declared.renamed_from else []
        super().__init__("fleet:index:Node", declared.name, opts=ResourceOptions(aliases=former))
        self._declared = declared
        self._around = around
        # Not with the node's name in it: another name would be another key.
        description = f"fleet {around.labels['stack']} {declared.role}"
        options = ResourceOptions(
            parent=self, aliases=self._former("key"), depends_on=around.ready, hooks=around.key_hooks
        )
        self._key = join_key(declared, description, options)
        volume = self._volume()
        server = self._server(volume)
        if volume:
            self._attach(volume, server)
        self.host = Output.all(
            name=declared.name,
            role=declared.role,
            id=server.id.apply(int),
            ipv4=server.ipv4_address,
            ipv6=server.ipv6_address,
            private=server.networks.apply(_private_address),
            volume_device=volume.linux_device if volume else None,
            generation=declared.generation,
        )
        self.register_outputs({})

    def _former(self, part: str) -> list[Alias]:
        """Return what a part was called before, for the engine to know it by.

        It would follow the component's own alias, but only as long as that is the component's name in the state, which
        an interrupted `up` may have changed already.
        """
        former = self._declared.renamed_from
        return [Alias(name=f"{former}-{part}")] if former else []

    def _server(self, volume: hcloud.Volume | None) -> hcloud.Server:
        node, around = self._declared, self._around
        return hcloud.Server(
            f"{node.name}-server",
            name=node.name,
            server_type=node.server_type,
            image=node.image,
            location=self._beside(volume) if volume else node.location,
            labels={**around.labels, "role": node.role, KEY_LABEL: self._key.id},
            ssh_keys=around.ssh_keys,
            firewall_ids=[around.perimeter.firewall_id],
            networks=[hcloud.ServerNetworkArgs(network_id=around.perimeter.network_id)],
            placement_group_id=around.groups[node.role, node.placement],
            public_nets=[hcloud.ServerPublicNetArgs(ipv4_enabled=True, ipv6_enabled=True)],
            # A disk once grown could not go back to a smaller type.
            keep_disk=True,
            delete_protection=node.protect,
            rebuild_protection=node.protect,
            user_data=self._user_data(self._key),
            opts=ResourceOptions(
                parent=self,
                aliases=self._former("server"),
                depends_on=[around.perimeter.subnet],
                # What only matters at the first start: no later edit of it may replace a server, or move one that runs.
                ignore_changes=[*_AT_FIRST_START],
                replace_with=[self._key],
                delete_before_replace=True,
                protect=node.protect,
                hooks=around.server_hooks,
            ),
        )

    def _user_data(self, key: tailscale.TailnetKey) -> Output[str]:
        name, around = self._declared.name, self._around

        def render(values: dict[str, Any]) -> str:
            around.devices.note_key(name, JoinKey.read(values["id"], values["created"], values["expires"]))
            return text.cloud_init(name, values["key"], around.settings.ssh_keys, around.settings.tailnet)

        known = Output.all(id=key.id, key=key.key, created=key.created_at, expires=key.expires_at)
        return Output.secret(known.apply(render))

    def _beside(self, volume: hcloud.Volume) -> Output[str]:
        """Return where the volume is: a server elsewhere could not have it."""
        node = self._declared

        def place(location: str) -> str:
            if location != node.location:
                pulumi.log.warn(
                    f"{node.name}: its volume is in {location}, so that the server is made there too; "
                    f"set fleet:nodes.{node.name}.location to {location}"
                )
            return location

        return volume.location.apply(place)

    def _volume(self) -> hcloud.Volume | None:
        node = self._declared
        if node.volume is None:
            return None
        return hcloud.Volume(
            f"{node.name}-volume",
            name=f"{node.name}-data",
            size=node.volume.size,
            location=node.location,
            format="ext4",
            labels={**self._around.labels, "role": node.role},
            delete_protection=node.volume.keep,
            opts=ResourceOptions(
                parent=self,
                aliases=self._former("volume"),
                protect=node.protect,
                retain_on_delete=node.volume.keep,
                ignore_changes=["format", "location"],
                import_=node.volume.adopt,
            ),
        )

    def _attach(self, volume: hcloud.Volume, server: hcloud.Server) -> None:
        hcloud.VolumeAttachment(
            f"{self._declared.name}-attachment",
            volume_id=volume.id.apply(int),
            server_id=server.id.apply(int),
            automount=False,
            opts=ResourceOptions(parent=self, aliases=self._former("attachment"), delete_before_replace=True),
        )


def _private_address(networks: Sequence[Any] | None) -> Any:
    return next((network.ip for network in networks or () if network.ip), None)
