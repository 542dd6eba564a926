"""Hosts of a tailnet whose every setting is off its default, judged by what they do."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from testinfra.host import Host

testinfra_hosts = ["ansible://all"]


@pytest.fixture
def name(host: Host, way_in: dict[str, Any]) -> str:
    return f"node-{host.backend.get_hostname()}.{way_in['domain']}"


@pytest.fixture
def service(root: Host) -> Iterator[str]:
    """What is served: a folder with one file, on loopback only."""
    root.check_output("install -D -m 0644 /etc/hostname /srv/served/name")
    run = "systemd-run --quiet --collect --unit=served python3 -m http.server --bind 127.0.0.1 --directory /srv/served"
    root.check_output(f"{run} 9001")
    root.check_output("timeout 10 sh -c 'until ss -Hltn sport = :9001 | grep -q .; do sleep 0.05; done'")
    yield root.check_output("cat /etc/hostname")
    root.check_output("systemctl stop served")


def test_it_has_the_name_that_was_given(root: Host, name: str) -> None:
    assert json.loads(root.check_output("tailscale status --json"))["Self"]["DNSName"] == f"{name}."


def test_what_is_served_is_what_is_listed(root: Host, name: str) -> None:
    assert json.loads(root.check_output("tailscale serve status --json")) == {
        "TCP": {"80": {"HTTP": True}, "9000": {"TCPForward": "127.0.0.1:9001"}},
        "Web": {f"{name}:80": {"Handlers": {"/": {"Proxy": "http://127.0.0.1:9001"}}}},
    }


@pytest.mark.parametrize("port", [80, 9000])
def test_a_neighbour_is_served(neighbour: Host, name: str, service: str, port: int) -> None:
    assert neighbour.check_output(f"curl --silent --max-time 10 http://{name}:{port}/name") == service


def test_what_is_served_passes_by_the_firewall_that_stops_the_rest(root: Host, neighbour: Host, name: str) -> None:
    """The role base of this scenario lets in SSH only; who is stopped by it gets through when it is gone."""
    root.check_output("systemd-run --quiet --collect --unit=unserved python3 -m http.server 9003")
    root.check_output("timeout 10 sh -c 'until ss -Hltn sport = :9003 | grep -q .; do sleep 0.05; done'")
    fetch = f"curl --silent --output /dev/null --max-time 5 http://{name}:9003/"
    try:
        assert neighbour.run(fetch).rc == 28
        root.check_output("nft delete table inet openclaw")
        assert neighbour.run(fetch).rc == 0
    finally:
        root.check_output("systemctl stop unserved; systemctl restart openclaw-firewall")


def test_it_is_served_again_after_a_restart(root: Host, neighbour: Host, name: str, service: str) -> None:
    root.check_output("systemctl kill --signal=KILL tailscaled")
    fetch = f"curl --silent --max-time 5 --retry 10 --retry-all-errors --retry-delay 1 http://{name}/name"

    assert neighbour.check_output(fetch) == service


def test_the_operator_may_change_what_is_served_and_nobody_else(root: Host) -> None:
    serve = "tailscale serve --bg --yes --tcp=9002 tcp://127.0.0.1:9001"
    refused = root.run(f"runuser -u mallory -- {serve}")

    assert refused.rc != 0
    assert "denied" in refused.stderr
    assert root.run(f"runuser -u alice -- {serve}").rc == 0
    root.check_output("tailscale serve --yes --tcp=9002 off")
