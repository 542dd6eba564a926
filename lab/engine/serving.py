"""How a Pulumi plugin is served: gRPC on a port of its own, which it prints, until the engine wants it no more."""

from __future__ import annotations

import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, NoReturn

import grpc

if TYPE_CHECKING:
    from collections.abc import Callable

_THREADS = 64
_UNLIMITED = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]


def serve(add: Callable[[Any], None], *, stop: Callable[[], None] = lambda: None) -> NoReturn:
    """Serve what `add` adds to the gRPC server, and print the port for the engine that started this process.

    Ends at once on SIGINT, which is how the engine takes leave (it waits ten seconds for plugins that do not), and
    within a second of the engine's own end, so that nothing goes on after a `kill -9`. Calls `stop` before.
    """
    engine = os.getppid()
    server = grpc.server(ThreadPoolExecutor(_THREADS), options=_UNLIMITED)
    add(server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()

    def end(*_: object) -> NoReturn:
        stop()
        os._exit(0)

    signal.signal(signal.SIGINT, end)
    signal.signal(signal.SIGTERM, end)
    print(port, flush=True)
    while os.getppid() == engine:
        time.sleep(1)
    end()
