"""What the real plugins do when a property changes, as one table, which the stand-ins follow.

The plugins are bridged from Terraform providers, so the sources are those providers' schemas and update functions:
hetznercloud/terraform-provider-hcloud v1.66.1 (which pulumi-hcloud wraps) and tailscale/terraform-provider-tailscale
(0.29). Paths in the rows are paths in those repositories. Where one of the two SDKs gains or loses an input, a test of
this table fails (tests/infra/test_providers_table.py).
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from enum import Enum
from typing import Any


class Decision(Enum):
    """What a plugin does about a property whose value changed."""

    UPDATE = "update"  # changes the object in place
    REPLACE = "replace"  # makes a new object, and deletes the old one
    RECORD = "record"  # keeps the new value in the state and calls nothing
    REFUSE = "refuse"  # the stand-in does not know the property: the kit does not use it


class Comparison(Enum):
    """When two values of a property are the same to a plugin."""

    EXACT = "exact"
    SET = "set"  # lists in any order
    TRIMMED = "trimmed"  # text, but for white space around it
    JSON = "json"  # text with the same meaning as JSON


@dataclass(frozen=True)
class Row:
    """One property of a kind.

    Attributes:
        default: what the plugin takes where the program gives no value.
        computed: where the program gives no value, what is there stays and is no change.
        filled: the API fills in what the items do not say, and that is no change either.
        hidden: the API does not tell it, so there is no telling whether somebody changed it.
    """

    property: str
    decision: Decision
    source: str
    required: bool = False
    default: Any = None
    computed: bool = False
    filled: bool = False
    hidden: bool = False
    comparison: Comparison = Comparison.EXACT


UPDATE, REPLACE, RECORD, REFUSE = Decision
SET, TRIMMED, JSON = Comparison.SET, Comparison.TRIMMED, Comparison.JSON

_SERVER = "internal/server/resource.go"
_NETWORK = "internal/network/resource.go"
_SUBNET = "internal/network/resource_subnet.go: ForceNew"
_FIREWALL = "internal/firewall/resource.go"
_VOLUME = "internal/volume/resource.go"
_ATTACHMENT = "internal/volume/resource_attachment.go"
_GROUP = "internal/placementgroup/resource.go"
_SSH_KEY = "internal/sshkey/resource.go"
_KEY = "tailscale/resource_tailnet_key.go"
_ACL = "tailscale/resource_acl.go"
_DNS = "tailscale/resource_dns_preferences.go"

TABLE: dict[str, tuple[Row, ...]] = {
    "hcloud:index/server:Server": (
        Row("name", UPDATE, f"{_SERVER}: resourceServerUpdate", required=True),
        Row("serverType", UPDATE, f"{_SERVER}: resourceServerUpdate powers off, changes the type", required=True),
        Row("labels", UPDATE, f"{_SERVER}: resourceServerUpdate"),
        Row("firewallIds", UPDATE, f"{_SERVER}: resourceServerUpdate applies and removes",
            computed=True, comparison=SET),
        Row("networks", UPDATE, f"{_SERVER}: DiffSuppressFunc unless given; updateServerInlineNetworkAttachments",
            computed=True, comparison=SET, filled=True),
        Row("publicNets", UPDATE, f"{_SERVER}: DiffSuppressFunc unless given; updatePublicNet; not read back",
            computed=True, comparison=SET, hidden=True),
        Row("placementGroupId", UPDATE, f"{_SERVER}: setPlacementGroup takes no running server out of a group"),
        Row("deleteProtection", UPDATE, f"{_SERVER}: setProtection", default=False),
        Row("rebuildProtection", UPDATE, f"{_SERVER}: setProtection", default=False),
        Row("image", REPLACE, f"{_SERVER}: ForceNew, Computed", computed=True),
        Row("location", REPLACE, f"{_SERVER}: ForceNew, Computed", computed=True),
        Row("sshKeys", REPLACE, f"{_SERVER}: ForceNew; the SDK's docstring of ssh_keys"),
        Row("userData", REPLACE, f"{_SERVER}: ForceNew, userDataDiffSuppress; issues 372 and 338",
            comparison=TRIMMED, hidden=True),
        Row("keepDisk", RECORD, f"{_SERVER}: read with the next change of type", default=False),
        Row("shutdownBeforeDeletion", RECORD, f"{_SERVER}: read by resourceServerDelete", default=False),
        Row("allowDeprecatedImages", REFUSE, f"{_SERVER}: unused attribute"),
        Row("backups", REFUSE, f"{_SERVER}: setBackups"),
        Row("datacenter", REFUSE, f"{_SERVER}: removed attribute; use location"),
        Row("ignoreRemoteFirewallIds", REFUSE, f"{_SERVER}: DiffSuppressFunc of firewall_ids"),
        Row("iso", REFUSE, f"{_SERVER}: setISO"),
        Row("rescue", REFUSE, f"{_SERVER}: setRescue"),
    ),
    "hcloud:index/network:Network": (
        Row("name", UPDATE, f"{_NETWORK}: resourceNetworkUpdate", required=True),
        Row("ipRange", REPLACE, f"{_NETWORK}: ForceNew", required=True),
        Row("labels", UPDATE, f"{_NETWORK}: resourceNetworkUpdate"),
        Row("deleteProtection", UPDATE, f"{_NETWORK}: setProtection", default=False),
        Row("exposeRoutesToVswitch", REFUSE, f"{_NETWORK}: for dedicated servers"),
    ),
    "hcloud:index/networkSubnet:NetworkSubnet": (
        Row("networkId", REPLACE, _SUBNET, required=True),
        Row("type", REPLACE, _SUBNET, required=True),
        Row("networkZone", REPLACE, _SUBNET, required=True),
        Row("ipRange", REPLACE, _SUBNET, required=True),
        Row("vswitchId", REFUSE, "internal/network/resource_subnet.go: for dedicated servers"),
    ),
    "hcloud:index/firewall:Firewall": (
        Row("name", UPDATE, f"{_FIREWALL}: resourceFirewallUpdate", required=True),
        Row("labels", UPDATE, f"{_FIREWALL}: resourceFirewallUpdate", computed=True),
        Row("rules", UPDATE, f"{_FIREWALL}: resourceFirewallUpdate sets them, but not to none (GetOk); issue 1482",
            comparison=SET),
        Row("applyTos", REFUSE, f"{_FIREWALL}: syncApplyTo; the kit names the firewall at each server"),
    ),
    "hcloud:index/sshKey:SshKey": (
        Row("name", UPDATE, f"{_SSH_KEY}: no plan modifier", required=True),
        Row("publicKey", REPLACE, f"{_SSH_KEY}: RequiresReplace", required=True),
        Row("labels", UPDATE, f"{_SSH_KEY}: no plan modifier"),
    ),
    "hcloud:index/placementGroup:PlacementGroup": (
        Row("name", UPDATE, f"{_GROUP}: resourcePlacementGroupUpdate", required=True),
        Row("labels", UPDATE, f"{_GROUP}: resourcePlacementGroupUpdate"),
        Row("type", RECORD, f"{_GROUP}: no ForceNew, and not in resourcePlacementGroupUpdate", required=True),
    ),
    "hcloud:index/volume:Volume": (
        Row("name", UPDATE, f"{_VOLUME}: resourceVolumeUpdate", required=True),
        Row("size", UPDATE, f"{_VOLUME}: resourceVolumeUpdate resizes", required=True),
        Row("labels", UPDATE, f"{_VOLUME}: resourceVolumeUpdate"),
        Row("deleteProtection", UPDATE, f"{_VOLUME}: setProtection", default=False),
        Row("location", REPLACE, f"{_VOLUME}: ForceNew, Computed", computed=True),
        Row("format", RECORD, f"{_VOLUME}: no ForceNew, and not in resourceVolumeUpdate"),
        Row("automount", REFUSE, f"{_VOLUME}: the kit attaches with a VolumeAttachment"),
        Row("serverId", REFUSE, f"{_VOLUME}: the kit attaches with a VolumeAttachment"),
    ),
    "hcloud:index/volumeAttachment:VolumeAttachment": (
        Row("volumeId", REPLACE, f"{_ATTACHMENT}: ForceNew", required=True),
        Row("serverId", REPLACE, f"{_ATTACHMENT}: ForceNew", required=True),
        Row("automount", RECORD, f"{_ATTACHMENT}: the resource has no update", computed=True),
    ),
    "tailscale:index/tailnetKey:TailnetKey": (
        Row("reusable", REPLACE, f"{_KEY}: RequiresReplace", default=False),
        Row("ephemeral", REPLACE, f"{_KEY}: RequiresReplace", default=False),
        Row("preauthorized", REPLACE, f"{_KEY}: RequiresReplace", default=False),
        Row("tags", REPLACE, f"{_KEY}: RequiresReplace", comparison=SET),
        Row("expiry", REPLACE, f"{_KEY}: RequiresReplace, UseStateForUnknown", computed=True),
        Row("description", REPLACE, f"{_KEY}: RequiresReplace", default=""),
        Row("recreateIfInvalid", RECORD, f"{_KEY}: Update only reads the key"),
        Row("userId", RECORD, f"{_KEY}: Update only reads the key", computed=True),
    ),
    "tailscale:index/acl:Acl": (
        Row("acl", UPDATE, f"{_ACL}: Update sets it; aclHuJSONModifier", required=True, comparison=JSON),
        Row("overwriteExistingContent", RECORD, f"{_ACL}: read by Create"),
        Row("resetAclOnDestroy", RECORD, f"{_ACL}: read by Delete"),
    ),
    "tailscale:index/dnsPreferences:DnsPreferences": (
        Row("magicDns", UPDATE, f"{_DNS}: Update", required=True),
    ),
}  # fmt: skip


def changes(kind: str, olds: dict[str, Any], news: dict[str, Any], ignored: frozenset[str]) -> list[Row]:
    """Return the rows of a kind whose property changed from the inputs `olds` to `news`."""
    return [row for row in TABLE[kind] if row.property not in ignored and changed(row, olds, news)]


def changed(row: Row, olds: dict[str, Any], news: dict[str, Any]) -> bool:
    """Return whether a property changed, by the plugin's own idea of sameness."""
    old, new = olds.get(row.property, row.default), news.get(row.property, row.default)
    if row.computed and new is None:
        return False
    return bool(_canonical(row.comparison, old) != _canonical(row.comparison, new))


