"""The tailnet: its policy and name service where the stack may write them, and the nodes' keys."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pulumi
import pulumi_tailscale as tailscale
from pulumi import Resource, ResourceOptions

from infra import devices, policy
from infra.errors import ServiceError
from infra.settings import tag

if TYPE_CHECKING:
    from infra.settings import Node, Tailnet
    from infra.tailscale import Tailscale

# From the key's making to the server's first start.
KEY_SECONDS = 3600
_SHOWN_OTHERS = 5
_IN_FORCE = "In force: the tailnet's own policy lets through what this one does."
_NOT_IN_FORCE = "Not in force: merge the policy below into the tailnet's own."


def write_rules(tailnet: Tailnet, api: Tailscale) -> list[Resource]:
    """Write the policy and switch MagicDNS on, in mode "manage" only. Both stay as they are when the stack goes.

    Returns:
        What keys wait for, since a tag must have an owner first.
    """
    if tailnet.policy != "manage":
        return []
    wanted = policy.render(tailnet)
    # Without a parent, so that the import which the hook's refusal tells of finds it.
    acl = tailscale.Acl(
        "policy",
        acl=wanted,
        # Only ever over a policy that is nobody's own, or that a stack before this one left: see policy_hooks.
        overwrite_existing_content=_may_be_overwritten(wanted, api),
        opts=ResourceOptions(
            ignore_changes=["overwriteExistingContent"],
            retain_on_delete=True,
            hooks=devices.policy_hooks(api, wanted),
        ),
    )
    dns = tailscale.DnsPreferences("dns", magic_dns=True, opts=ResourceOptions(retain_on_delete=True))
    return [acl, dns]


def join_key(node: Node, description: str, options: ResourceOptions) -> tailscale.TailnetKey:
    """Return a key that lets one machine join once, as the node's role, within the hour.

    A spent key stays as it is: only another generation or role makes a new one, and the server with it.
    """
    return tailscale.TailnetKey(
        f"{node.name}-key",
        description=description,
        reusable=False,
        ephemeral=False,
        preauthorized=True,
        expiry=KEY_SECONDS,
        tags=[tag(node.role)],
        recreate_if_invalid="never",
        opts=ResourceOptions.merge(
            options,
            ResourceOptions(
                ignore_changes=["tags", "expiry", "description"],
                replacement_trigger=f"{node.role} {node.generation}",
                delete_before_replace=True,
            ),
        ),
    )


def policy_text(tailnet: Tailnet, api: Tailscale) -> str:
    """Return the policy; in mode "print" after what is to be said of the one in force."""
    wanted = policy.render(tailnet)
    return wanted if tailnet.policy == "manage" else f"{report(tailnet, api)}\n{wanted}"


def report(tailnet: Tailnet, api: Tailscale) -> str:
    """Say whether the tailnet's own policy does what ours would, and what to merge where it does not."""
    try:
        current, magic_dns = api.policy(), api.magic_dns()
    except ServiceError as error:
        return _warned(f"Could not be compared with the tailnet's policy. {error}")
    lacking = [f"  {line}" for line in policy.missing(current, tailnet)]
    if not magic_dns:
        lacking.append("  MagicDNS is off: turn it on among the tailnet's DNS settings")
    extra = [f"  {line}" for line in _shortened(policy.others(current, tailnet))]
    said = [_NOT_IN_FORCE, *lacking] if lacking else [_IN_FORCE]
    if extra:
        said += ["It has rules besides, which may let through more; what they do is not judged here:", *extra]
    return _warned("\n".join(said)) if lacking or extra else _IN_FORCE


def _shortened(lines: list[str]) -> list[str]:
    rest = len(lines) - _SHOWN_OTHERS
    return [*lines[:_SHOWN_OTHERS], f"and {rest} more"] if rest > 1 else lines


def _warned(message: str) -> str:
    pulumi.log.warn(f"tailnet policy: {message}")
    return message


def _may_be_overwritten(wanted: str, api: Tailscale) -> bool:
    try:
        current = api.policy()
        return policy.equal(current, wanted) or policy.is_default(current)
    except ServiceError:
        return False
