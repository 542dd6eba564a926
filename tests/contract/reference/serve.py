"""The command line: serve | token mint NAME [--role ROLE] | token revoke NAME."""

from __future__ import annotations

import asyncio
import os
import signal
import sys

from tests.contract.reference.broker import Broker
from tests.contract.reference.http import MAX_HEAD_BYTES, Server
from tests.contract.reference.store import Store


async def serve() -> None:
    """Serve until SIGTERM, and answer whoever waits then."""
    broker = Broker(Store())
    server = Server(broker.handle, broker.lines.serve, int(os.environ.get("MAX_CONNECTIONS", "1000")))
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    port = int(os.environ["BROKER_PORT"])
    listening = await asyncio.start_server(server.connection, "127.0.0.1", port, limit=MAX_HEAD_BYTES)
    leases = asyncio.create_task(broker.keep_leases())
    await stop.wait()
    listening.close()
    leases.cancel()
    broker.stopping = True
    broker.store.wake()
    for name in [*broker.lines.lines]:
        broker.lines.end(name, 1012)
    await asyncio.sleep(0.05)


def run(arguments: list[str]) -> None:
    """Do what the command line says."""
    match arguments:
        case ["serve"]:
            asyncio.run(serve())
        case ["token", "mint", name]:
            print(Store().mint(name, "worker"))
        case ["token", "mint", name, "--role", role]:
            print(Store().mint(name, role))
        case ["token", "revoke", name]:
            Store().revoke(name)
        case _:
            sys.exit(f"usage: {__doc__}")
