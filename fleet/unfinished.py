"""What an interrupted or failed run of the engine left, read from the stack's state.

* Nodes without a whole server: the next run makes it, and a key to join with too, for the old one may be spent. A
  server that is there and in no state is deleted by the program itself (infra/leftovers.py).
* Anything else that Hetzner may have made and the state does not know: the next run would make it again, which Hetzner
  refuses. So it is imported, by the name that it would have had. (`pulumi refresh --import-pending-creates` sounds like
  it, but engine 3.250 only forgets what it is given.)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import httpx

from fleet.errors import StackError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_KEY = "tailscale:index/tailnetKey:TailnetKey"
_SERVER = "hcloud:index/server:Server"
_SUBNET = "hcloud:index/networkSubnet:NetworkSubnet"
_ATTACHMENT = "hcloud:index/volumeAttachment:VolumeAttachment"
# Where Hetzner's API lists what has a name of its own, by the provider's types. https://docs.hetzner.cloud
_LISTS = {
    "hcloud:index/firewall:Firewall": "firewalls",
    "hcloud:index/network:Network": "networks",
    "hcloud:index/placementGroup:PlacementGroup": "placement_groups",
    "hcloud:index/sshKey:SshKey": "ssh_keys",
    "hcloud:index/volume:Volume": "volumes",
}
_API = "https://api.hetzner.cloud/v1"
_SECONDS = 30


@dataclass(frozen=True)
class Begun:
    """A resource whose making was begun, as the state describes it."""

    described: Mapping[str, Any]

    @property
    def urn(self) -> str:
        """Its URN."""
        return str(self.described["urn"])

    @property
    def type(self) -> str:
        """The provider's type."""
        return str(self.described["type"])

    @property
    def inputs(self) -> Mapping[str, Any]:
        """What it was to be."""
        return self.described.get("inputs") or {}

    def import_arguments(self, number: str) -> list[str]:
        """Return the words behind `pulumi import` that take what has this number at Hetzner for this resource."""
        words = [self.type, _name(self.urn), number, "--protect=false", "--generate-code=false"]
        if parent := self.described.get("parent"):
            words += ["--parent", f"parent={parent}"]
        if provider := self.described.get("provider"):
            words += ["--provider", f"provider={provider.rpartition('::')[0]}"]
        return words


def was_interrupted(exported: Mapping[str, Any]) -> bool:
    """Say whether the state still tells of an interruption, from what `pulumi stack export` prints."""
    return bool(_operations(exported))


def begun(exported: Mapping[str, Any]) -> list[Begun]:
    """Return what was being made at an interruption, and has not come into the state since."""
    known = {each["urn"] for each in _resources(exported)}
    made = (operation["resource"] for operation in _operations(exported) if operation["type"] == "creating")
    return [Begun(resource) for resource in made if resource["urn"] not in known]


def keys_of_broken(exported: Mapping[str, Any]) -> list[str]:
    """Return the URNs of the keys of nodes whose servers' making failed half-way: the engine would only update them."""
    broken = {_name(each["urn"]).removesuffix("-server") for each in _resources(exported) if _is_broken_server(each)}
    return [urn for urn in keys(exported) if _name(urn).removesuffix("-key") in broken]


def keys(exported: Mapping[str, Any]) -> list[str]:
    """Return the URNs of the keys whose nodes have no whole server."""
    resources = _resources(exported)
    whole = {_name(each["urn"]).removesuffix("-server") for each in resources if _is_whole_server(each)}
    return [
        each["urn"]
        for each in resources
        if each["type"] == _KEY and _name(each["urn"]).removesuffix("-key") not in whole
    ]


def found(wanted: list[Begun], token: str, endpoint: str | None) -> list[tuple[Begun, str]]:
    """Return those that are there, with their numbers at Hetzner. What has other labels is somebody else's.

    Raises:
        StackError: Hetzner's API did not say.
    """
    headers = {"Authorization": f"Bearer {token}"}
    with httpx.Client(base_url=endpoint or _API, headers=headers, timeout=_SECONDS) as client:
        return [(each, number) for each in wanted for number in _numbers(client, each)]


def _resources(exported: Mapping[str, Any]) -> list[dict[str, Any]]:
    return (exported.get("deployment") or {}).get("resources") or []


def _operations(exported: Mapping[str, Any]) -> list[dict[str, Any]]:
    return (exported.get("deployment") or {}).get("pending_operations") or []


def _numbers(client: httpx.Client, wanted: Begun) -> Iterator[str]:
    inputs = wanted.inputs
    if kind := _LISTS.get(wanted.type):
        for each in _asked(client, kind, name=inputs["name"])[kind]:
            if each["name"] == inputs["name"] and each["labels"] == (inputs.get("labels") or {}):
                yield str(each["id"])
    elif wanted.type == _SUBNET:
        network = _asked(client, f"networks/{int(inputs['networkId'])}")["network"]
        if any(subnet["ip_range"] == inputs["ipRange"] for subnet in network["subnets"]):
            yield f"{network['id']}-{inputs['ipRange']}"
    elif wanted.type == _ATTACHMENT:
        volume = _asked(client, f"volumes/{int(inputs['volumeId'])}")["volume"]
        if volume["server"] == int(inputs["serverId"]):
            yield str(volume["id"])


def _asked(client: httpx.Client, path: str, **parameters: str) -> Any:
    try:
        return client.get(f"/{path}", params=parameters).raise_for_status().json()
    except (httpx.HTTPError, ValueError) as error:
        raise StackError(f"Hetzner's API did not answer GET {path}: {str(error) or type(error).__name__}") from error


def _is_whole_server(resource: Mapping[str, Any]) -> bool:
    is_there = resource["type"] == _SERVER and not resource.get("pendingReplacement")
    return is_there and not _is_broken_server(resource)


def _is_broken_server(resource: Mapping[str, Any]) -> bool:
    # A failed change leaves errors too, and must never cost a server that was whole before.
    never_changed = resource.get("created") == resource.get("modified")
    return resource["type"] == _SERVER and bool(resource.get("initErrors")) and never_changed


def _name(urn: str) -> str:
    return urn.rpartition("::")[2]
