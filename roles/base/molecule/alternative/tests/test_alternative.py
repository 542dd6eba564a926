"""A host whose every setting is off its default, judged by what it does."""

from __future__ import annotations

import os
import re
import shlex
from typing import TYPE_CHECKING

import pytest

from tests.support import programs
from tests.support.molecule import LAB, log_in

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from testinfra.host import Host

testinfra_hosts = ["ansible://all"]
(NAMESPACE,) = re.findall(r"nsenter (--net=\S+)", LAB["vars"]["ansible_ssh_common_args"])
WORDS = "correct-horse"

# Prints "open" when a byte comes back from the port.
ASK = """
import socket, sys
kind = {"tcp": socket.SOCK_STREAM, "udp": socket.SOCK_DGRAM}[sys.argv[1]]
with socket.socket(socket.AF_INET, kind) as asking:
    asking.settimeout(1)
    asking.connect((sys.argv[2], int(sys.argv[3])))
    asking.send(b"x")
    print("open" if asking.recv(1) else "closed")
"""
ANSWER = """
import socket, sys
kind = {"tcp": socket.SOCK_STREAM, "udp": socket.SOCK_DGRAM}[sys.argv[1]]
with socket.socket(socket.AF_INET, kind) as listening:
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listening.bind(("0.0.0.0", int(sys.argv[2])))
    if sys.argv[1] == "tcp":
        listening.listen()
    while True:
        if sys.argv[1] == "tcp":
            listening.accept()[0].send(b"x")
        else:
            listening.sendto(b"x", listening.recvfrom(1)[1])
"""
# A network namespace that reaches the host over an interface which is not eth0.
BEHIND = """
set -e
touch /run/behind
unshare --net=/run/behind true
ip link add behind0 type veth peer name eth0 netns /run/behind
ip address add 198.51.100.1/24 dev behind0
ip link set behind0 up
into="nsenter --net=/run/behind ip"
$into address add 198.51.100.2/24 dev eth0
$into link set eth0 up
"""


def wait(root: Host, condition: str) -> None:
    """Wait until a command succeeds; a busy machine takes its time."""
    root.check_output(f"timeout 60 bash -c 'until {condition}; do sleep 0.1; done'")


@pytest.fixture
def password(root: Host, tmp_path: Path) -> Iterator[dict[str, str]]:
    """An environment in which ssh types the password that root and alice have for a while."""
    types_it = tmp_path / "askpass"
    types_it.write_text(f"#!/bin/sh\necho {WORDS}\n")
    types_it.chmod(0o700)
    root.check_output(f"printf 'root:{WORDS}\\nalice:{WORDS}\\n' | chpasswd")
    yield {**os.environ, "SSH_ASKPASS": str(types_it), "SSH_ASKPASS_REQUIRE": "force"}
    root.check_output("passwd --quiet --lock root && passwd --quiet --lock alice")


def test_root_logs_in_with_a_key(root: Host, address: str) -> None:
    root.check_output("install -D -m 0600 /home/alice/.ssh/authorized_keys /root/.ssh/authorized_keys")

    assert log_in("root", address, "id", "-un").stdout == "root\n"


def test_people_log_in_with_a_password_and_root_does_not(address: str, password: dict[str, str]) -> None:
    only = ("-o", "BatchMode=no", "-o", "PubkeyAuthentication=no", "-o", "NumberOfPasswordPrompts=1")

    assert log_in("alice", address, "id", "-un", options=only, environment=password).stdout == "alice\n"
    refused = log_in("root", address, "id", "-un", options=only, environment=password)
    assert refused.returncode == 255
    assert "Permission denied" in refused.stderr


def test_who_left_has_no_account_and_a_home(root: Host) -> None:
    assert not root.user("bob").exists
    assert root.file("/home/bob").is_directory


