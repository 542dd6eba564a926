"""Keys and devices as Tailscale's API shows them."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lab.tailscale_api.state import Device, Key


def key(key: Key) -> dict[str, Any]:
    """Return a key without its secret."""
    create = {name: getattr(key, name) for name in ("reusable", "ephemeral", "preauthorized", "tags")}
    return {
        "id": key.id,
        "keyType": "auth",
        "description": key.description,
        "created": _time(key.created),
        "expires": _time(key.expires),
        "expirySeconds": round(key.expires - key.created),
        **({"revoked": _time(key.revoked)} if key.revoked else {}),
        "invalid": key.is_invalid,
        "capabilities": {"devices": {"create": create}},
    }


def device(device: Device) -> dict[str, Any]:
    """Return a device with all the fields that Tailscale's clients know."""
    return {
        "id": device.id,
        "nodeId": node_id(device),
        "name": device.name,
        "hostname": device.hostname,
        "addresses": device.addresses,
        "tags": device.tags,
        "user": "lab@fleet.lab",
        "authorized": True,
        "isExternal": False,
        "isEphemeral": False,
        "connectedToControl": device.online,
        "created": device.created,
        "lastSeen": device.last_seen,
        # A device with tags has a key that does not expire.
        "keyExpiryDisabled": bool(device.tags),
        "expires": "0001-01-01T00:00:00Z",
        "os": "linux",
        "clientVersion": "",
        "updateAvailable": False,
        "blocksIncomingConnections": False,
        "machineKey": device.machine_key,
        "nodeKey": device.node_key,
        "tailnetLockError": "",
        "tailnetLockKey": "",
    }


def node_id(device: Device) -> str:
    """Return the newer of a device's two ids."""
    return f"n{device.id}CNTRL"


def _time(seconds: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))
