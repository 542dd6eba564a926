"""A tailnet without machines: devices are records, which join when they are told to."""

from __future__ import annotations

import secrets
import time
from typing import TYPE_CHECKING

from lab.tailscale_api.errors import ApiError
from lab.tailscale_api.requests import LABEL
from lab.tailscale_api.state import Device

if TYPE_CHECKING:
    from lab.tailscale_api.requests import KeyRequest
    from lab.tailscale_api.state import Key, State


class Memory:
    """Keeps devices in the stand-in's own state."""

    domain = "tail.lab"

    def __init__(self, state: State) -> None:
        self._state = state

    def set_policy(self, text: str) -> None:
        """Nothing is between devices that are records."""

    def set_magic_dns(self, on: bool) -> None:
        """Nobody asks for names here."""

    def create_key(self, wanted: KeyRequest) -> str:
        """Return a secret of Tailscale's form; the rest is in the stand-in's record."""
        return f"tskey-auth-k{secrets.token_hex(6)}CNTRL-{secrets.token_hex(16)}"

    def spent(self) -> set[str]:
        """Return the secrets of the one-off keys that `join` took."""
        return {key.secret for key in self._state.keys.values() if key.spent}

    def revoke_key(self, secret: str) -> None:
        """`join` looks at the stand-in's record."""

    def devices(self) -> list[Device]:
        """Return all devices."""
        return list(self._state.devices.values())

    def rename_device(self, device_id: str, name: str) -> None:
        """Give the record another name."""
        self._state.devices[device_id].name = f"{name}.{self.domain}"

    def leave(self, hostname: str) -> None:
        """Have the devices of a machine that is gone be in touch no more."""
        for device in self._state.devices.values():
            if device.hostname == hostname:
                device.online = False
        self._state.save()

    def delete_device(self, device_id: str) -> None:
        """Forget the device."""
        del self._state.devices[device_id]

    def join(self, secret: str, hostname: str) -> Device:
        """Let a device join; a second one of the same hostname gets another name, as Tailscale gives it.

        Raises:
            ApiError: 400, the hostname is none; 403, the key does not admit it.
        """
        if not LABEL.fullmatch(hostname):
            raise ApiError(400, f"hostname {hostname!r} is not a DNS label in small letters")
        key = self._admitting(secret)
        key.spent = not key.reusable
        number = self._state.next_id()
        now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        device = Device(
            id=str(number),
            name=f"{self._free_name(hostname)}.{self.domain}",
            hostname=hostname,
            addresses=[f"100.64.{number // 250}.{number % 250 + 1}", f"fd7a:115c:a1e0::{number:x}"],
            tags=sorted(key.tags),
            online=True,
            created=now,
            last_seen=now,
            machine_key=f"mkey:{secrets.token_hex(32)}",
            node_key=f"nodekey:{secrets.token_hex(32)}",
        )
        self._state.devices[device.id] = device
        self._state.save()
        return device

    def _admitting(self, secret: str) -> Key:
        key = next((key for key in self._state.keys.values() if key.secret == secret), None)
        if key is None or key.revoked:
            raise ApiError(403, "invalid key: not found")
        if key.spent:
            raise ApiError(403, "invalid key: already used")
        if key.expires <= time.time():
            raise ApiError(403, "invalid key: expired")
        return key

    def _free_name(self, hostname: str) -> str:
        taken = {device.name.partition(".")[0] for device in self._state.devices.values()}
        number, name = 0, hostname
        while name in taken:
            number += 1
            name = f"{hostname}-{number}"
        return name
