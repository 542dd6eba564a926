"""The lab's cloud firewall stands outside of its server, follows connections, and lets through what its rules say."""

from __future__ import annotations

import json
import os
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

import pytest

from lab import network
from lab.errors import LabError
from lab.lab import PROXY_PORT
from lab.layer import Seed
from lab.process import run, wait_until
from tests.support.cloud import ARRIVES, BOOT_SECONDS, LOST, TestCloud, allow, answers, heard, hears, pings, udp_socket

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from lab.firewall import Rules

# What can pass: into the server from the controller and from its neighbour, and out of it.
_IN = {"ssh", "ssh from neighbour", "udp", "udp from neighbour", "ping from neighbour", "ipv6"}
_OUT = {"out: proxy", "out: neighbour"}
_EVERYTHING = _IN | _OUT
_SSH = {"ssh", *_OUT}
_NEIGHBOUR, _CONTROLLER, _LAN = "NEIGHBOUR/32", "CONTROLLER/32", "LAN.0/24"


@pytest.fixture(scope="module")
def cloud() -> Iterator[TestCloud]:
    cloud = TestCloud("test-firewall")
    cloud.create(cloud.spec("server", 1), cloud.spec("neighbour", 2))
    yield cloud
    cloud.down()


@pytest.fixture(autouse=True)
def _no_firewall(cloud: TestCloud) -> None:
    for name in ("server", "neighbour"):
        cloud.driver.filter(name, None)


def _passing(cloud: TestCloud, expected: set[str]) -> set[str]:
    """Return what passes; what is expected to has more time for it."""
    server, neighbour = cloud.machine("server"), cloud.machine("neighbour")
    lab, inside, beside = cloud.lab.namespace, server.namespace, neighbour.namespace
    probes: dict[str, Callable[[float], bool]] = {
        "ssh": partial(answers, lab, server.address, 22),
        "ssh from neighbour": partial(answers, beside, server.address, 22),
        "ping from neighbour": partial(pings, neighbour, server.address),
        "ipv6": partial(pings, neighbour, f"{_link_local(cloud, 'server')}%eth0"),
        "out: proxy": partial(answers, inside, cloud.lab.gateway, PROXY_PORT),
        "out: neighbour": partial(answers, inside, neighbour.address, 22),
    }
    # In threads, for what is lost takes its time.
    with ThreadPoolExecutor() as pool:
        started = {what: pool.submit(probe, ARRIVES if what in expected else LOST) for what, probe in probes.items()}
        with udp_socket(inside, 4000) as ear, udp_socket(lab) as controller, udp_socket(beside) as other:
            senders = {"udp": controller, "udp from neighbour": other}
            found = heard(ear, senders, server.address, expected & senders.keys())
        return found | {what for what, passed in started.items() if passed.result()}


def _link_local(cloud: TestCloud, name: str) -> str:
    listed = run(["nsenter", f"--net={cloud.machine(name).namespace}", "ip", "-json", "-6", "address", "show", "eth0"])
    return str(json.loads(listed)[0]["addr_info"][0]["local"])