def drifted(row: Row, inputs: dict[str, Any], state: dict[str, Any]) -> bool:
    """Return whether what is there differs from what the program said."""
    if row.hidden or row.property not in inputs or row.property not in state:
        return False
    if row.filled:
        return not _filled(inputs[row.property], state[row.property])
    return changed(row, inputs, state)


def _filled(said: list[dict[str, Any]], there: list[dict[str, Any]]) -> bool:
    """Return whether `there` holds an item for each that was said, and no other."""
    matches = [any(_sorted(item).items() <= _sorted(found).items() for found in there) for item in said]
    return all(matches) and len(said) == len(there)


def _canonical(comparison: Comparison, value: Any) -> Any:
    if value in (None, "", [], {}):
        return None  # Terraform knows no difference between a value left out and an empty one
    if comparison is Comparison.SET:
        return _sorted(value)
    if comparison is Comparison.TRIMMED:
        return value.strip()
    if comparison is Comparison.JSON:
        return _meaning(value)
    return value


def _sorted(value: Any) -> Any:
    """Return a value whose lists, at any depth, are in one order; what is left out and what is empty are the same."""
    if isinstance(value, list):
        return sorted((_sorted(item) for item in value), key=lambda item: json.dumps(item, sort_keys=True))
    if isinstance(value, dict):
        return {key: _sorted(item) for key, item in value.items() if item not in (None, "", [])}
    return value


def _meaning(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:  # comments, which are HuJSON's: as it stands
        return text
