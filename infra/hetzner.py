"""The calls of Hetzner's API (https://docs.hetzner.cloud) for SSH keys that are in no state, and for servers."""

from __future__ import annotations

import base64
import hashlib
import time
from dataclasses import dataclass
from datetime import datetime
from http import HTTPStatus
from typing import TYPE_CHECKING

from infra.errors import ServiceError
from infra.service import Service

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from infra.settings import HetznerAccess

_POLL_SECONDS = 1.0
_WAIT_SECONDS = 300
# An action of the server's own is under way.
_BUSY = frozenset({HTTPStatus.CONFLICT, HTTPStatus.LOCKED})


@dataclass(frozen=True, slots=True)
class Server:
    """A server as the API has it."""

    id: int
    labels: Mapping[str, str]
    created: datetime
    protected: bool


@dataclass(frozen=True, slots=True)
class SshKey:
    """A public key as the API has it."""

    id: int
    labels: Mapping[str, str]


class Hetzner:
    """One project's servers and SSH keys. Safe to use from several threads."""

    def __init__(self, access: HetznerAccess, *, sleep: Callable[[float], None] = time.sleep) -> None:
        self._service = Service("Hetzner's API", f"{access.url}/", sleep=sleep)
        self._token = access.token
        self._sleep = sleep

    def server(self, name: str) -> Server | None:
        """Return the server of this name."""
        listed = self._service.read("GET", "servers", "servers", token=self._token, params={"name": name})["servers"]
        for server in listed:
            return Server(
                id=server["id"],
                labels=server["labels"],
                created=datetime.fromisoformat(server["created"]),
                protected=server["protection"]["delete"],
            )
        return None

    def ssh_key(self, public_key: str) -> SshKey | None:
        """Return what a public key is registered as, under whatever name: a project takes it only once."""
        blob = base64.b64decode(public_key.split()[1])
        asked = {"fingerprint": hashlib.md5(blob, usedforsecurity=False).digest().hex(":")}
        for key in self._service.read("GET", "ssh_keys", "ssh_keys", token=self._token, params=asked)["ssh_keys"]:
            return SshKey(id=key["id"], labels=key["labels"])
        return None

    def await_idle(self, server_id: str) -> None:
        """Wait until nothing is being done to a server; one that is gone is idle.

        Raises:
            ServiceError: The API refused, or it took longer than five minutes.
        """
        self._wait_while(lambda: self._is_busy(server_id), f"server {server_id} is still busy")

    def _is_busy(self, server_id: str) -> bool:
        path, running = f"servers/{server_id}/actions", {"status": "running"}
        try:
            return bool(self._service.read("GET", path, "actions", token=self._token, params=running)["actions"])
        except ServiceError as error:
            if error.status != HTTPStatus.NOT_FOUND:
                raise
            return False

    def delete_server(self, server: Server) -> None:
        """Delete a server and wait until it is gone; what is being done to it may come to its end before.

        Raises:
            ServiceError: The API refused, or it took longer than five minutes.
        """
        self._wait_while(lambda: self._is_there(server), f"server {server.id} is not gone")

    def _is_there(self, server: Server) -> bool:
        """Ask for a server's deletion, and return whether it may still be there."""
        try:
            self._service.ask("DELETE", f"servers/{server.id}", token=self._token)
        except ServiceError as error:
            if error.status == HTTPStatus.NOT_FOUND:
                return False
            if error.status not in _BUSY:
                raise
        return True

    def _wait_while(self, goes_on: Callable[[], bool], complaint: str) -> None:
        """Ask until it goes on no more; ServiceError with the complaint after five minutes."""
        deadline = time.monotonic() + _WAIT_SECONDS
        while goes_on():
            if time.monotonic() > deadline:
                raise ServiceError(f"Hetzner's API: {complaint} after {_WAIT_SECONDS} s")
            self._sleep(_POLL_SECONDS)
