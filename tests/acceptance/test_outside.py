"""From outside of the tailnet a node answers nothing, and each of its two firewalls alone is enough for that."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

from lab import network
from tests.support import firewalls, outside
from tests.support.cloud import udp_socket

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lab.machines import Machine
    from tests.support.fleet import TestFleet
    from tests.support.outside import Outsider

NODES = ("broker-1", "agents-1", "agents-2")
WIREGUARD = 41641
# Where nothing of the kit's listens.
SPARE = 4001
ALL = len(outside.PORTS)


@pytest.fixture(scope="module")
def outsider(fleet: TestFleet) -> Iterator[Outsider]:
    with outside.outsider(fleet.lab.lab) as somebody:
        yield somebody


@pytest.fixture(scope="module")
def machines(fleet: TestFleet) -> list[Machine]:
    return [fleet.lab.machine(node) for node in NODES]


def _answers(outsider: Outsider, machine: Machine) -> dict[str, str]:
    """Return all that a node answers, by port."""
    ports = outside.udp_ports(machine)
    assert WIREGUARD in ports
    datagrams = {f"udp/{port}": outsider.knock(machine, port) for port in ports}
    segments = {f"tcp/{port}": answer for port, answer in outsider.scan(machine).items()}
    return {port: answer for port, answer in (segments | datagrams).items() if answer != "silence"}


def test_the_hosts_firewalls_alone_let_nothing_in(
    fleet: TestFleet, outsider: Outsider, machines: list[Machine]
) -> None:
    with firewalls.without_the_clouds(fleet.lab.lab):
        for machine in machines:
            with outsider.counted(machine) as arrived:
                assert _answers(outsider, machine) == {}
                assert arrived() > ALL, machine.name


def test_the_clouds_firewall_alone_lets_nothing_in(
    fleet: TestFleet, outsider: Outsider, machines: list[Machine]
) -> None:
    with firewalls.without_the_hosts(fleet, NODES):
        for machine in machines:
            with outsider.counted(machine) as arrived:
                assert _answers(outsider, machine) == {}
                assert arrived() == 0, machine.name


def test_without_both_every_port_answers(fleet: TestFleet, outsider: Outsider) -> None:
    """So what is silent else is so because of a firewall, and nothing of a scan is lost on its way."""
    machine = fleet.lab.machine("agents-1")
    with ExitStack() as stack:
        stack.enter_context(firewalls.without_the_hosts(fleet, [machine.name]))
        stack.enter_context(firewalls.without_the_clouds(fleet.lab.lab))
        assert outsider.knock(machine, SPARE) == "refused"
        by_tcp = stack.enter_context(network.tcp_socket(machine.namespace))
        by_tcp.bind((machine.address, SPARE))
        by_tcp.listen()
        by_udp = stack.enter_context(udp_socket(machine.namespace, SPARE))
        answers = outsider.scan(machine)
        assert {port for port, answer in answers.items() if answer == "open"} == {22, SPARE}
        assert {port for port, answer in answers.items() if answer == "refused"} == {*outside.PORTS} - {22, SPARE}
        assert outsider.knock(machine, SPARE) == "silence"
        assert by_udp.recv(16)