@pytest.mark.parametrize(
    ("protocol", "port", "answer"),
    [
        ("udp", 8001, "open"),  # let in for this controller
        ("tcp", 8001, "TimeoutError: timed out"),  # the other protocol
        ("udp", 8002, "TimeoutError: timed out"),  # let in for somebody else
        ("tcp", 8003, "open"),  # for this network among others
        ("udp", 8003, "TimeoutError: timed out"),
        ("tcp", 8004, "open"),  # over this interface
        ("tcp", 8005, "TimeoutError: timed out"),  # over another
    ],
)
def test_the_firewall_lets_in_what_is_declared(root: Host, address: str, protocol: str, port: int, answer: str) -> None:
    unit = f"answer-{protocol}-{port}"
    argv = f"python3 -c {shlex.quote(ANSWER)} {protocol} {port}"
    root.check_output(f"systemd-run --quiet --collect --unit={unit} {argv}")
    root.check_output(
        f"timeout 10 sh -c 'until ss -Hlnt{protocol[0]} sport = :{port} | grep -q .; do sleep 0.05; done'"
    )
    asked = programs.run(["nsenter", NAMESPACE, "python3", "-c", ASK, protocol, address, str(port)])
    root.check_output(f"systemctl stop {unit}")

    assert (asked.stdout + asked.stderr).strip().splitlines()[-1] == answer


def test_ssh_comes_in_over_its_interface_only(root: Host, address: str) -> None:
    """The other interface leads to a network of its own behind the host."""
    root.check_output(BEHIND)
    knock = "nsenter --net=/run/behind timeout 2 bash -c '< /dev/tcp/198.51.100.1/22'"
    try:
        assert log_in("alice", address, "id", "-un").stdout == "alice\n"
        assert root.run(knock).rc == 124
        root.check_output("nft delete table inet openclaw")
        assert root.run(knock).rc == 0
    finally:
        root.check_output("systemctl restart openclaw-firewall; ip link delete behind0")
        root.check_output("umount /run/behind; rm /run/behind")


def test_the_journal_stays_within_its_size(root: Host) -> None:
    """What is written to at the moment comes on top: two files of an eighth each. Few lines, for the rate's limit."""
    write = "head -c 48M /dev/urandom | base64 --wrap=40000 | systemd-cat --identifier=filler"
    root.check_output(f"systemd-run --quiet --wait sh -c '{write}'")
    root.check_output("journalctl --sync; journalctl --rotate")
    kilobytes = int(root.check_output("du -sk /var/log/journal").split()[0])

    assert 4 * 1024 < kilobytes <= 20 * 1024


def test_the_journal_forgets(root: Host) -> None:
    """What is older than three seconds goes when a file is full or, as here, is put away."""
    has_it = "journalctl --quiet --no-pager --identifier=witness | grep -q seen"
    # A unit of its own has a rate of its own.
    root.check_output("systemd-run --quiet --wait systemd-cat --identifier=witness echo seen")
    wait(root, has_it)

    wait(root, f"sleep 1; journalctl --rotate; ! {has_it}")


def test_no_update_is_installed_unasked(root: Host) -> None:
    """Debian's daily job finds a program of ours in the place of unattended-upgrade."""
    stand_in, control = "/usr/local/bin/unattended-upgrade", "/etc/apt/apt.conf.d/99-control"
    daily = "rm -f /run/upgraded; /usr/lib/apt/apt.systemd.daily install; test ! -e /run/upgraded"
    root.check_output(f"printf '#!/bin/sh\\ntouch /run/upgraded\\n' > {stand_in} && chmod 0755 {stand_in}")

    assert not root.package("unattended-upgrades").is_installed
    assert root.run(daily).rc == 0
    root.check_output(f"echo 'APT::Periodic::Unattended-Upgrade \"1\";' > {control}")
    assert root.run(daily).rc == 1
    root.check_output(f"rm {control} {stand_in}")


def test_further_packages_are_there(host: Host) -> None:
    assert host.check_output("tree -L 1 /etc/openclaw | head -n 1") == "/etc/openclaw"
