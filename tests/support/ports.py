"""Ports for servers of the tests' own."""

from __future__ import annotations

import socket
from contextlib import ExitStack


def free_port() -> int:
    """Return a port of the loopback that nothing listens on."""
    return free_ports(1)[0]


def free_ports(count: int) -> list[int]:
    """Return as many different ports of the loopback that nothing listens on."""
    with ExitStack() as held:
        listeners = [held.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [listener.getsockname()[1] for listener in listeners]
