"""What a change of a stack would destroy, read from `pulumi preview --json` before the engine is asked to do it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fleet import protection

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping


def has_data(exported: Mapping[str, Any]) -> bool:
    """Say whether a stack has a server or a volume to lose, by what `pulumi stack export` prints."""
    resources = (exported.get("deployment") or {}).get("resources") or []
    return any(resource["type"] in protection.KINDS for resource in resources)


def losses(steps: Iterable[Mapping[str, Any]]) -> list[str]:
    """Return which servers and volumes would be deleted or replaced, such as "delete server agents-1".

    Args:
        steps: Those of the preview.
    """
    return [f"{step['op']} {protection.shown(step['oldState'])}" for step in steps if _destroys(step)]


def _destroys(step: Mapping[str, Any]) -> bool:
    """Say whether a server or a volume ends; one that is to be retained only leaves the stack."""
    old = step.get("oldState") or {}
    if old.get("type") not in protection.KINDS:
        return False
    return step["op"] == "replace" or (step["op"] == "delete" and not old.get("retainOnDelete"))
