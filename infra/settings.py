"""What the program works from, once the configuration has been read and checked."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

Role = Literal["broker", "runner", "gateway"]
ROLES: tuple[Role, ...] = ("broker", "runner", "gateway")
ADMIN_TAG = "tag:admin"
# The OAuth client's own. A client may only give tags that its own one owns, or all of its tags at once.
CLIENT_TAG = "tag:openclaw"


def tag(role: Role) -> str:
    """Return the tailnet tag of a role's nodes."""
    return f"tag:{role}"


NODE_TAGS = frozenset(tag(role) for role in ROLES)


@dataclass(frozen=True, slots=True, kw_only=True)
class Volume:
    """A node's data volume.

    Attributes:
        size: In GB, as Hetzner counts them.
        adopt: The number of a volume at Hetzner that is taken over, None to make one.
        keep: Whether it outlives the stack: `destroy` leaves it, and Hetzner refuses to delete it.
    """

    size: int
    adopt: str | None
    keep: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """A server.

    Attributes:
        name: The server's, the tailnet's and the inventory's name for it.
        generation: Raised to have the server made anew.
        placement: The number of its spread group among those of its role.
        protect: Whether it refuses to be deleted, replaced or rebuilt.
        renamed_from: The name it had before, None if it had none.
    """

    name: str
    role: Role
    server_type: str
    image: str
    location: str
    generation: int
    placement: int
    protect: bool
    volume: Volume | None
    renamed_from: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Network:
    """The private network. It is not filtered by the cloud's firewall."""

    cidr: str
    subnet: str
    zone: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Archive:
    """A file with tailscale's programs, and what it must hash to."""

    url: str
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Tailnet:
    """How the nodes join, and who may reach what there.

    Attributes:
        policy: "print" shows the policy to merge, "manage" writes it.
        archive: What to install instead of the package, None for the package.
        version: Of the package.
        login_server: Another control server's URL, "" for Tailscale's own.
        domain: What follows a node's name in its MagicDNS name.
        udp: Whether WireGuard's port is open to the internet.
        admins: Users and groups with the rights of tag:admin, who may also give the tags.
        broker_ports: What runners reach on the broker, and admins too.
        gateway_ports: What admins reach on gateways, besides SSH.
    """

    policy: Literal["print", "manage"]
    archive: Archive | None
    version: str
    login_server: str
    domain: str
    udp: bool
    admins: tuple[str, ...]
    broker_ports: tuple[int, ...]
    gateway_ports: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class TailscaleAccess:
    """Where Tailscale's API is and how to get in: an API access token, or an OAuth client."""

    url: str
    tailnet: str
    api_key: str | None = field(repr=False)
    client_id: str | None
    client_secret: str | None = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class HetznerAccess:
    """Where Hetzner's API is and how to get in."""

    url: str
    token: str = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """A stack's whole configuration.

    Attributes:
        rescue_cidr: From where port 22 is open to the internet, None for nowhere.
    """

    nodes: tuple[Node, ...]
    network: Network
    ssh_keys: tuple[str, ...]
    rescue_cidr: str | None
    tailnet: Tailnet
    hetzner: HetznerAccess
    tailscale: TailscaleAccess
