"""Sockets from systemd, readiness, and a restart that refuses and resets nobody."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import closing
from typing import TYPE_CHECKING

import httpx
import pytest

from tests.contract.harness import TLS, Broker, claim, program

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

# Stands in for systemd: passes its first argument's descriptors as 3, 4, …, then becomes the broker.
_PASS = """
import fcntl, os, sys
fds = [fcntl.fcntl(int(fd), fcntl.F_DUPFD, 100) for fd in sys.argv[1].split(",")]
for n, fd in enumerate(fds):
    os.dup2(fd, 3 + n)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS=str(len(fds)))
os.execvp(sys.argv[2], sys.argv[2:])
"""


class Activated(Broker):
    """A broker that is handed its sockets, and says when it is ready."""

    def __init__(self, directory: Path, *, hosts: tuple[str, ...] = ("127.0.0.1",)) -> None:
        super().__init__(directory, {})
        self.sockets = [socket.create_server((host, 0), backlog=1024) for host in hosts]
        self.url = "http://{}:{}".format(*self.sockets[0].getsockname())
        self.notices = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.notices.bind(str(directory / "notify"))
        self.notices.settimeout(15)
        self.environment["NOTIFY_SOCKET"] = str(directory / "notify")
        # A port of its own would be refused to it.
        self.environment["BROKER_PORT"] = "1"

    def start(self) -> Broker:
        fds = [sock.fileno() for sock in self.sockets]
        command = [sys.executable, "-c", _PASS, ",".join(map(str, fds)), *program(), "serve"]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(command, env=self.environment, pass_fds=fds, stdout=log, stderr=log)
        assert self.notices.recv(100) == b"READY=1"
        return self

    def close(self) -> None:
        super().close()
        self.notices.close()
        for sock in self.sockets:
            sock.close()


@pytest.fixture
def activated(tmp_path: Path) -> Iterator[Activated]:
    broker = Activated(tmp_path)
    try:
        broker.start()
        yield broker
    finally:
        broker.close()


def test_it_is_ready_when_it_answers_and_says_when_it_stops(activated: Activated) -> None:
    assert httpx.get(f"{activated.url}/health", verify=TLS).json() == {"ok": True, "ts_bound": True}
    assert activated.signal(signal.SIGTERM) == 0
    assert activated.notices.recv(100) == b"STOPPING=1"


def test_several_sockets_are_taken(tmp_path: Path) -> None:
    with closing(Activated(tmp_path, hosts=("127.0.0.1", "127.0.0.2", ""))) as broker:
        broker.start()
        for sock, host in zip(broker.sockets, ("127.0.0.1", "127.0.0.2", "127.0.0.3"), strict=True):
            answer = httpx.get(f"http://{host}:{sock.getsockname()[1]}/health", verify=TLS).json()
            assert answer == {"ok": True, "ts_bound": False}


def test_waiting_callers_are_answered_when_it_stops(activated: Activated) -> None:
    answers: list[object] = []
    assert activated.document
    thread = threading.Thread(target=lambda: answers.append(claim(activated.worker("w"), 25)))
    thread.start()
    bot = activated.bot()
    while not bot.get("/agents").json()["agents"]:
        time.sleep(0.01)
    began = time.monotonic()
    assert activated.signal(signal.SIGTERM) == 0
    thread.join()
    assert answers == [None]
    assert time.monotonic() - began < 5


def whole_answer(sock: socket.socket) -> bytes:
    """Head and body of an answer, which may come apart."""
    answer = b""
    while not answer.endswith(b"}"):
        part = sock.recv(4096)
        assert part, answer
        answer += part
    return answer


def test_a_kept_connection_gets_one_more_answer_when_it_stops(activated: Activated) -> None:
    """Its client may be about to send: it is told to close before the connection is."""
    request = b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n"
    with activated.socket() as sock:
        sock.sendall(request)
        assert b"connection: close" not in whole_answer(sock)
        os.kill(activated.pid, signal.SIGTERM)
        assert activated.notices.recv(100) == b"STOPPING=1"
        time.sleep(0.12)
        sock.sendall(request)
        answer = whole_answer(sock)
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert b"connection: close" in answer
    assert activated.process is not None
    assert activated.process.wait(10) == 0


def test_a_restart_refuses_and_resets_nobody(activated: Activated) -> None:
    """Clients on fresh and on kept connections, and waiting workers; any error of transport fails the test."""
    stop = threading.Event()
    done: list[int] = []
    errors: list[BaseException] = []

    def client(number: int) -> None:
        headers = {"X-Bot-Token": activated.bot_token, "X-Worker-Token": activated.worker_token}
        kept = httpx.Client(base_url=activated.url, timeout=20, headers=headers, verify=TLS)
        count = 0
        try:
            while not stop.is_set():
                if number % 3 == 0:
                    kept.get("/jobs/next?wait=5", headers={"X-Worker-Id": f"w{number}"}).raise_for_status()
                elif number % 3 == 1:
                    kept.post("/jobs", json={"command": "ping", "agent": "nobody"}).raise_for_status()
                else:
                    httpx.get(f"{activated.url}/health", timeout=20, verify=TLS).raise_for_status()
                count += 1
        except httpx.HTTPError as error:
            errors.append(error)
        kept.close()
        done.append(count)

    threads = [threading.Thread(target=client, args=(n,)) for n in range(6)]
    for thread in threads:
        thread.start()
    for restart in range(4):
        time.sleep(0.4)
        if restart == 3:
            stop.set()
        assert activated.signal(signal.SIGTERM) == 0
        assert activated.notices.recv(100) == b"STOPPING=1"
        activated.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert sum(done) > 50


def test_a_port_in_use_is_said(new_broker: Callable[..., Broker]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        broker = new_broker(BROKER_PORT=str(taken.getsockname()[1]))
        result = broker.command("serve")
    assert result.returncode == 1
    assert "BROKER_PORT" in result.stderr
    assert "Traceback" not in result.stderr


def test_it_is_small_and_starts_soon(new_broker: Callable[..., Broker], tmp_path: Path) -> None:
    began = time.monotonic()
    broker = new_broker().start()
    assert time.monotonic() - began < 3
    lines = (tmp_path.joinpath("/proc", str(broker.pid), "status")).read_text(encoding="ascii").splitlines()
    (resident,) = [int(line.split()[1]) for line in lines if line.startswith("VmRSS")]
    assert resident * 1024 < 45 * 2**20
    assert (tmp_path / "broker.db").stat().st_mode & 0o077 == 0
