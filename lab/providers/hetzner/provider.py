"""All kinds of the hcloud stand-in, by their types."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lab.providers.hetzner.api import Api
from lab.providers.hetzner.networks import Firewalls, Networks, Subnets
from lab.providers.hetzner.servers import Servers
from lab.providers.hetzner.small import PlacementGroups, SshKeys
from lab.providers.hetzner.volumes import Attachments, Volumes

if TYPE_CHECKING:
    from collections.abc import Mapping

    from lab.providers.kinds import Kind


class Hetzner:
    """What the stand-in offers once it has its configuration."""

    def __init__(self, settings: Mapping[str, str]) -> None:
        self._api = api = Api(settings)
        self.kinds: Mapping[str, Kind] = {
            "hcloud:index/firewall:Firewall": Firewalls(api),
            "hcloud:index/network:Network": Networks(api),
            "hcloud:index/networkSubnet:NetworkSubnet": Subnets(api),
            "hcloud:index/placementGroup:PlacementGroup": PlacementGroups(api),
            "hcloud:index/server:Server": Servers(api),
            "hcloud:index/sshKey:SshKey": SshKeys(api),
            "hcloud:index/volume:Volume": Volumes(api),
            "hcloud:index/volumeAttachment:VolumeAttachment": Attachments(api),
        }

    def cancel(self) -> None:
        """Let every wait give up."""
        self._api.cancel()
