"""A driver without machines, for tests of everything above them."""

from __future__ import annotations

import logging
import re
from typing import TYPE_CHECKING, Any

import httpx
import yaml

if TYPE_CHECKING:
    from lab.hetzner_api.driver import Operation, Rule, ServerSpec

_LOG = logging.getLogger(__name__)
_SECONDS = 10
_HOSTNAME = re.compile(r"--hostname[= ]'?\"?([A-Za-z0-9-]+)")
_KEY_FILE = re.compile(r"(\.|-|/)key$")


class NullDriver:
    """Makes nothing. A created server joins the memory stand-in of a tailnet, as its cloud-init would have it do.

    Args:
        tailscale: Base URL of the tailnet's stand-in; "" if servers shall join none.
    """

    def __init__(self, tailscale: str = "") -> None:
        self._tailscale = tailscale.rstrip("/")

    def create(self, server: ServerSpec) -> str:
        """Join the tailnet if the user data says so. The address is left to the record."""
        key, hostname = read_join(server.user_data, server.name)
        if key and self._tailscale:
            self._join(key, hostname)
        return ""

    def _join(self, key: str, hostname: str) -> None:
        url = f"{self._tailscale}/_lab/join"
        reply = httpx.post(url, json={"key": key, "hostname": hostname}, timeout=_SECONDS, trust_env=False)
        if reply.is_client_error:
            # A machine whose key is spent boots all the same, and is in no tailnet.
            _LOG.warning("%s did not join: %s", hostname, reply.text)
            return
        reply.raise_for_status()

    def delete(self, name: str) -> None:
        """Have the machine's device be offline; it stays in its tailnet."""
        if self._tailscale:
            url = f"{self._tailscale}/_lab/leave"
            httpx.post(url, json={"hostname": name}, timeout=_SECONDS, trust_env=False).raise_for_status()

    def power(self, name: str, operation: Operation) -> None:
        """Nothing to do."""

    def filter(self, name: str, rules: tuple[Rule, ...] | None) -> None:
        """Nothing to do."""

    def create_volume(self, volume_id: int, gigabytes: int, filesystem: str | None) -> None:
        """Nothing to do."""

    def resize_volume(self, volume_id: int, gigabytes: int) -> None:
        """Nothing to do."""

    def delete_volume(self, volume_id: int) -> None:
        """Nothing to do."""

    def attach(self, volume_id: int, server: str) -> str:
        """Return the path that the device would have."""
        return f"/dev/disk/by-id/scsi-0HC_Volume_{volume_id}"

    def detach(self, volume_id: int) -> None:
        """Nothing to do."""


def read_join(user_data: str, name: str) -> tuple[str, str]:
    """Return the join key and the hostname that a cloud-config gives a machine; no key means that it joins nothing.

    The key is the content of the file in `write_files` whose path ends in "key"; the hostname follows "--hostname"
    anywhere, and is the server's name where that is missing.
    """
    if not user_data.startswith("#cloud-config"):
        return "", name
    config: Any = yaml.safe_load(user_data)
    files = config.get("write_files", []) if isinstance(config, dict) else []
    keys = [str(file["content"]).strip() for file in files if _KEY_FILE.search(file["path"])]
    hostname = _HOSTNAME.search(user_data)
    return (keys[0] if keys else ""), (hostname[1] if hostname else name)
