"""What the stand-in keeps: one JSON file, whole at any moment, which only its owner may read."""

from __future__ import annotations

import json
import secrets
import time
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from lab import files

if TYPE_CHECKING:
    from pathlib import Path

# What a new tailnet has, in Tailscale's own form: comments and all.
DEFAULT_POLICY = """// Example/default ACLs for unrestricted connections.
{
  "acls": [
    // Allow all connections. Comment this section out to define specific restrictions.
    {"action": "accept", "src": ["*"], "dst": ["*:*"]},
  ],
}
"""


@dataclass(frozen=True)
class Credentials:
    """What a client shows: the OAuth client's id and secret, or the API key."""

    client_id: str
    client_secret: str
    api_key: str


@dataclass
class Key:
    """An auth key. Times are seconds since 1970; a one-off key is `spent` once a device has joined with it."""

    id: str
    secret: str
    description: str
    created: float
    expires: float
    reusable: bool
    ephemeral: bool
    preauthorized: bool
    tags: list[str]
    revoked: float | None = None
    spent: bool = False

    @property
    def is_invalid(self) -> bool:
        """Whether it was deleted or has expired."""
        return self.revoked is not None or self.expires <= time.time()


@dataclass
class Device:
    """A device: `name` is its full name in DNS, `hostname` what it calls itself. Times are RFC 3339."""

    id: str
    name: str
    hostname: str
    addresses: list[str]
    tags: list[str]
    online: bool
    created: str
    last_seen: str
    machine_key: str
    node_key: str


@dataclass
class State:
    """All of it; `save` after a change."""

    path: Path
    credentials: Credentials
    policy: str = DEFAULT_POLICY
    magic_dns: bool = True
    keys: dict[str, Key] = field(default_factory=dict)
    # Only of a tailnet in memory.
    devices: dict[str, Device] = field(default_factory=dict)
    # Access tokens, and when each ends.
    tokens: dict[str, float] = field(default_factory=dict)
    last_id: int = 0

    @classmethod
    def load(cls, path: Path) -> State:
        """Return what the file holds, or a new tailnet, which is written there."""
        if not path.exists():
            state = cls(path, _new_credentials())
            state.save()
            return state
        said: dict[str, Any] = json.loads(path.read_text())
        said["credentials"] = Credentials(**said["credentials"])
        said["keys"] = {id_: Key(**key) for id_, key in said["keys"].items()}
        said["devices"] = {id_: Device(**device) for id_, device in said["devices"].items()}
        return cls(path, **said)

    def save(self) -> None:
        """Write the file anew."""
        said = asdict(self)
        del said["path"]
        self.path.parent.mkdir(parents=True, exist_ok=True)
        files.replace(self.path, json.dumps(said, indent=1), mode=0o600)

    def next_id(self) -> int:
        """Return a number that was never used before."""
        self.last_id += 1
        return self.last_id


def credentials(path: Path) -> Credentials:
    """Return the credentials of a state file, which is made where it is not there; they stay the same."""
    return State.load(path).credentials


def _new_credentials() -> Credentials:
    client = f"k{secrets.token_hex(6)}CNTRL"
    return Credentials(
        client_id=client,
        client_secret=f"tskey-client-{client}-{secrets.token_hex(16)}",
        api_key=f"tskey-api-k{secrets.token_hex(6)}CNTRL-{secrets.token_hex(16)}",
    )
