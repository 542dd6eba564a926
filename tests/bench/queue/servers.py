"""What is measured: brokers as the role configures them, their peer, and servers that only answer."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import closing, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import jinja2
import yaml

from broker_app.agents import Role, mint
from broker_app.schema import connect
from tests.support.lab import PROJECT
from tests.support.ports import free_port

if TYPE_CHECKING:
    from types import TracebackType

WORKERS = 50
BEANSTALKD = PROJECT / ".venv/peers/usr/bin/beanstalkd"  # put there by `scripts/setup bench`
_ROLE = PROJECT / "roles/broker"
_PATIENCE = 20.0


class Server:
    """A program that listens on a free port of the loopback.

    Args:
        argv: The program, `{port}` standing for its port.
        log: Takes what it says.
        environment: Its environment, with `{port}` likewise.
    """

    def __init__(self, argv: list[str], log: Path, environment: dict[str, str] | None = None) -> None:
        self.port = free_port()
        self._argv = [word.format(port=self.port) for word in argv]
        self._environment = {name: text.format(port=self.port) for name, text in (environment or {}).items()}
        self._log = log

    def start(self) -> float:
        """Start it; returns the seconds until it takes connections."""
        began = time.perf_counter()
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                self._argv, env=os.environ | self._environment, cwd=PROJECT, stdout=log, stderr=log
            )
        while not self._answers():
            if self._process.poll() is not None or time.perf_counter() - began > _PATIENCE:
                raise OSError(f"{self._argv[0]} does not answer; see {self._log}")
            time.sleep(0.002)
        return time.perf_counter() - began

    def stop(self) -> None:
        """End it, and wait until it has."""
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(_PATIENCE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.stop()

    @property
    def pid(self) -> int:
        """Its process."""
        return self._process.pid

    @property
    def cpu(self) -> float:
        """Seconds of CPU that it has used."""
        threads = Path(f"/proc/{self.pid}/task").glob("*/schedstat")
        return sum(int(thread.read_text().split()[0]) for thread in threads) / 1e9

    @property
    def resident(self) -> float:
        """Mebibytes of memory that it has."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        return int(status.partition("VmRSS:")[2].split()[0]) / 1024

    def _answers(self) -> bool:
        with suppress(OSError):
            socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
            return True
        return False


class Broker(Server):
    """A broker on the database of a folder, with the environment of the role, and with tokens as the role mints them.

    Args:
        folder: Where its database is, or shall be.
        settings: What its environment has otherwise.
    """

    def __init__(self, folder: Path, **settings: str) -> None:
        folder.mkdir(exist_ok=True)
        self.database = folder / "broker.db"
        environment = role_environment(folder) | {"BROKER_PORT": "{port}"} | settings
        super().__init__([sys.executable, "-m", "broker_app", "serve"], folder / "broker.log", environment)
        with closing(connect(self.database)) as database:
            now = time.time()
            self.bot = mint(database, "bench", Role.BOT, now)
            self.workers = tuple(mint(database, f"w{number}", Role.WORKER, now) for number in range(WORKERS))

    def _answers(self) -> bool:
        with suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=1) as connection:
            connection.sendall(b"GET /health HTTP/1.1\r\nHost: b\r\n\r\n")
            return connection.recv(64).startswith(b"HTTP/1.1 200")
        return False


class Runner(Server):
    """A runner of the project's on a broker."""

    def __init__(self, folder: Path, broker: Broker) -> None:
        folder.mkdir()
        environment = {
            "HOME": str(folder),
            "BROKER_URL": f"http://127.0.0.1:{broker.port}",
            "WORKER_TOKEN": broker.workers[0],
            "WORKER_ID": "w0",
            "WORKER_CAPS": "linux",
            "RUNNER_STATE_DIR": str(folder / "state"),
            "RUNNER_BACKEND": "process",
        }
        super().__init__([sys.executable, "-m", "runner_app"], folder / "runner.log", environment)

    def _answers(self) -> bool:
        return True


def beanstalkd(folder: Path) -> Server:
    """The peer, with each put and delete on the disk before its answer."""
    folder.mkdir()
    argv = [str(BEANSTALKD), "-l", "127.0.0.1", "-p", "{port}", "-b", str(folder), "-f", "0"]
    return Server(argv, folder / "beanstalkd.log")


def bare(kind: str, log: Path) -> Server:
    """A server that only answers (see `bare.py`)."""
    return Server([sys.executable, "-m", "tests.bench.queue.bare", kind, "{port}"], log)


def role_environment(folder: Path) -> dict[str, str]:
    """The broker's environment as the role writes it with its defaults, for a state folder."""
    defaults: dict[str, Any] = yaml.safe_load((_ROLE / "defaults/main.yml").read_text())
    environment: dict[str, str] = yaml.safe_load((_ROLE / "vars/main.yml").read_text())["_broker_environment"]
    given = {**defaults, "_broker_state": folder}
    return {name: jinja2.Template(text).render(given) for name, text in environment.items()}
