"""What is behind the stand-in: the tailnet that keys, policies and deletions act on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from lab.tailscale_api.requests import KeyRequest
    from lab.tailscale_api.state import Device


class Backend(Protocol):
    """A tailnet. What it cannot do for the moment, it says with an ApiError of status 503."""

    domain: str

    def set_policy(self, text: str) -> None:
        """Bring a policy, as JSON, into force; PolicyError where it is refused."""

    def set_magic_dns(self, on: bool) -> None:
        """Give devices names, or none; NotHereError where that cannot be switched."""

    def create_key(self, wanted: KeyRequest) -> str:
        """Return a new key's secret."""

    def spent(self) -> set[str]:
        """Return the secrets of the one-off keys that a device has joined with."""

    def revoke_key(self, secret: str) -> None:
        """Let no device join with the key any more."""

    def devices(self) -> list[Device]:
        """Return all devices."""

    def rename_device(self, device_id: str, name: str) -> None:
        """Give a device another name, which no other has."""

    def delete_device(self, device_id: str) -> None:
        """Remove a device; its name is free again."""
