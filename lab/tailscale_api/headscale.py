"""A lab's headscale behind the stand-in."""

from __future__ import annotations

import json
import tempfile
from contextlib import contextmanager
from typing import TYPE_CHECKING

from lab.errors import CommandFailedError
from lab.tailscale_api import policy
from lab.tailscale_api.errors import ApiError, NotHereError, PolicyError
from lab.tailscale_api.state import Device

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lab.tailnet import Node, Tailnet
    from lab.tailscale_api.requests import KeyRequest


class Headscale:
    """Asks headscale by its own command line."""

    def __init__(self, tailnet: Tailnet) -> None:
        self._tailnet = tailnet
        self.domain = tailnet.domain

    def set_policy(self, text: str) -> None:
        """Hand the policy to headscale, which sends it to all nodes."""
        # In the lab's folder, which goes with the lab: whoever is killed in here leaves the file.
        with tempfile.NamedTemporaryFile("w", dir=self._tailnet.folder, suffix=".json") as file:
            file.write(headscale_policy(text))
            file.flush()
            with self._asking():
                try:
                    self._tailnet.headscale("policy", "set", "--file", file.name)
                except CommandFailedError as refused:
                    self._tailnet.nodes()  # that it answers at all: else this is an outage
                    raise PolicyError(f"headscale refuses the policy: {refused}") from None

    def set_magic_dns(self, on: bool) -> None:
        """Refuse to switch names off: headscale reads that from its configuration alone."""
        if not on:
            raise NotHereError("a tailnet without MagicDNS")

    def create_key(self, wanted: KeyRequest) -> str:
        """Return a key of headscale's own."""
        with self._asking():
            return self._tailnet.key(
                *wanted.tags, seconds=wanted.seconds, reusable=wanted.reusable, ephemeral=wanted.ephemeral
            )

    def spent(self) -> set[str]:
        """Return the keys that headscale calls used, of those that are good once."""
        with self._asking():
            keys = self._tailnet.headscale("preauthkeys", "list", "--user", self._tailnet.user) or []
        return {key["key"] for key in keys if key.get("used") and not key.get("reusable")}

    def revoke_key(self, secret: str) -> None:
        """Have headscale let the key expire."""
        with self._asking():
            self._tailnet.headscale("preauthkeys", "expire", "--user", self._tailnet.user, secret)

    def devices(self) -> list[Device]:
        """Return headscale's nodes."""
        with self._asking():
            return [self._device(node) for node in self._tailnet.nodes()]

    def rename_device(self, device_id: str, name: str) -> None:
        """Have headscale give the node another name."""
        with self._asking():
            self._tailnet.headscale("nodes", "rename", "--identifier", device_id, name)

    def delete_device(self, device_id: str) -> None:
        """Have headscale remove the node."""
        with self._asking():
            self._tailnet.headscale("nodes", "delete", "--identifier", device_id, "--force")

    def _device(self, node: Node) -> Device:
        return Device(
            id=str(node.id),
            name=f"{node.name}.{self.domain}",
            hostname=node.hostname,
            addresses=list(node.addresses),
            tags=list(node.tags),
            online=node.online,
            created=node.created,
            last_seen=node.last_seen,
            machine_key=node.machine_key,
            node_key=node.node_key,
        )

    @contextmanager
    def _asking(self) -> Iterator[None]:
        try:
            yield
        except CommandFailedError as error:
            raise ApiError(503, f"the control server does not answer: {error}") from None


def headscale_policy(text: str) -> str:
    """Return a policy without tags that own tags, which headscale 0.26 refuses.

    Owners decide who may give a tag; here the stand-in does, and headscale makes keys of any tag.
    """
    said = json.loads(text)
    for owners in policy.tag_owners(said).values():
        owners[:] = [owner for owner in owners if not owner.startswith("tag:")]
    return json.dumps(said)
