"""Converged hosts, judged from the controller and from each other."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from tests.support.molecule import LAB, connect, listeners, log_in, other

if TYPE_CHECKING:
    from collections.abc import Iterator

    from testinfra.host import Host

testinfra_hosts = ["ansible://all"]


@pytest.fixture
def neighbour(host: Host) -> Host:
    return other(next(name for name in LAB["hosts"] if name != host.backend.get_hostname()))


def answers(neighbour: Host, address: str, port: int) -> str:
    """What a neighbour gets from a port: open, or how the attempt ended."""
    done = connect(neighbour, address, port)
    return "open" if done.rc == 0 else str(done.stderr).strip().splitlines()[-1]


@pytest.fixture
def listening(root: Host) -> Iterator[None]:
    """Something that listens on every port of the firewall's table test."""
    with listeners(root, 8001, 8002, 8003):
        yield


def test_an_administrator_logs_in_and_is_root_by_sudo(address: str) -> None:
    assert log_in("alice", address, "sudo", "-n", "id", "-un").stdout == "root\n"


def test_an_administrator_of_whom_no_keys_are_declared_keeps_them(address: str) -> None:
    assert log_in("deploy", address, "true").returncode == 0


def test_root_is_refused_with_a_key_that_is_in_its_file(root: Host, address: str) -> None:
    root.check_output("install -d -m 0700 /root/.ssh")
    root.check_output("install -m 0600 /home/alice/.ssh/authorized_keys /root/.ssh/authorized_keys")
    refused = log_in("root", address, "true")

    assert refused.returncode == 255
    assert "Permission denied" in refused.stderr
    assert log_in("alice", address, "true").returncode == 0


def test_an_agents_user_is_refused_with_a_key_in_its_home(root: Host, address: str) -> None:
    root.run("groupadd --system openclaw-agents")
    root.run("useradd --create-home --shell /bin/bash --groups openclaw-agents agent9")
    root.check_output("install -d -m 0700 -o agent9 -g agent9 ~agent9/.ssh")
    keys = "/home/alice/.ssh/authorized_keys ~agent9/.ssh/authorized_keys"
    root.check_output(f"install -m 0600 -o agent9 -g agent9 {keys}")
    refused = log_in("agent9", address, "true")

    assert refused.returncode == 255
    assert "Permission denied" in refused.stderr
    root.check_output("gpasswd --delete agent9 openclaw-agents")
    assert log_in("agent9", address, "true").returncode == 0
    root.check_output("userdel --force --remove agent9")


def test_passwords_are_not_asked_for(address: str) -> None:
    done = log_in("alice", address, "true", options=["-o", "PubkeyAuthentication=no"])

    assert done.returncode == 255
    assert "Permission denied (publickey)" in done.stderr


@pytest.mark.usefixtures("listening")
def test_the_firewall_drops_what_is_not_allowed(neighbour: Host, address: str) -> None:
    found = {port: answers(neighbour, address, port) for port in (22, 8001, 8002, 8003)}

    assert found == {22: "open", 8001: "open", 8002: "TimeoutError: timed out", 8003: "TimeoutError: timed out"}


@pytest.mark.usefixtures("listening")
def test_it_is_the_firewall_that_drops(root: Host, neighbour: Host, address: str) -> None:
    root.check_output("nft delete table inet openclaw")
    try:
        assert answers(neighbour, address, 8003) == "open"
    finally:
        root.check_output("systemctl restart openclaw-firewall.service")
    assert answers(neighbour, address, 8003) == "TimeoutError: timed out"


def test_hosts_answer_a_ping(neighbour: Host, address: str) -> None:
    with neighbour.sudo():
        assert neighbour.run(f"ping -c 1 -W 2 {address}").rc == 0


def test_the_firewall_is_there_after_a_boot(host: Host) -> None:
    assert host.service("openclaw-firewall.service").is_enabled
    assert host.service("openclaw-firewall.service").is_running


def test_the_journal_is_bounded(root: Host) -> None:
    said = root.check_output("journalctl --unit=systemd-journald.service --grep='System Journal' --lines=1")

    assert re.search(r"max 500(\.0)?M", said)


def test_security_updates_and_nothing_else_are_installed(root: Host, host: Host) -> None:
    output = root.check_output("unattended-upgrade --dry-run --debug 2>&1")
    allowed = next(line for line in output.splitlines() if line.startswith("Allowed origins are:"))
    codename = host.system_info.codename

    assert allowed.endswith(f": origin=Debian,codename={codename}-security,label=Debian-Security")
    periodic = root.check_output("apt-config dump APT::Periodic")
    assert 'APT::Periodic::Unattended-Upgrade "1";' in periodic
