"""The command line against a real broker on loopback, with the test as every agent."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from fleet import broker, cli, inventory
from fleet.inventory import PROJECT
from fleet.link import Link
from tests.support.ports import free_port

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

AGENTS = ("agent1", "agent2", "agent3")
_INVENTORY = inventory.Inventory(
    nodes={},
    agents={name: inventory.Agent(name, "general", "agents-1", "jobs") for name in AGENTS},
    brokers=(),
    tailnet=(),
    broker_port=0,
)


@dataclass(frozen=True)
class Said:
    """What came of a command."""

    status: int
    out: str
    err: str


class Served:
    """A broker, and calls on it as an agent makes them."""

    def __init__(self, url: str, admin: str) -> None:
        self.url = url
        self.admin = admin
        self._worker = httpx.Client(base_url=url, headers={"X-Worker-Token": "worker"}, timeout=30, trust_env=False)

    @contextmanager
    def client(self, transport: httpx.BaseTransport | None = None) -> Iterator[httpx.Client]:
        headers = {"Authorization": f"Bearer {self.admin}"}
        with httpx.Client(
            base_url=self.url, headers=headers, transport=transport, timeout=30, trust_env=False
        ) as client:
            yield client

    def claim(self, agent: str, wait: int = 20) -> dict[str, Any]:
        answer = self._worker.get("/jobs/next", params={"wait": wait}, headers={"X-Worker-Id": agent})
        job: dict[str, Any] = answer.raise_for_status().json()["job"]
        return job

    def post(self, job: dict[str, Any], call: str, **body: Any) -> None:
        headers = {"X-Worker-Id": job["worker_id"]}
        self._worker.post(f"/jobs/{job['id']}/{call}", json=body, headers=headers).raise_for_status()

    def lose_all(self, agent: str) -> None:
        """Have an agent say that it holds nothing."""
        headers = {"X-Worker-Id": agent}
        self._worker.post("/jobs/held", json={"held": []}, headers=headers).raise_for_status()

    def cancel(self, job: dict[str, Any], reason: str) -> None:
        with self.client() as client:
            client.post(f"/jobs/{job['id']}/cancel", json={"reason": reason}).raise_for_status()

    def job(self, job_id: str) -> dict[str, Any]:
        job: dict[str, Any] = self._worker.get(f"/jobs/{job_id}").raise_for_status().json()
        return job

    def tidy(self) -> None:
        """Leave the next test a queue in which nothing is to be done."""
        with self.client() as client:
            client.post("/queue/resume").raise_for_status()
            for status in ("queued", "running"):
                for job in client.get("/jobs", params={"status": status, "limit": 200}).json()["jobs"]:
                    client.post(f"/jobs/{job['id']}/cancel").raise_for_status()

    def close(self) -> None:
        self._worker.close()


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    port = free_port()
    environment = {
        "PATH": os.environ["PATH"],
        "BROKER_DB": str(tmp_path_factory.mktemp("broker") / "broker.db"),
        "BROKER_PORT": str(port),
        "WORKER_TOKEN": "worker",
    }
    program = [sys.executable, "-m", "broker_app"]
    mint = [*program, "token", "mint", "operator", "--role", "admin"]
    minted = subprocess.run(mint, cwd=PROJECT, env=environment, capture_output=True, text=True, check=True, timeout=30)
    with subprocess.Popen([*program, "serve"], cwd=PROJECT, env=environment, stderr=subprocess.DEVNULL) as process:
        _wait_for(port)
        there = Served(f"http://127.0.0.1:{port}", minted.stdout.strip())
        yield there
        there.close()
        process.terminate()


def _wait_for(port: int) -> None:
    end = time.monotonic() + 30
    while True:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
            return
        except ConnectionRefusedError:
            assert time.monotonic() < end, "the broker does not start"
            time.sleep(0.02)


@pytest.fixture
def dial(served: Served) -> Callable[[], AbstractContextManager[httpx.Client]]:
    """Return how the command line reaches the broker; a test may have it reach it worse."""
    return served.client


@pytest.fixture
def run(
    served: Served,
    dial: Callable[[], AbstractContextManager[httpx.Client]],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Iterator[Callable[..., Said]]:
    """Give what calls `fleet`."""

    @contextmanager
    def connect(_fleet: inventory.Inventory) -> Iterator[broker.Broker]:
        link = Link(dial)
        yield broker.Broker(link)
        link.close()

    monkeypatch.setattr(broker, "connect", connect)
    monkeypatch.setattr(inventory, "load", lambda _extra: _INVENTORY)

    def run(*words: str) -> Said:
        monkeypatch.setattr(sys, "argv", ["fleet", *words])
        try:
            cli.main()
            status: Any = 0
        except SystemExit as ended:
            status = ended.code
        said = capsys.readouterr()
        return Said(status or 0, said.out, said.err)

    yield run
    served.tidy()


@pytest.fixture
def works(served: Served) -> Iterator[Callable[[str, Callable[[dict[str, Any]], None]], None]]:
    """Give what has an agent take its next job and do something with it, while the test goes on."""
    with ThreadPoolExecutor() as pool:
        running: list[Future[None]] = []

        def works(agent: str, do: Callable[[dict[str, Any]], None]) -> None:
            running.append(pool.submit(lambda: do(served.claim(agent))))

        yield works
        for each in running:
            each.result(timeout=30)
