"""A cloud firewall: a namespace between the lab's bridge and a host, which the host can neither see nor change.

Each host has one of its own, because a connection that two hosts open to each other at once, as tailscaled does, is
seen twice in opposite directions: one table of connections for both would drop it for ever.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from ipaddress import IPv4Network, collapse_addresses, ip_network
from typing import TYPE_CHECKING

from lab import files, network
from lab.errors import LabError
from lab.hetzner_api.driver import Rule

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

Rules = tuple[Rule, ...] | None

_UPLINK = "uplink"
_DOWNLINK = "host"
_EVERYTHING = IPv4Network("0.0.0.0/0")


def insert(lab: Path, firewall: Path, *, port: str, script: str) -> None:
    """Make a firewall's namespace, with the rules of a script in force before anything passes.

    Raises:
        LabError: the kernel does not show bridged packets to nftables.
    """
    network.delete(firewall)
    network.create_bridge(firewall)
    network.filter_bridged(firewall)
    network.nft(firewall, script)
    network.join_bridges(lab, firewall, port=port, peer=_UPLINK)


def plug(firewall: Path, host: Path, *, mac: str, address: str, gateway: str) -> None:
    """Give a host's new namespace an `eth0` behind its firewall."""
    network.plug(firewall, host, port=_DOWNLINK, mac=mac, address=address, gateway=gateway)


def script(address: str, rules: Rules) -> str:
    """Return the nftables script that has these rules, and no others, in force for the host of this address.

    Inbound is dropped unless a rule lets it through, outbound only where there is a rule for it. What is of another
    address is dropped, and so is IPv6, for the lab has none. None is no firewall: everything passes.

    Raises:
        LabError: a rule is malformed.
    """
    anew = "table inet cloud {\n}\ndelete table inet cloud\n"
    if rules is None:
        return anew
    inbound = [_accept(rule, "saddr") for rule in rules if rule.direction == "in"]
    outbound = [_accept(rule, "daddr") for rule in rules if rule.direction == "out"]
    chains = [
        _chain("inbound", [*inbound, "drop"]),
        _chain("outbound", [*outbound, "drop" if outbound else "accept"]),
        _chain(
            "forward",
            [
                "type filter hook forward priority 0; policy drop;",
                "ct state established,related accept",
                f"ip daddr {address} jump inbound",
                f"ip saddr {address} jump outbound",
            ],
        ),
    ]
    return "".join([anew, "table inet cloud {\n", *chains, "}\n"])


def _chain(name: str, lines: Iterable[str]) -> str:
    body = "".join(f"{line}\n" for line in lines if line)
    return f"chain {name} {{\n{body}}}\n"


def _accept(rule: Rule, side: str) -> str:
    """Return a rule as a line, or nothing where it speaks of IPv6 only."""
    try:
        networks = [ip_network(cidr, strict=False) for cidr in rule.cidrs]
    except ValueError as error:
        raise LabError(f"firewall rule: {error}") from None
    peers = list(collapse_addresses(peer for peer in networks if isinstance(peer, IPv4Network)))
    if not peers:
        return ""
    whose = "" if peers == [_EVERYTHING] else f"ip {side} {{ {', '.join(map(str, peers))} }} "
    return f"{whose}{_traffic(rule)} accept"


def _traffic(rule: Rule) -> str:
    if rule.protocol not in {"tcp", "udp", "icmp", "esp", "gre"}:
        raise LabError(f"firewall rule: no protocol {rule.protocol!r}")
    if rule.port is None or rule.protocol not in {"tcp", "udp"}:
        return f"meta l4proto {rule.protocol}"
    ports = rule.port.split("-")
    if len(ports) > 2 or not all(port.isascii() and port.isdigit() and 1 <= int(port) <= 65535 for port in ports):
        raise LabError(f"firewall rule: no port {rule.port!r}")
    return f"{rule.protocol} dport {rule.port}"


def load(file: Path) -> Rules:
    """Return the rules that were kept in a file, None where none were."""
    if not file.exists():
        return None
    kept = json.loads(file.read_text())
    return None if kept is None else tuple(Rule(**{**rule, "cidrs": tuple(rule["cidrs"])}) for rule in kept)


def keep(file: Path, rules: Rules) -> None:
    """Keep rules in a file."""
    files.replace(file, json.dumps(None if rules is None else [asdict(rule) for rule in rules]))
