"""A port on this machine's loopback that leads to a port on the loopback of a host in the lab.

The host's namespace is looked up anew for every connection, so the relay outlives the host's reboots.

    python -m lab.relay LOCAL_PORT NAMESPACE REMOTE_PORT
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import sys
from pathlib import Path

from lab import network
from lab.streams import join


async def _main(local_port: int, namespace: Path, remote_port: int) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            connection = await _dial(namespace, remote_port)
            await join(reader, writer, *await asyncio.open_connection(sock=connection))
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", local_port)
    await server.serve_forever()


async def _dial(namespace: Path, port: int) -> socket.socket:
    connection = network.tcp_socket(namespace)
    connection.setblocking(False)
    await asyncio.get_running_loop().sock_connect(connection, ("127.0.0.1", port))
    return connection


def answers(port: int) -> bool | None:
    """Say whether something takes connections on a loopback port; None while nothing does."""
    with socket.socket() as probe:
        return True if probe.connect_ex(("127.0.0.1", port)) == 0 else None


def free_port(preferred: int) -> int:
    """Return the preferred loopback port, or where something has it, another that is free."""
    for port in (preferred, 0):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", port))
            return int(probe.getsockname()[1])
    raise OSError("no free port on loopback")


if __name__ == "__main__":
    asyncio.run(_main(int(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])))
