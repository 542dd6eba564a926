"""Bounds: nothing that a client sends is kept without end."""

from __future__ import annotations

import json
import os
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pytest

from tests.contract.harness import TLS, Broker, caps, claim, submit

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Iterator

    from tests.contract.harness import Endpoint

MIB = 2**20


def resident(broker: Broker) -> int:
    """Bytes of memory that the process holds."""
    pages = Path(f"/proc/{broker.pid}/statm").read_text(encoding="ascii").split()[1]
    return int(pages) * os.sysconf("SC_PAGESIZE")


def peak(broker: Broker) -> int:
    """The most bytes of memory that the process ever held."""
    status = Path(f"/proc/{broker.pid}/status").read_text(encoding="ascii")
    return int(next(line for line in status.splitlines() if line.startswith("VmHWM:")).split()[1]) * 1024


def status_line(sock: socket.socket) -> bytes:
    with suppress(ConnectionError):
        return sock.recv(4096).split(b"\r\n")[0]
    return b""


def flood(sock: socket.socket, part: bytes, most: int) -> int:
    """Send a part again and again until the peer ends it; returns how many bytes it took."""
    sent = 0
    with suppress(ConnectionError):
        while sent < most:
            sock.sendall(part)
            sent += len(part)
    return sent


@pytest.fixture
def own(start_broker: Callable[..., Broker]) -> Broker:
    """A broker whose memory can be looked at."""
    return start_broker()


def test_a_body_that_says_it_is_too_large(broker: Endpoint) -> None:
    body = json.dumps({"command": "ping", "agent": "nobody", "x": "x" * 524_288}).encode()
    response = broker.bot().post("/jobs", content=body)
    assert (response.status_code, response.json()) == (413, {"detail": "request body too large"})


def test_a_body_of_exactly_the_limit_is_read(broker: Endpoint) -> None:
    body = b'{"command":"ping","agent":"nobody"}'.ljust(524_288)
    assert broker.bot().post("/jobs", content=body).status_code == 200
    assert broker.bot().post("/jobs", content=body + b" ").status_code == 413


def test_a_streamed_body_is_counted(broker: Endpoint) -> None:
    def body() -> Iterator[bytes]:
        yield b'{"command":"ping","x":"'
        for _ in range(30):
            yield b"x" * 20_000

    response = broker.bot().post("/jobs", content=body())
    assert (response.status_code, response.json()) == (413, {"detail": "request body too large"})


@pytest.mark.parametrize(("call", "field"), [("result", "result"), ("fail", "error"), ("release", "reason")])
def test_reports_have_a_bounded_size(broker: Endpoint, cap: str, call: str, field: str) -> None:
    worker = broker.worker("w", cap)
    job_id = submit(broker.bot(), requires=caps(cap))
    claim(worker)
    most = 1024 if field == "reason" else 262_144
    response = worker.post(f"/jobs/{job_id}/{call}", json={field: "x" * (most + 1)})
    assert (response.status_code, response.json()) == (413, {"detail": f"{field} too large"})
    assert worker.post(f"/jobs/{job_id}/{call}", json={field: "x" * most}).status_code == 200


@pytest.mark.parametrize(
    "start",
    [
        b"GET /health HTTP/1.1\r\nX-Endless: ",
        b"GET /health HTTP/1.1\r\n",
        b"GET /",
        b"POST /jobs HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX-Endless: ",
    ],
    ids=["value", "lines", "path", "trailer"],
)
def test_an_endless_head_is_refused_and_not_kept(own: Broker, start: bytes) -> None:
    before = resident(own)
    part = b"X-Line: x\r\n" * 1000 if start.endswith(b"\n") else b"x" * 10_000
    with own.socket() as sock:
        sock.sendall(start)
        sent = flood(sock, part, 64 * MIB)
        line = status_line(sock)
    assert sent < 16 * MIB
    assert line in (b"HTTP/1.1 431 Request Header Fields Too Large", b"HTTP/1.1 401 Unauthorized", b"")
    assert resident(own) - before < 4 * MIB


