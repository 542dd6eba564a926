"""The whole stack, from its configuration to its outputs."""

from __future__ import annotations

import hashlib
import os
from typing import TYPE_CHECKING

import pulumi
import pulumi_hcloud as hcloud
from pulumi import ComponentResource, Output, ResourceOptions
from pulumi.runtime.config import CONFIG, get_config_env, get_config_secret_keys_env, is_config_secret

from infra import config, devices, prices, tailnet
from infra.devices import Devices
from infra.errors import ConfigurationError, ServiceError
from infra.hetzner import Hetzner
from infra.leftovers import Leftovers
from infra.network import Perimeter
from infra.server import Node, Surroundings
from infra.tailscale import Tailscale

if TYPE_CHECKING:
    from collections.abc import Mapping

    from infra.hetzner import SshKey
    from infra.prices import Cost
    from infra.settings import Role, Settings, Tailnet

_INVENTORY_VERSION = 1


def deploy() -> None:
    """Declare everything and export the outputs `inventory`, `monthly_cost` and `tailnet_policy`.

    Raises:
        RunError: The configuration is wrong, or Hetzner's API did not answer; the engine shows it without a trace.
    """
    settings = _settings()
    stack = pulumi.get_stack()
    labels = {"managed-by": "openclaw-fleet", "stack": stack}
    api = Tailscale(settings.tailscale)
    hetzner = Hetzner(settings.hetzner)
    common = Common(stack, settings, labels, hetzner)
    watched = Devices(api)
    leftovers = Leftovers(hetzner)
    around = Surroundings(
        settings=settings,
        labels=labels,
        perimeter=Perimeter(stack, settings, labels),
        ssh_keys=common.ssh_keys,
        groups=common.groups,
        devices=watched,
        ready=tailnet.write_rules(settings.tailnet, api),
        server_hooks=devices.hooks(watched, leftovers, hetzner),
        key_hooks=devices.key_hooks(api, watched, leftovers),
    )
    hosts = [Node(node, around).host for node in settings.nodes]
    pulumi.export(
        "inventory",
        {
            "version": _INVENTORY_VERSION,
            "stack": stack,
            "domain": settings.tailnet.domain,
            "settings": _shared(settings.tailnet),
            "hosts": Output.all(*hosts),
        },
    )
    pulumi.export("monthly_cost", _cost(settings))
    pulumi.export("tailnet_policy", tailnet.policy_text(settings.tailnet, api))


class Common(ComponentResource):
    """What nodes share besides the network: SSH keys, and groups that keep a role's servers on different machines.

    Attributes:
        ssh_keys: The keys' numbers at Hetzner.
        groups: The spread groups' numbers, by role and placement.
    """

    def __init__(self, name: str, settings: Settings, labels: Mapping[str, str], hetzner: Hetzner) -> None:
        super().__init__("fleet:index:Common", name)
        self._labels = dict(labels)
        self._hetzner = hetzner
        self.ssh_keys = [self._ssh_key(name, key) for key in settings.ssh_keys]
        wanted = sorted({(node.role, node.placement) for node in settings.nodes})
        self.groups = {(role, number): self._group(name, role, number) for role, number in wanted}
        self.register_outputs({})

    def _ssh_key(self, stack: str, key: str) -> Output[str]:
        """Register a key under a name that only itself decides: others may come and go.

        One that somebody registered before is used as it is, and stays when the stack goes.
        """
        found = self._registered(key)
        if found and not found.labels.items() >= self._labels.items():
            return Output.from_input(str(found.id))
        name = f"{stack}-{hashlib.sha256(key.split()[1].encode()).hexdigest()[:8]}"
        registered = hcloud.SshKey(
            f"{name}-ssh-key", name=name, public_key=key, labels=self._labels, opts=ResourceOptions(parent=self)
        )
        return registered.id

    def _registered(self, key: str) -> SshKey | None:
        try:
            return self._hetzner.ssh_key(key)
        except ServiceError as error:
            raise pulumi.RunError(str(error)) from None

    def _group(self, stack: str, role: Role, number: int) -> Output[int]:
        name = f"{stack}-{role}s-{number}"
        group = hcloud.PlacementGroup(
            f"{name}-group", name=name, type="spread", labels=self._labels, opts=ResourceOptions(parent=self)
        )
        return group.id.apply(int)


def _settings() -> Settings:
    try:
        values = {**get_config_env(), **CONFIG.get()}
        hidden = get_config_secret_keys_env()
        plain = [key for key in values if key not in hidden and not is_config_secret(key)]
        return config.read(values, os.environ, plain)
    except ConfigurationError as error:
        heading = f"the configuration of stack {pulumi.get_stack()} cannot be used:"
        raise pulumi.RunError("\n  ".join([heading, *error.problems])) from None


def _shared(tailnet: Tailnet) -> dict[str, object]:
    """Return what Ansible has to go by too, so that it is said in one place."""
    return {
        "login_server": tailnet.login_server,
        "archive_sha256": tailnet.archive.sha256 if tailnet.archive else None,
        "version": tailnet.version,
        "broker_port": tailnet.broker_ports[0],
        "udp": tailnet.udp,
    }


def _cost(settings: Settings) -> Cost | None:
    """Return the month's cost, or None with a warning: a missing price must not keep a server from being made."""
    try:
        return prices.monthly_cost(settings.nodes, prices.ask(settings.hetzner))
    except ServiceError as error:
        pulumi.log.warn(f"monthly cost: {error}")
        return None
