"""What keeps a stack from being destroyed, read from its state before the engine is asked to.

The engine stops at a protected resource only when it comes to it, with others deleted already.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

# What has data.
KINDS = {"hcloud:index/server:Server": "server", "hcloud:index/volume:Volume": "volume"}


def protected(exported: Mapping[str, Any]) -> list[str]:
    """Return what a stack's state protects, by kind and name, in the state's order.

    Args:
        exported: What `pulumi stack export` prints.
    """
    resources = (exported.get("deployment") or {}).get("resources") or []
    return [shown(resource) for resource in resources if _refuses(resource)]


def shown(resource: Mapping[str, Any]) -> str:
    """Return what a resource of a state is to a person, by kind and name."""
    kind = resource["type"]
    name = (resource.get("outputs") or {}).get("name") or resource["urn"].rpartition("::")[2]
    return f"{KINDS.get(kind, kind)} {name}"


def _refuses(resource: Mapping[str, Any]) -> bool:
    """Say whether the engine or Hetzner would refuse. What the engine leaves alone is never asked of Hetzner."""
    if resource.get("protect"):
        return True
    outputs = resource.get("outputs") or {}
    return bool(outputs.get("deleteProtection")) and not resource.get("retainOnDelete")