def test_a_large_head_is_refused_with_a_message(own: Broker) -> None:
    response = own.client().get("/health", headers={"X-Large": "x" * 30_000})
    assert response.status_code == 200
    with own.socket() as sock:
        sock.sendall(b"GET /health HTTP/1.1\r\nX-Large: " + b"x" * 60_000)
        assert status_line(sock) == b"HTTP/1.1 431 Request Header Fields Too Large"


def test_an_endless_body_is_not_kept(own: Broker) -> None:
    before = peak(own)
    head = f"POST /jobs HTTP/1.1\r\nX-Bot-Token: {own.bot_token}\r\nTransfer-Encoding: chunked\r\n\r\n"
    with own.socket() as sock:
        sock.sendall(head.encode())
        flood(sock, b"2710\r\n" + b"x" * 10_000 + b"\r\n", 32 * MIB)
        # Its end, and the answer: what was sent may not have been read before.
        flood(sock, b"0\r\n\r\n", 1)
        status_line(sock)
    assert peak(own) - before < 4 * MIB


def test_a_client_that_goes_in_the_middle_of_its_body_is_no_error_of_ours(own: Broker) -> None:
    head = f"POST /jobs HTTP/1.1\r\nHost: x\r\nX-Bot-Token: {own.bot_token}\r\nContent-Length: 99\r\n\r\n{{"
    for _ in range(5):
        with own.socket() as sock:
            sock.sendall(head.encode())
        assert own.client().get("/health").status_code == 200
    assert "ERROR" not in own.log.read_text(encoding="utf-8")


def test_connections_are_bounded(start_broker: Callable[..., Broker]) -> None:
    broker = start_broker(MAX_CONNECTIONS="20")
    socks = [broker.socket() for _ in range(20)]
    with broker.socket() as sock:
        assert status_line(sock) == b"HTTP/1.1 503 Service Unavailable"
    for sock in socks:
        sock.close()
    deadline = time.monotonic() + 5
    status = 503
    while status == 503 and time.monotonic() < deadline:
        with suppress(httpx.TransportError):
            status = httpx.get(f"{broker.url}/health", verify=TLS).status_code
    assert status == 200


def test_the_queue_is_bounded_by_its_unfinished_jobs(start_broker: Callable[..., Broker]) -> None:
    broker = start_broker(MAX_QUEUED_JOBS="2")
    bot, worker = broker.bot(), broker.worker("w")
    submit(bot)
    submit(bot)
    for _ in range(2):
        response = bot.post("/jobs", json={"command": "ping"})
        assert (response.status_code, response.json()) == (429, {"detail": "job queue limit reached"})
        assert int(response.headers["Retry-After"]) > 0
        job = claim(worker)
        assert bot.post("/jobs", json={"command": "ping"}).status_code == 429
        worker.post(f"/jobs/{job['id']}/result", json={"result": ""})
        worker.post(f"/jobs/{job['id']}/result", json={"result": ""})
        submit(bot)


def test_submissions_are_bounded_per_minute_and_bot(start_broker: Callable[..., Broker]) -> None:
    broker = start_broker(RATE_LIMIT_JOBS_PER_MIN="3")
    bot = broker.bot()
    for _ in range(3):
        submit(bot)
    response = bot.post("/jobs", json={"command": "ping"})
    assert (response.status_code, response.json()) == (429, {"detail": "rate limit exceeded"})
    assert 0 < int(response.headers["Retry-After"]) <= 60
    other = broker.command("token", "mint", "other", "--role", "bot").stdout.strip()
    submit(broker.client({"X-Bot-Token": other}))


def test_only_listed_commands_are_accepted(start_broker: Callable[..., Broker]) -> None:
    bot = start_broker(BROKER_COMMANDS="ping, exec").bot()
    assert bot.post("/jobs", json={"command": "exec"}).status_code == 200
    response = bot.post("/jobs", json={"command": "capabilities"})
    assert (response.status_code, response.json()) == (400, {"detail": "invalid command"})