@pytest.mark.parametrize(
    ("rules", "passing"),
    [
        pytest.param(None, _EVERYTHING, id="not attached"),
        pytest.param((), _OUT, id="no rules"),
        pytest.param((allow("tcp", "22", _CONTROLLER),), {"ssh", *_OUT}, id="ssh from one address"),
        pytest.param((allow("tcp", "20-30", _LAN, _NEIGHBOUR),), {"ssh", "ssh from neighbour", *_OUT}, id="range"),
        pytest.param(
            (allow("tcp", "23-65535"), allow("tcp", "22", "::/0"), allow("gre", None), allow("esp", None)),
            _OUT,
            id="other ports, ipv6, gre and esp",
        ),
        pytest.param(
            (allow("tcp", None, _NEIGHBOUR), allow("udp", "4000", _NEIGHBOUR)),
            {"ssh from neighbour", "udp from neighbour", *_OUT},
            id="any port, from one",
        ),
        pytest.param(
            (allow("udp", "4000"), allow("icmp", None)),
            {"udp", "udp from neighbour", "ping from neighbour", *_OUT},
            id="udp and icmp",
        ),
        pytest.param(
            (allow("tcp", "22"), allow("tcp", str(PROXY_PORT), direction="out")),
            {"ssh", "ssh from neighbour", "out: proxy"},
            id="out",
        ),
        pytest.param((allow("tcp", None, _NEIGHBOUR, direction="out"),), {"out: neighbour"}, id="out to one address"),
        pytest.param((allow("tcp", None, "::/0", direction="out"),), set(), id="out by ipv6 only"),
    ],
)
def test_what_passes(cloud: TestCloud, rules: Rules, passing: set[str]) -> None:
    cloud.driver.filter("server", _with_addresses(cloud, rules))
    assert _passing(cloud, passing) == passing


def _with_addresses(cloud: TestCloud, rules: Rules) -> Rules:
    names = {"NEIGHBOUR": cloud.machine("neighbour").address, "CONTROLLER": cloud.lab.gateway, "LAN": cloud.lab.prefix}
    if rules is None:
        return None
    replaced = []
    for rule in rules:
        cidrs = rule.cidrs
        for name, address in names.items():
            cidrs = tuple(cidr.replace(name, address) for cidr in cidrs)
        replaced.append(allow(rule.protocol, rule.port, *cidrs, direction=rule.direction))
    return tuple(replaced)


def test_rules_hold_from_the_first_packet_after_a_boot(cloud: TestCloud) -> None:
    cloud.driver.filter("server", (allow("tcp", "22", f"{cloud.lab.gateway}/32"),))
    machine = cloud.machine("server")
    before = network.identity(machine.namespace)
    machine.ssh("sudo systemd-run --quiet --collect systemctl reboot")  # from inside

    def has_begun() -> bool | None:
        with suppress(FileNotFoundError):
            return network.identity(machine.namespace) != before or None
        return None

    wait_until(has_begun, what="the new boot", timeout=BOOT_SECONDS)
    machine.wait(BOOT_SECONDS)
    assert _passing(cloud, _SSH) == _SSH


def test_rules_that_change_while_a_server_is_off_hold_after_its_boot(cloud: TestCloud) -> None:
    cloud.driver.power("server", "off")
    cloud.driver.filter("server", (allow("tcp", "22", f"{cloud.lab.gateway}/32"),))
    cloud.driver.power("server", "on")
    cloud.machine("server").wait(BOOT_SECONDS)
    assert _passing(cloud, _SSH) == _SSH


def test_rules_that_change_while_a_server_boots_are_in_force(cloud: TestCloud) -> None:
    """Whichever comes first: they are never lost between the file and the kernel."""
    machine = cloud.lab.add("racing", "debian-12", seed=Seed(3, ""))
    inside = [f"--net={machine.namespace}.firewall", "nft", "list", "ruleset"]
    with ThreadPoolExecutor() as pool:
        for attempt in range(8):
            boot = pool.submit(machine.connect)
            time.sleep(attempt * 0.015)
            cloud.driver.filter("racing", (allow("tcp", str(1000 + attempt)),))
            boot.result()
            assert f"tcp dport {1000 + attempt} accept" in run(["nsenter", *inside])
    cloud.driver.delete("racing")


def test_a_change_is_in_force_in_a_fifth_of_a_second(cloud: TestCloud) -> None:
    """Of the processor's time: other work does not count."""
    took = []
    for rules in [(), None] * 3:
        started = sum(os.times()[:4])
        cloud.driver.filter("server", rules)
        took.append(sum(os.times()[:4]) - started)
    assert min(took) < 0.2


