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
    from pathlib import Path

    from lab.machines import Machine


# Cloud-init takes seconds of processor time, which several hosts at once, and other work, share.
BOOT_SECONDS = 240.0
# What did not come by then is lost.
_PATIENCE = 1.5


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


def answers(namespace: Path, address: str, port: int) -> bool:
    """Say whether a TCP connection from a namespace is taken or refused, and not lost."""
    with network.tcp_socket(namespace) as probe:
        probe.settimeout(_PATIENCE)
        try:
            probe.connect((address, port))
        except ConnectionRefusedError:
            return True
        except OSError:
            return False
        return True


def pings(sender: Machine, address: str) -> bool:
    """Say whether a server's ping is answered; the machine itself may have no such program."""
    try:
        sender.ssh(f"ping -n -c 1 -W 2 {address}")
    except CommandFailedError:
        return False
    return True


def udp_socket(namespace: Path, port: int = 0) -> socket.socket:
    """Return a UDP socket of a namespace that waits for a packet for a moment only."""
    with network.inside(namespace):
        opened = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    opened.settimeout(_PATIENCE)
    opened.bind(("", port))
    return opened


def hears(listener: socket.socket, sender: socket.socket, address: str) -> bool:
    """Say whether what one socket sends arrives at the other, which has this address."""
    sender.sendto(b"x", (address, listener.getsockname()[1]))
    try:
        return listener.recv(1) == b"x"
    except TimeoutError:
        return False


def allow(protocol: str, port: str | None, *cidrs: str, direction: str = "in") -> Rule:
    return Rule(direction, protocol, port, cidrs or ("0.0.0.0/0", "::/0"))  # type: ignore[arg-type]
