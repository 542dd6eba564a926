"""The way to a real broker through SSH, and what becomes of a command when it is cut."""

from __future__ import annotations

import logging
import sys
import threading
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import paramiko
import pytest
import typer

from fleet import broker, cli, inventory
from fleet.inventory import Node
from tests.support.ports import free_port
from tests.support.sshd import Answer, identity, server

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.unit.fleet.conftest import Served

    Works = Callable[[str, Callable[[dict[str, Any]], None]], None]


class Way:
    """The inventory of a broker's node, and the connections to it."""

    def __init__(self, listed: inventory.Inventory) -> None:
        self.listed = listed
        self.connections: list[paramiko.Transport] = []
        self.slow = 0.0
        self.breaks = False
        self.answer: Answer | None = None

    def cut(self) -> None:
        # A close takes its time: who dials again meanwhile is not to be cut, too.
        for connection in tuple(self.connections):
            connection.close()


@pytest.fixture
def way(served: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Way]:
    options = {"UserKnownHostsFile": str(tmp_path / "known_hosts"), "StrictHostKeyChecking": "accept-new"}
    node = Node(
        "broker-1", "127.0.0.1", "deploy", 0, identity(tmp_path), {**options, "GlobalKnownHostsFile": "/dev/null"}
    )
    listed = inventory.Inventory(
        nodes={}, agents={}, brokers=("broker-1",), tailnet=(), broker_port=int(served.url.rpartition(":")[2])
    )
    way = Way(listed)
    monkeypatch.setattr(inventory, "load", lambda _extra: way.listed)

    def answer(_command: str) -> Answer:
        time.sleep(way.slow)
        if way.breaks:
            way.cut()
        return way.answer or (0, served.admin)

    with server(paramiko.ECDSAKey.generate(), answer, way.connections) as port:
        way.listed = replace(listed, nodes={"broker-1": replace(node, port=port)})
        yield way
    served.tidy()


def fleet(monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    monkeypatch.setattr(sys, "argv", ["fleet", *words])
    try:
        cli.main()
    except SystemExit as ended:
        return int(ended.code or 0)
    return 0


def test_a_job_is_followed_over_a_lost_connection_to_its_node(
    way: Way, served: Served, works: Works, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    seen = threading.Semaphore(0)
    echo = typer.echo

    def heard(*words: Any, **how: Any) -> None:
        echo(*words, **how)
        seen.release()

    def work(job: dict[str, Any]) -> None:
        for number in range(6):
            served.post(job, "log", text=f"{number}\n", offset=number * 10)
            assert seen.acquire(timeout=20), "it came too late"
            if number in {1, 3}:
                way.cut()
        served.post(job, "result", result='{"stdout":""}')

    monkeypatch.setattr(typer, "echo", heard)

    with served.client() as client:
        job_id = client.post("/jobs", json={"command": "exec", "agent": "agent1"}).json()["id"]
    works("agent1", work)
    status = fleet(monkeypatch, "follow", job_id)
    said = capfd.readouterr()
    assert status == 0, said.err
    assert (status, said.out.split()) == (0, [str(number) for number in range(6)])
    assert len(way.connections) == 3
    assert logging.getLogger("paramiko").handlers, "it would print what it logs"
    assert "Traceback" not in said.err


def test_a_broker_that_does_not_run_is_told_at_once(
    way: Way, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    port = free_port()
    way.listed = replace(way.listed, broker_port=port)
    assert fleet(monkeypatch, "queue") == 1
    said = capfd.readouterr()
    assert (said.out, said.err) == ("", f"fleet: broker-1: no way to its port {port}: Connect failed\n")


@pytest.mark.parametrize(
    ("slow", "answer", "why"),
    [
        (0.0, (1, "cat: Permission denied"), "cannot be read: cat: Permission denied"),
        (3.0, None, "was not read within 1 s"),
    ],
)
def test_a_token_that_cannot_be_read_is_said(
    way: Way,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    *,
    slow: float,
    answer: Answer | None,
    why: str,
) -> None:
    monkeypatch.setattr(broker, "_READ_SECONDS", 1)
    way.slow, way.answer = slow, answer
    assert fleet(monkeypatch, "queue") == 1
    assert capfd.readouterr().err == f"fleet: broker-1: /etc/openclaw/operator-token {why}\n"


def test_a_connection_that_breaks_before_the_token_came_is_no_answer(
    way: Way, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    way.breaks = True
    assert fleet(monkeypatch, "queue") == 1
    assert capfd.readouterr().err == "fleet: broker-1: /etc/openclaw/operator-token was not read within 30 s\n"
