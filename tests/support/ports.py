"""Ports for servers of the tests' own."""

from __future__ import annotations

import random
import socket
from contextlib import ExitStack, suppress

# Below those that the kernel gives to whoever connects: one of them could be taken at any time, and who tries one until
# its server listens would one day meet itself.
_PORTS = range(10000, 32768)


def free_port() -> int:
    """Return a port of the loopback that nothing listens on."""
    return free_ports(1)[0]


def free_ports(count: int) -> list[int]:
    """Return as many different ports of the loopback that nothing listens on."""
    with ExitStack() as held:
        return [_held(held) for _ in range(count)]


def _held(held: ExitStack) -> int:
    while True:
        port = random.choice(_PORTS)
        with suppress(OSError):
            held.enter_context(socket.create_server(("127.0.0.1", port)))
            return port
