"""Servers that an interrupted run made, and that no state knows.

The engine would make them again, and Hetzner refuses a name that is taken. Nothing can be on such a server yet, so it
goes, and another is made whole.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from infra.errors import InfraError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from infra.hetzner import Hetzner

# With which key a server joined: only the state that holds the key has made it.
KEY_LABEL = "join-key"
# Who interrupts a run comes back soon. An older server may be one that somebody took out of the state with purpose.
_LONGEST = timedelta(days=1)


class Leftovers:
    """Finds such servers by the labels that they would have had, and deletes them."""

    def __init__(self, hetzner: Hetzner) -> None:
        self._hetzner = hetzner
        self._deleted_keys: set[str] = set()

    def note_deleted_key(self, key_id: str) -> None:
        """Remember a key that this run replaces: what was left may have joined with it."""
        self._deleted_keys.add(key_id)

    def remove(self, name: str, labels: Mapping[str, str]) -> bool:
        """Delete the server that was left where one is to be made with this name and labels; say whether there was one.

        Raises:
            InfraError: It is protected from deletion.
            ServiceError: Hetzner's API refused or did not answer.
        """
        server = self._hetzner.server(name)
        if server is None or datetime.now(UTC) - server.created > _LONGEST or not self._is_ours(server.labels, labels):
            return False
        if server.protected:
            raise InfraError(
                f"{name}: an interrupted run made server {server.id}, which is in no state and protected; "
                "delete it at Hetzner, and then run `fleet up`"
            )
        self._hetzner.delete_server(server)
        return True

    def _is_ours(self, found: Mapping[str, str], wanted: Mapping[str, str]) -> bool:
        key = found.get(KEY_LABEL)
        ours = key is not None and key in {wanted.get(KEY_LABEL), *self._deleted_keys}
        return ours and {**wanted, KEY_LABEL: key} == found
