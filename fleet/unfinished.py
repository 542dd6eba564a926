"""What an interrupted run of the engine left: begun at Hetzner, perhaps made, and not yet in the stack's state.

The engine makes such a thing again, which Hetzner refuses where its name is taken. So what is there is taken over, by
the name that it would have had, and what is not there is made anew.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import httpx

from fleet.errors import StackError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

# Where Hetzner's API lists what the provider makes, by the provider's names. https://docs.hetzner.cloud
_LISTS = {
    "hcloud:index/firewall:Firewall": "firewalls",
    "hcloud:index/network:Network": "networks",
    "hcloud:index/placementGroup:PlacementGroup": "placement_groups",
    "hcloud:index/server:Server": "servers",
    "hcloud:index/sshKey:SshKey": "ssh_keys",
    "hcloud:index/volume:Volume": "volumes",
}
_API = "https://api.hetzner.cloud/v1"
_SECONDS = 30


@dataclass(frozen=True)
class Unfinished:
    """A resource whose making was begun: its URN, the provider's type, and the name and labels it was to have."""

    urn: str
    type: str
    name: str
    labels: tuple[tuple[str, str], ...]


def unfinished(exported: Mapping[str, Any]) -> list[Unfinished]:
    """Return what was being made when the engine was interrupted, from what `pulumi stack export` prints."""
    operations = (exported.get("deployment") or {}).get("pending_operations") or []
    made = (operation["resource"] for operation in operations if operation["type"] == "creating")
    return [
        Unfinished(
            urn=resource["urn"],
            type=resource["type"],
            name=str(resource.get("inputs", {}).get("name", "")),
            labels=tuple(sorted((resource.get("inputs", {}).get("labels") or {}).items())),
        )
        for resource in made
    ]


def found(wanted: list[Unfinished], token: str, endpoint: str | None) -> dict[str, str]:
    """Return the numbers at Hetzner of those that are there, by URN. What has other labels is somebody else's.

    Raises:
        StackError: Hetzner's API did not say.
    """
    headers = {"Authorization": f"Bearer {token}"}
    with httpx.Client(base_url=endpoint or _API, headers=headers, timeout=_SECONDS) as client:
        return {each.urn: number for each in wanted if each.type in _LISTS for number in _numbers(client, each)}


def _numbers(client: httpx.Client, wanted: Unfinished) -> Iterator[str]:
    kind = _LISTS[wanted.type]
    try:
        listed = client.get(f"/{kind}", params={"name": wanted.name}).raise_for_status().json()[kind]
    except (httpx.HTTPError, ValueError, KeyError) as error:
        raise StackError(f"Hetzner's API did not list {kind}: {error or type(error).__name__}") from error
    for each in listed:
        if each["name"] == wanted.name and wanted.labels and wanted.labels == tuple(sorted(each["labels"].items())):
            yield str(each["id"])
