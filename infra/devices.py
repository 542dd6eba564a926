"""Hooks that keep the tailnet's devices in step with the servers.

A deleted server leaves its device behind. A new server of the same name then gets another name in MagicDNS, and the
old one goes on pointing at the dead machine. So a device goes before the key that it joined with, and what is left of
one before a server is made. It is known by its name, its tag and its time: another stack may have the same names.
The engine runs hooks never in a preview, and those of deletion only with `destroy --run-program`.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from pulumi import ResourceHook, ResourceHookArgs, ResourceHookBinding

from infra import policy
from infra.errors import InfraError
from infra.settings import NODE_TAGS

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from infra.hetzner import Hetzner
    from infra.leftovers import Leftovers
    from infra.tailscale import Device, Tailscale


@dataclass(frozen=True, slots=True)
class JoinKey:
    """A node's one-off key. Tailscale does not tell with which key a device joined, only when."""

    id: str
    created: datetime
    expires: datetime

    @classmethod
    def read(cls, key_id: str, created: str, expires: str) -> JoinKey:
        """Return a key with its times as the provider has them."""
        return cls(key_id, datetime.fromisoformat(created), datetime.fromisoformat(expires))

    def may_have_admitted(self, device: Device) -> bool:
        """Say whether a device came in the key's time."""
        return device.created is not None and self.created <= device.created <= self.expires


class Devices:
    """What happens to devices and keys when servers come, go and change their names."""

    def __init__(self, tailscale: Tailscale) -> None:
        self._tailscale = tailscale
        self._keys: defaultdict[str, list[JoinKey]] = defaultdict(list)
        self._deleted: set[str] = set()

    def note_key(self, name: str, key: JoinKey) -> None:
        """Remember the key that a node's server is to join with, or has joined with."""
        self._keys[name].append(key)

    def before_create(self, name: str) -> None:
        """Make room for a server's device, and see that the server can join.

        Raises:
            InfraError: A machine of that name is not known as this stack's, or is connected and this run did not delete
                its server; or the key is of no use.
        """
        for device in self._of(name):
            if not self._is_ours(name, device) or (device.connected and name not in self._deleted):
                raise InfraError(
                    f"{name}: machine {device.label} ({device.id}) is in the tailnet with a node's tag, and it is not "
                    "this stack's; choose another name, or remove it there if its server is gone. "
                    "If that was deleted just now, wait a minute"
                )
            self._tailscale.delete_device(device)
        keys = self._keys[name]
        if keys and not self._tailscale.can_join_with(keys[-1].id):
            raise InfraError(
                f"{name}: its join key was used or has expired, so that a new server could not join; run `fleet up`, "
                f"which makes another, or raise fleet:nodes.{name}.generation by one and run `pulumi up --refresh`"
            )

    def after_delete(self, name: str) -> None:
        """Remember that a server is gone: its device may seem connected for a while."""
        self._deleted.add(name)

    def before_key_goes(self, name: str, key: JoinKey) -> None:
        """Delete the device that joined with a node's key: without the key nothing would know it."""
        self.note_key(name, key)
        for device in self._of(name):
            if self._is_ours(name, device):
                self._tailscale.delete_device(device)

    def before_rename(self, old: str, new: str) -> None:
        """Rename the device along with its server.

        Raises:
            InfraError: There is a machine of the new name already, besides this one.
        """
        here, there = self._of(old), self._of(new)
        if here and there:
            raise InfraError(
                f"{new}: a machine of that name and tag is in the tailnet already; remove it there, or choose another"
            )
        for device in here:
            self._tailscale.rename_device(device, new)

    def _of(self, name: str) -> list[Device]:
        """Return a node's devices, with those that got a number behind its name. Never one without a node's tag."""
        return [device for device in self._tailscale.devices() if device.tags & NODE_TAGS and _is_named(device, name)]

    def _is_ours(self, name: str, device: Device) -> bool:
        return any(key.may_have_admitted(device) for key in self._keys[name])


def _is_named(device: Device, name: str) -> bool:
    return device.label == name or (device.hostname == name and device.label.startswith(f"{name}-"))


def hooks(devices: Devices, leftovers: Leftovers, hetzner: Hetzner) -> ResourceHookBinding:
    """Return what the engine is to call around a server's steps.

    A server that an interrupted run began to make is locked until it is made, and Hetzner's provider does not wait.
    """

    def make_room(inputs: Mapping[str, Any]) -> None:
        name = _name(inputs)
        if leftovers.remove(name, inputs["labels"]):
            devices.after_delete(name)
        devices.before_create(name)

    async def before_create(args: ResourceHookArgs) -> None:
        await asyncio.to_thread(make_room, args.new_inputs or {})

    async def before_update(args: ResourceHookArgs) -> None:
        old, new = _name(args.old_inputs), _name(args.new_inputs)
        if old != new:
            await asyncio.to_thread(devices.before_rename, old, new)

    async def before_delete(args: ResourceHookArgs) -> None:
        await asyncio.to_thread(hetzner.await_idle, args.id)

    def after_delete(args: ResourceHookArgs) -> None:
        devices.after_delete(_name(args.old_inputs))

    return ResourceHookBinding(
        before_create=[ResourceHook("device-before-create", before_create)],
        before_update=[ResourceHook("device-before-update", before_update)],
        before_delete=[ResourceHook("server-before-delete", before_delete)],
        after_delete=[ResourceHook("device-after-delete", after_delete)],
    )


def key_hooks(tailscale: Tailscale, devices: Devices, leftovers: Leftovers) -> ResourceHookBinding:
    """Return what the engine is to call before it makes a key, and before and after it deletes one.

    Tailscale refuses a key whose tag nobody owns.
    """

    async def before_create(_: ResourceHookArgs) -> None:
        current = await asyncio.to_thread(tailscale.policy)
        if lacking := policy.unowned(current.get("tagOwners") or {}):
            raise InfraError(
                f"no node can join, for in the tailnet's policy {', '.join(lacking)}; "
                "merge what `pulumi preview` shows as tailnet_policy, and run `pulumi up` again"
            )

    async def before_delete(args: ResourceHookArgs) -> None:
        made = args.old_outputs or {}
        # One that was never whole has let nobody join.
        if "createdAt" in made and "expiresAt" in made:
            key = JoinKey.read(args.id, made["createdAt"], made["expiresAt"])
            await asyncio.to_thread(devices.before_key_goes, args.name.removesuffix("-key"), key)

    def after_delete(args: ResourceHookArgs) -> None:
        leftovers.note_deleted_key(args.id)

    return ResourceHookBinding(
        before_create=[ResourceHook("key-before-create", before_create)],
        before_delete=[ResourceHook("key-before-delete", before_delete)],
        after_delete=[ResourceHook("key-after-delete", after_delete)],
    )


def policy_hooks(tailscale: Tailscale, wanted: str) -> ResourceHookBinding:
    """Return what the engine is to call before it writes a policy for the first time."""

    async def before_create(_: ResourceHookArgs) -> None:
        current = await asyncio.to_thread(tailscale.policy)
        if not policy.is_default(current) and not policy.equal(current, wanted):
            raise InfraError(
                "tailnet:policy is manage, and the tailnet has a policy of its own, which is left as it is; "
                "set tailnet:policy to print and merge what it shows, or hand yours over for good with "
                "`pulumi import tailscale:index/acl:Acl policy acl --protect=false`"
            )

    return ResourceHookBinding(before_create=[ResourceHook("policy-before-create", before_create)])


def _name(inputs: Mapping[str, Any] | None) -> str:
    return str((inputs or {})["name"])
