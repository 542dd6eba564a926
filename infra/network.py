"""What stands around the servers: a private network, and a firewall that lets nothing in."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pulumi_hcloud as hcloud
from pulumi import ComponentResource, ResourceOptions

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pulumi import Output

    from infra.settings import Settings

_ANYWHERE = ["0.0.0.0/0", "::/0"]
# For documentation (RFC 5737): nobody has these addresses, and none of their packets comes through the internet.
_NOBODY = ["192.0.2.0/24"]
WIREGUARD_PORT = 41641


class Perimeter(ComponentResource):
    """The private network with its subnet, and the firewall. An attached firewall drops all that no rule lets in.

    Attributes:
        network_id: The network's number.
        firewall_id: The firewall's number.
        subnet: What servers wait for: without it they get no private address.
    """

    def __init__(self, name: str, settings: Settings, labels: Mapping[str, str]) -> None:
        super().__init__("fleet:index:Perimeter", name)
        child = ResourceOptions(parent=self)
        network = hcloud.Network(
            f"{name}-network",
            name=name,
            ip_range=settings.network.cidr,
            labels=dict(labels),
            # Hetzner neither replaces nor shrinks a network that servers are in.
            opts=ResourceOptions(parent=self, ignore_changes=["ipRange"]),
        )
        self.network_id: Output[int] = network.id.apply(int)
        self.subnet = hcloud.NetworkSubnet(
            f"{name}-subnet",
            network_id=self.network_id,
            type="cloud",
            network_zone=settings.network.zone,
            ip_range=settings.network.subnet,
            opts=ResourceOptions(parent=self, ignore_changes=["ipRange", "networkZone"]),
        )
        firewall = hcloud.Firewall(
            f"{name}-firewall", name=name, rules=_rules(settings), labels=dict(labels), opts=child
        )
        self.firewall_id: Output[int] = firewall.id.apply(int)
        self.register_outputs({"network_id": self.network_id, "firewall_id": self.firewall_id})


def _rules(settings: Settings) -> list[hcloud.FirewallRuleArgs]:
    # Hetzner's provider never takes away the last rule (terraform-provider-hcloud issue 1482): where it had been the
    # way in for rescue, that would stay open for good. So there is always one, which opens nothing.
    rules = [
        hcloud.FirewallRuleArgs(
            direction="in",
            protocol="icmp",
            source_ips=_NOBODY,
            description="nothing; so that no other rule is the last",
        )
    ]
    if settings.tailnet.udp:
        rules.append(
            hcloud.FirewallRuleArgs(
                direction="in",
                protocol="udp",
                port=str(WIREGUARD_PORT),
                source_ips=_ANYWHERE,
                description="direct connections of the tailnet",
            )
        )
    if settings.rescue_cidr:
        rules.append(
            hcloud.FirewallRuleArgs(
                direction="in", protocol="tcp", port="22", source_ips=[settings.rescue_cidr], description="rescue"
            )
        )
    return rules
