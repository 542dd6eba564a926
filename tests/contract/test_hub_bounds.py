"""What an agent's line may cost: connections, what is not read, and pieces without end."""

from __future__ import annotations

import os
import struct
import time
from pathlib import Path
from typing import TYPE_CHECKING

from tests.contract.lines import assign, line, register

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

    from tests.contract.harness import Broker

PING, TEXT, CONTINUED = 0x89, 0x01, 0x00
SECONDS = 10.0


def frame(first: int, data: bytes) -> bytes:
    """A masked frame; the mask is nought."""
    head = (
        struct.pack("!BB", first, 0x80 | len(data)) if len(data) < 126 else struct.pack("!BBH", first, 254, len(data))
    )
    return head + bytes(4) + data


def bare(broker: Broker, url: str) -> socket.socket:
    """A line of a client's that does only what it is told to."""
    connection = broker.socket()
    path = url.removeprefix(broker.url.replace("http", "ws"))
    head = f"GET {path} HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: upgrade\r\n"
    connection.sendall(f"{head}Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {'A' * 22}==\r\n\r\n".encode())
    assert connection.recv(65536).startswith(b"HTTP/1.1 101 ")
    return connection


def floods(connection: socket.socket, data: bytes, most: int) -> bool:
    """Whether so many bytes are taken by one who is not answered or heard."""
    connection.settimeout(SECONDS)
    try:
        for _ in range(most // len(data)):
            connection.sendall(data)
    except (ConnectionError, TimeoutError):
        return False
    return True


def test_lines_count_among_the_connections(start_broker: Callable[..., Broker], cap: str) -> None:
    broker = start_broker(MAX_CONNECTIONS="4")
    urls = [register(broker.admin(), f"{cap}-{n}") for n in range(4)]
    broker.disconnect()
    with line(urls[0], "0") as first, line(urls[1], "1"), line(urls[2], "2"), line(urls[3], "3"):
        with broker.socket() as fifth:  # the library's client trips over an answer that comes before its question
            assert fifth.recv(65536).startswith(b"HTTP/1.1 503 ")
        assert first.silent()


def test_pings_of_one_who_does_not_read_end_the_line(new_broker: Callable[..., Broker]) -> None:
    broker = new_broker().start()
    with bare(broker, register(broker.admin(), "a")) as connection:
        assert not floods(connection, frame(PING, b"x" * 120) * 100, 64 * 2**20)
    assert memory(broker) < 150


def test_pieces_without_end_end_the_line(new_broker: Callable[..., Broker]) -> None:
    broker = new_broker().start()
    with bare(broker, register(broker.admin(), "a")) as connection:
        connection.sendall(frame(TEXT, b""))
        assert not floods(connection, frame(CONTINUED, b"") * 100, 10 * 2**20)


def test_messages_for_one_who_does_not_read_stay_where_they_are(new_broker: Callable[..., Broker]) -> None:
    broker = new_broker().start()
    admin = broker.admin()
    deaf, url = register(admin, "deaf"), register(admin, "a")
    with bare(broker, deaf), line(url, "a") as agent:
        for _ in range(300):
            assert agent.ask("log", "deaf", text="x" * 60000)["status"] == "sent"
        assert memory(broker) < 150
    with line(deaf, "deaf", max_queue=None) as again:
        assert sum(again.next()["from"] == "a" for _ in range(300)) == 300


def test_a_line_that_is_idle_stays(new_broker: Callable[..., Broker]) -> None:
    broker = new_broker().start()
    with line(register(broker.admin(), "a"), "a", ping_interval=None) as agent:
        # Longer than a request may take to come, and than a ping is waited for.
        time.sleep(32)
        assign(broker.admin(), "a")
        assert agent.task()["type"] == "ping"


def memory(broker: Broker) -> float:
    """The broker's resident MiB."""
    pages = int(Path(f"/proc/{broker.pid}/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20
