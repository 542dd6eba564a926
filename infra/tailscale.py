"""The calls of Tailscale's API (https://tailscale.com/api) that its Pulumi provider has no resources for."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from infra.errors import ServiceError
from infra.service import Service

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from infra.settings import TailscaleAccess

_JSON = {"Accept": "application/json"}
_RENEW_BEFORE_SECONDS = 60


@dataclass(frozen=True, slots=True)
class Device:
    """A machine of the tailnet.

    Attributes:
        label: The first part of its MagicDNS name.
        hostname: What it calls itself, which others may do too.
        connected: Whether it is in touch with the control server now.
        created: When it joined, None for one of another tailnet that is shared with this one.
    """

    id: str
    label: str
    hostname: str
    tags: frozenset[str]
    connected: bool
    created: datetime | None


class Tailscale:
    """One tailnet. Safe to use from several threads."""

    def __init__(self, access: TailscaleAccess, *, sleep: Callable[[float], None] = time.sleep) -> None:
        self._access = access
        self._service = Service("Tailscale's API", f"{access.url}/api/v2/", sleep=sleep)
        self._tailnet = f"tailnet/{access.tailnet}"
        self._lock = threading.Lock()
        self._token = access.api_key or ""
        self._token_until = float("inf") if access.api_key else 0.0

    def policy(self) -> dict[str, Any]:
        """Return the policy in force."""
        return self._read(f"{self._tailnet}/acl", headers=_JSON)

    def magic_dns(self) -> bool:
        """Say whether MagicDNS is on."""
        return bool(self._read(f"{self._tailnet}/dns/preferences").get("magicDNS"))

    def devices(self) -> list[Device]:
        """Return every machine of the tailnet."""
        listed = self._read(f"{self._tailnet}/devices", "devices")
        return [_device(device) for device in listed["devices"]]

    def delete_device(self, device: Device) -> None:
        """Remove a machine. One that is gone already is no error."""
        try:
            self._ask("DELETE", f"device/{device.id}")
        except ServiceError as error:
            if error.status != HTTPStatus.NOT_FOUND:
                raise

    def rename_device(self, device: Device, name: str) -> None:
        """Give a machine another name in MagicDNS."""
        self._ask("POST", f"device/{device.id}/name", json={"name": name})

    def can_join_with(self, key_id: str) -> bool:
        """Say whether a one-off key is neither spent nor expired nor revoked."""
        try:
            key = self._read(f"{self._tailnet}/keys/{key_id}")
        except ServiceError as error:
            if error.status == HTTPStatus.NOT_FOUND:
                return False
            raise
        return not key.get("invalid") and not _past(key.get("revoked")) and not _past(key.get("expires"))

    def _ask(self, method: str, path: str, *, json: Any = None) -> None:
        self._service.ask(method, path, token=self._current_token(), json=json)

    def _read(self, path: str, *needed: str, headers: Mapping[str, str] | None = None) -> dict[str, Any]:
        return self._service.read("GET", path, *needed, token=self._current_token(), headers=headers)

    def _current_token(self) -> str:
        with self._lock:
            if time.monotonic() > self._token_until - _RENEW_BEFORE_SECONDS:
                form = {
                    "grant_type": "client_credentials",
                    "client_id": self._access.client_id or "",
                    "client_secret": self._access.client_secret or "",
                }
                answer = self._service.read("POST", "oauth/token", "access_token", form=form)
                self._token = answer["access_token"]
                self._token_until = time.monotonic() + float(answer.get("expires_in", 0))
            return self._token


def _device(device: Mapping[str, Any]) -> Device:
    return Device(
        id=str(device["id"]),
        label=str(device["name"]).partition(".")[0],
        hostname=str(device["hostname"]),
        tags=frozenset(device.get("tags") or ()),
        connected=bool(device.get("connectedToControl")),
        created=datetime.fromisoformat(device["created"]) if device.get("created") else None,
    )


def _past(moment: str | None) -> bool:
    """Say whether a time of the API's has come; it writes year 1 for one that never does."""
    if not moment or moment.startswith("0001"):
        return False
    return datetime.fromisoformat(moment) <= datetime.now(UTC)
