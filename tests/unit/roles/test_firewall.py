"""The firewall's rules, from the variable that people write."""

from __future__ import annotations

from html import unescape
from pathlib import Path
from typing import Any

import jinja2
import pytest

TEMPLATES = Path(__file__).resolve().parents[3] / "roles/base/templates"


def rules(allow: list[dict[str, Any]], ssh_interface: str = "") -> list[str]:
    """Return the lines from the rule for SSH to the end of the chain."""
    loader = jinja2.FileSystemLoader(TEMPLATES)
    environment = jinja2.Environment(
        loader=loader, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined, autoescape=True
    )
    environment.filters["bool"] = bool
    text = environment.get_template("firewall.nft.j2").render(
        base_firewall_allow=allow,
        base_firewall_forward=False,
        base_firewall_ssh_interface=ssh_interface,
        _base_ssh_ports=["22"],
    )
    lines = [line.strip() for line in unescape(text).splitlines()]
    (ssh,) = (number for number, line in enumerate(lines) if line.endswith("tcp dport { 22 } accept"))
    return lines[ssh : lines.index("counter")]


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ({"port": 80}, ["tcp dport 80 accept"]),
        ({"port": 80, "from": None}, ["tcp dport 80 accept"]),
        ({"port": 53, "proto": "udp"}, ["udp dport 53 accept"]),
        ({"port": 80, "from": ["10.0.0.0/8"]}, ["ip saddr 10.0.0.0/8 tcp dport 80 accept"]),
        ({"port": 80, "from": ["fd00::1"]}, ["ip6 saddr fd00::1 tcp dport 80 accept"]),
        ({"port": 80, "interface": "tailscale0"}, ['iifname "tailscale0" tcp dport 80 accept']),
        ({"port": 80, "interface": None}, ["tcp dport 80 accept"]),
        (
            {"port": 80, "interface": "eth1", "from": ["10.0.0.0/8"]},
            ['iifname "eth1" ip saddr 10.0.0.0/8 tcp dport 80 accept'],
        ),
    ],
)
def test_rule(rule: dict[str, Any], expected: list[str]) -> None:
    assert rules([rule])[1:] == expected


def test_an_empty_list_of_sources_lets_nobody_in() -> None:
    assert rules([{"port": 80, "from": []}])[1:] == []


@pytest.mark.parametrize(
    ("interface", "expected"),
    [("", "tcp dport { 22 } accept"), ("tailscale0", 'iifname "tailscale0" tcp dport { 22 } accept')],
)
def test_ssh_comes_in_over_its_interface(interface: str, expected: str) -> None:
    assert rules([], interface) == [expected]