def test_what_was_let_in_goes_on_when_its_rule_goes(cloud: TestCloud) -> None:
    cloud.driver.filter("server", (allow("tcp", "22"),))
    with network.tcp_socket(cloud.lab.namespace) as connection:
        connection.settimeout(5)
        connection.connect((cloud.machine("server").address, 22))
        assert connection.recv(4) == b"SSH-"
        cloud.driver.filter("server", ())
        connection.sendall(b"no protocol\r\n")
        while connection.recv(4096):
            pass
    assert _passing(cloud, _OUT) == _OUT


def test_two_that_let_nobody_in_reach_each_other_by_calling_at_once(cloud: TestCloud) -> None:
    """Tailscale's direct paths come about so. With one table of connections for both, the calls would not meet."""
    server, neighbour = cloud.machine("server"), cloud.machine("neighbour")
    for name in ("server", "neighbour"):
        cloud.driver.filter(name, ())
    with udp_socket(server.namespace, 5001) as one, udp_socket(neighbour.namespace, 5002) as other:
        assert not hears(other, one, neighbour.address, LOST)
        assert hears(one, other, server.address)
        assert hears(other, one, neighbour.address)


def test_a_server_neither_sees_nor_opens_its_firewall(cloud: TestCloud) -> None:
    cloud.driver.filter("server", (allow("tcp", "22", f"{cloud.lab.gateway}/32"),))
    machine = cloud.machine("server")
    assert "cloud" not in machine.ssh("sudo nft list ruleset")
    machine.ssh("sudo nft flush ruleset")
    assert _passing(cloud, _SSH) == _SSH


def test_a_server_with_another_address_is_not_let_in_or_out(cloud: TestCloud) -> None:
    machine, other = cloud.machine("server"), f"{cloud.lab.prefix}.251"
    machine.ssh(f"sudo ip address add {other}/24 dev eth0")
    try:
        assert answers(cloud.lab.namespace, other, 22)
        cloud.driver.filter("server", (allow("tcp", "22"),))
        assert not answers(cloud.lab.namespace, other, 22, LOST)
        with network.tcp_socket(machine.namespace) as away:
            away.settimeout(LOST)
            away.bind((other, 0))
            with pytest.raises(TimeoutError):
                away.connect((cloud.lab.gateway, PROXY_PORT))
    finally:
        machine.ssh(f"sudo ip address delete {other}/24 dev eth0")


def test_what_is_said_of_its_own_connections_comes_in(cloud: TestCloud) -> None:
    """A server with no rules still learns that nobody listens where it called: ICMP that belongs to a connection."""
    cloud.driver.filter("server", ())
    with udp_socket(cloud.machine("server").namespace) as caller:
        caller.connect((cloud.machine("neighbour").address, 9))
        caller.send(b"x")
        with pytest.raises(ConnectionRefusedError):
            caller.recv(1)


def test_a_cut_cable_is_cut_and_healed_behind_a_firewall(cloud: TestCloud) -> None:
    cloud.driver.filter("server", (allow("tcp", "22"),))
    cloud.machine("server").cut()
    assert not answers(cloud.lab.namespace, cloud.machine("server").address, 22, LOST)
    cloud.machine("server").heal()
    assert answers(cloud.lab.namespace, cloud.machine("server").address, 22)


_MALFORMED = [
    (allow("tcp", "0"), "no port '0'"),
    (allow("tcp", "1-2-3"), "no port '1-2-3'"),
    (allow("tcp", "22 accept; drop"), "no port"),
    (allow("tcp; drop", "22"), "no protocol"),
    (allow("tcp", "22", "10.0.0.300/32"), "10.0.0.300"),
]


def test_a_malformed_rule_changes_nothing(cloud: TestCloud) -> None:
    cloud.driver.filter("server", ())
    for rule, message in _MALFORMED:
        with pytest.raises(LabError, match=message):
            cloud.driver.filter("server", (allow("tcp", "22"), rule))
    assert _passing(cloud, _OUT) == _OUT
