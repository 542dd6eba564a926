"""Who belongs to whom. Each relation is kept on one side only, and read from there for the other."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lab.hetzner_api.driver import Rule
from lab.hetzner_api.selectors import parse

if TYPE_CHECKING:
    from lab.hetzner_api.store import Record, Records


def volumes_of(records: Records, server_id: int) -> list[Record]:
    """Return the volumes that are attached to a server."""
    return [volume for volume in records.all("volume") if volume["server"] == server_id]


def primary_ips_of(records: Records, server_id: int) -> list[Record]:
    """Return the public addresses of a server."""
    return [address for address in records.all("primary_ip") if address["assignee_id"] == server_id]


def servers_in_network(records: Records, network_id: int) -> list[Record]:
    """Return the servers that are attached to a network."""
    return [server for server in records.all("server") if place_in(server, network_id)]


def place_in(server: Record, network_id: int) -> Record | None:
    """Return a server's own entry for a network it is attached to."""
    return next((entry for entry in server["private_net"] if entry["network"] == network_id), None)


def servers_in_group(records: Records, group_id: int) -> list[Record]:
    """Return the servers in a placement group."""
    return [server for server in records.all("server") if server["placement_group"] == group_id]


def servers_behind(records: Records, firewall: Record) -> list[Record]:
    """Return the servers that a firewall filters, by their ids or by their labels."""
    return [server for server in records.all("server") if is_behind(server, firewall)]


def firewalls_of(records: Records, server: Record) -> list[Record]:
    """Return the firewalls that filter a server."""
    return [firewall for firewall in records.all("firewall") if is_behind(server, firewall)]


def is_behind(server: Record, firewall: Record) -> bool:
    """Tell whether a firewall filters a server."""
    return any(selects(target, server) for target in firewall["applied_to"])


def selects(target: Record, server: Record) -> bool:
    """Tell whether what a firewall is applied to includes a server."""
    if target["type"] == "server":
        return bool(target["server"]["id"] == server["id"])
    return parse(target["label_selector"]["selector"])(server["labels"])


def rules_for(records: Records, server: Record) -> tuple[Rule, ...] | None:
    """Return the rules of all firewalls of a server together; None if it has no firewall."""
    firewalls = firewalls_of(records, server)
    if not firewalls:
        return None
    return tuple(_rule(rule) for firewall in firewalls for rule in firewall["rules"])


def _rule(rule: Record) -> Rule:
    inbound = rule["direction"] == "in"
    return Rule(
        direction=rule["direction"],
        protocol=rule["protocol"],
        port=None if rule["port"] == "any" else rule["port"],
        cidrs=tuple(rule["source_ips"] if inbound else rule["destination_ips"]),
    )
