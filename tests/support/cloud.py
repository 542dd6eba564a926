"""A lab's cloud for tests, driven as the API's stand-in drives it."""

from __future__ import annotations

import socket
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import yaml

from lab import network
from lab.cloud import MachineDriver
from lab.errors import CommandFailedError
from lab.hetzner_api.driver import Rule, ServerSpec
from tests.support.lab import TestLab

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from pathlib import Path

    from lab.machines import Machine


# Cloud-init takes seconds of processor time, which several hosts at once, and other work, share.
BOOT_SECONDS = 240.0
# What shall arrive comes at once, but for a machine that is busy; what did not come in LOST seconds is taken for lost.
ARRIVES, LOST = 20.0, 1.5


class TestCloud:
    """A lab of its own, its driver, and its servers, which are let in by user data alone."""

    __test__ = False

    def __init__(self, purpose: str) -> None:
        self.test_lab = TestLab(purpose)
        self.lab = self.test_lab.lab
        self.driver = MachineDriver(self.lab)
        self.test_lab.run("down")
        self.lab.prepare()

    def spec(self, name: str, number: int, image: str = "debian-12", user_data: str | None = None) -> ServerSpec:
        return ServerSpec(number, name, image, self.user_data() if user_data is None else user_data, ())

    def create(self, *servers: ServerSpec) -> None:
        """Make servers at once, and wait until each is ready."""
        with ThreadPoolExecutor() as pool:
            list(pool.map(self.driver.create, servers))
        for server in servers:
            self.machine(server.name).wait(BOOT_SECONDS)

    def machine(self, name: str) -> Machine:
        return self.lab.machine(name)

    def down(self) -> None:
        self.test_lab.run("down")

    def user_data(self) -> str:
        deploy = {
            "name": "deploy",
            "groups": ["sudo", "video"],
            "sudo": "ALL=(ALL) NOPASSWD:ALL",
            "shell": "/bin/bash",
            "ssh_authorized_keys": [self.lab.public_key.read_text().strip()],
        }
        content = {
            "users": [deploy],
            "write_files": [{"path": "/etc/told", "permissions": "0640", "content": "by the cloud\n"}],
            "runcmd": [["sh", "-c", "id -un > /etc/ran"]],
        }
        return f"#cloud-config\n{yaml.safe_dump(content)}"


def answers(namespace: Path, address: str, port: int, patience: float = ARRIVES) -> bool:
    """Say whether a TCP connection from a namespace is taken or refused, and not lost."""
    with network.tcp_socket(namespace) as probe:
        probe.settimeout(patience)
        try:
            probe.connect((address, port))
        except ConnectionRefusedError:
            return True
        except OSError:
            return False
        return True


def pings(sender: Machine, address: str, patience: float = ARRIVES) -> bool:
    """Say whether a server's ping is answered; the machine itself may have no such program."""
    try:
        sender.ssh(f"ping -n -c 1 -W {patience} {address}")
    except CommandFailedError:
        return False
    return True


def udp_socket(namespace: Path, port: int = 0) -> socket.socket:
    """Return a UDP socket of a namespace."""
    with network.inside(namespace):
        opened = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    opened.settimeout(ARRIVES)
    opened.bind(("", port))
    return opened


def hears(listener: socket.socket, sender: socket.socket, address: str, patience: float = ARRIVES) -> bool:
    """Say whether what one socket sends arrives at the other, which has this address."""
    sender.sendto(b"x", (address, listener.getsockname()[1]))
    listener.settimeout(patience)
    try:
        return listener.recv(1) == b"x"
    except TimeoutError:
        return False


def heard(
    listener: socket.socket, senders: Mapping[str, socket.socket], address: str, expected: Collection[str]
) -> set[str]:
    """Return the names of the sockets from which something arrives at the listener, which has this address."""
    for name, sender in senders.items():
        sender.sendto(name.encode(), (address, listener.getsockname()[1]))
    arrived: set[str] = set()
    while len(arrived) < len(senders):
        listener.settimeout(ARRIVES if set(expected) - arrived else LOST)
        try:
            arrived.add(listener.recv(64).decode())
        except TimeoutError:
            break
    return arrived


def allow(protocol: str, port: str | None, *cidrs: str, direction: str = "in") -> Rule:
    return Rule(direction, protocol, port, cidrs or ("0.0.0.0/0", "::/0"))  # type: ignore[arg-type]
