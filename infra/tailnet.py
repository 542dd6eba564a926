"""The tailnet: its policy and name service where the stack may write them, and the nodes' keys."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pulumi
import pulumi_tailscale as tailscale
from pulumi import ComponentResource, Resource, ResourceOptions

from infra import devices, policy
from infra.errors import ServiceError
from infra.settings import tag

if TYPE_CHECKING:
    from infra.settings import Node, Tailnet
    from infra.tailscale import Tailscale

# From the key's making to the server's first start.
KEY_SECONDS = 3600


class TailnetRules(ComponentResource):
    """The policy and MagicDNS, written only in mode "manage". Both stay as they are when the stack goes.

    Attributes:
        policy_text: The policy; in mode "print" after what is said of the one in force.
        ready: What keys wait for, since a tag must have an owner first.
    """

    def __init__(self, name: str, tailnet: Tailnet, api: Tailscale) -> None:
        super().__init__("fleet:index:Tailnet", name)
        self.ready: list[Resource] = []
        self.policy_text = policy.render(tailnet)
        if tailnet.policy == "manage":
            self.ready = [self._policy(api), self._dns()]
        else:
            self.policy_text = f"{report(tailnet, api)}\n{self.policy_text}"
        self.register_outputs({})

    def _policy(self, api: Tailscale) -> tailscale.Acl:
        return tailscale.Acl(
            "policy",
            acl=self.policy_text,
            # Only ever over the same policy, which a stack before this one left: see policy_hooks.
            overwrite_existing_content=_is_ours(self.policy_text, api),
            opts=ResourceOptions(
                parent=self,
                ignore_changes=["overwriteExistingContent"],
                retain_on_delete=True,
                hooks=devices.policy_hooks(api, self.policy_text),
            ),
        )

    def _dns(self) -> tailscale.DnsPreferences:
        return tailscale.DnsPreferences("dns", magic_dns=True, opts=ResourceOptions(parent=self, retain_on_delete=True))


def join_key(
    node: Node, description: str, parent: Resource, ready: list[Resource], hooks: pulumi.ResourceHookBinding
) -> tailscale.TailnetKey:
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
        opts=ResourceOptions(
            parent=parent,
            depends_on=ready,
            ignore_changes=["tags", "expiry", "description"],
            replacement_trigger=f"{node.role} {node.generation}",
            delete_before_replace=True,
            hooks=hooks,
        ),
    )


def report(tailnet: Tailnet, api: Tailscale) -> str:
    """Say whether the tailnet's own policy does what ours would, and what to merge where it does not."""
    try:
        current, magic_dns = api.policy(), api.magic_dns()
    except ServiceError as error:
        return _warned(f"Could not be compared with the tailnet's policy. {error}")
    said = [f"  {line}" for line in policy.missing(current, tailnet)]
    if not magic_dns:
        said.append("  MagicDNS is off: turn it on among the tailnet's DNS settings")
    extra = [f"  {line}" for line in policy.excess(current, tailnet)]
    if said:
        said = ["Not in force: merge the policy below into the tailnet's own.", *said]
    if extra:
        said += ["The tailnet's policy lets through more than the policy below:", *extra]
    return _warned("\n".join(said)) if said else "In force: the tailnet's own policy does what this one says."


def _warned(message: str) -> str:
    pulumi.log.warn(f"tailnet policy: {message}")
    return message


def _is_ours(wanted: str, api: Tailscale) -> bool:
    try:
        return policy.equal(api.policy(), wanted)
    except (ServiceError, json.JSONDecodeError):
        return False
