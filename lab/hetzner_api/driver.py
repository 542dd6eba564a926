"""What stands behind the API's records: real machines, or nothing at all.

A driver's methods are called in worker threads, never two at once for the same server or volume. What one raises
fails the action that called it, as `action_failed` with the exception's text. Each may meet work that is done already,
since an action that a crash cut short is run again: it then has the same result as the first time.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

Operation = Literal["on", "off", "shutdown", "reboot", "reset"]


@dataclass(frozen=True, slots=True)
class ServerSpec:
    """What a machine is made from.

    Attributes:
        id: The server's number, which its name can be given to anew.
        name: The server's name, unique at a time.
        image: The image's name, for example "debian-12".
        user_data: The cloud-init user data as text, "" without any.
        ssh_keys: Public keys in OpenSSH's form.
    """

    id: int
    name: str
    image: str
    user_data: str
    ssh_keys: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Rule:
    """What a cloud firewall lets through. Once one is attached, the rest of its direction is dropped.

    Only directions that have rules drop: inbound always does, outbound if there is at least one rule "out".

    Attributes:
        direction: "in" or "out".
        protocol: "tcp", "udp", "icmp", "esp" or "gre".
        port: "22", or a range "1-1024", or None for all ("any") and where the protocol has no ports.
        cidrs: The other side's addresses, IPv4 and IPv6.
    """

    direction: Literal["in", "out"]
    protocol: Literal["tcp", "udp", "icmp", "esp", "gre"]
    port: str | None
    cidrs: tuple[str, ...]


class Driver(Protocol):
    """Makes what the API's records tell of."""

    def create(self, server: ServerSpec) -> str:
        """Make a machine, start it, and return its IPv4 address. Its cloud-init may still run then."""

    def delete(self, name: str) -> None:
        """Take a machine away with its disk. Its attached volumes stay."""

    def power(self, name: str, operation: Operation) -> None:
        """Start ("on"), cut off ("off"), or shut down, reboot or reset a machine."""

    def filter(self, name: str, rules: tuple[Rule, ...] | None) -> None:
        """Set what a machine's cloud firewall lets through; None: no firewall is attached, and all passes."""

    def create_volume(self, volume_id: int, gigabytes: int, filesystem: str | None) -> None:
        """Make a block device, formatted with "ext4" or "xfs", or raw."""

    def resize_volume(self, volume_id: int, gigabytes: int) -> None:
        """Make a block device larger. Its file system stays as it is."""

    def delete_volume(self, volume_id: int) -> None:
        """Take a detached block device away."""

    def attach(self, volume_id: int, server: str) -> str:
        """Show a block device to a machine and return its path there."""

    def detach(self, volume_id: int) -> None:
        """Take a block device from its machine."""
