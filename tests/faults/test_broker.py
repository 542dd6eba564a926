"""The broker restarted under load, and on a full disk."""

from __future__ import annotations

import json
import threading
from collections import Counter
from contextlib import contextmanager
from typing import TYPE_CHECKING

from lab import network
from tests.faults.ledger import Book, script_until
from tests.faults.stand import inside, until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.faults.stand import Stand

_RESTARTS = 5
_CLIENTS = 3
# Of 200 kB each: more than what SQLite has reserved can take.
_TOO_MANY = 30
_STATE = "/var/lib/openclaw-broker"
_UNITS = "openclaw-broker.socket openclaw-broker.service"


def _post(stand: Stand, token: str) -> tuple[int, str]:
    """Submit a ping over a new connection to the broker's own port; the status and the job's id."""
    body = json.dumps({"command": "ping", "agent": "agent1"})
    head = f"POST /jobs HTTP/1.1\r\nHost: b\r\nConnection: close\r\nX-Bot-Token: {token}\r\nContent-Length: {len(body)}"
    with network.tcp_socket(stand.broker_host.namespace) as connection:
        connection.settimeout(30)
        connection.connect(("127.0.0.1", 8000))
        connection.sendall(f"{head}\r\n\r\n{body}".encode())
        answer = b"".join(iter(lambda: connection.recv(65536), b""))
    return int(answer.split()[1]), json.loads(answer.partition(b"\r\n\r\n")[2])["id"]


def test_a_restart_refuses_nobody(stand: Stand) -> None:
    outcomes: Counter[str] = Counter()
    ids: list[str] = []
    stop = threading.Event()

    def load() -> None:
        while not stop.wait(0.02):
            try:
                status, job = _post(stand, stand.token)
            except (OSError, IndexError, ValueError) as error:
                outcomes[type(error).__name__] += 1
            else:
                outcomes[str(status)] += 1
                ids.append(job)

    clients = [threading.Thread(target=load) for _ in range(_CLIENTS)]
    for client in clients:
        client.start()
    try:
        for _ in range(_RESTARTS):
            stand.broker_host.ssh("sudo systemctl restart openclaw-broker")
    finally:
        stop.set()
        for client in clients:
            client.join()
    assert set(outcomes) == {"200"}, outcomes
    assert len(ids) > 10 * _RESTARTS
    assert {stand.ended(job, 120)["status"] for job in ids} == {"done"}


@contextmanager
def _small_disk(stand: Stand) -> Iterator[None]:
    """Put the broker's state on a disk of its own with little room left."""
    host = stand.broker_host
    small = f"cp -a {_STATE} /run/kept && mount -t tmpfs -o size=$(($(du -sm /run/kept | cut -f1) + 3))M small {_STATE}"
    host.ssh(
        f"sudo sh -ec 'systemctl stop {_UNITS}; {small}; chown --reference=/run/kept {_STATE};"
        f" chmod 700 {_STATE}; cp -a /run/kept/. {_STATE}; systemctl start {_UNITS}'"
    )
    try:
        yield
    finally:
        kept = (
            f"rm -rf /run/kept; cp -a {_STATE} /run/kept; umount {_STATE}; cp -a /run/kept/. {_STATE}; rm -rf /run/kept"
        )
        host.ssh(f"sudo sh -ec 'systemctl stop {_UNITS}; {kept}; rm -rf /run/kept; systemctl start {_UNITS}'")


def test_a_full_disk_is_said_and_loses_nothing(stand: Stand) -> None:
    stand.lease(30)
    agent, hung = stand.agents["agent3"], stand.agents["agent1"]
    with _small_disk(stand):
        until(stand.answers, "the broker answers")
        job = stand.submit(agent.name, script_until("go-$OPENCLAW_JOB_ID"))
        until(lambda: Book.read([agent.workspace]).of(job), "the job's start")
        runner = hung.runner
        assert runner is not None
        hung.machine.hang(inside(runner))
        ping = {"command": "ping", "agent": hung.name}
        acknowledged = [stand.bot.post("/jobs", json=ping).raise_for_status().json()["id"] for _ in range(5)]
        stand.broker_host.ssh(f"sudo sh -c 'cat /dev/zero > {_STATE}/filler 2> /dev/null || true'")
        answers = [stand.bot.post("/jobs", json={**ping, "payload": "x" * 200_000}) for _ in range(_TOO_MANY)]
        acknowledged += [answer.json()["id"] for answer in answers if answer.is_success]
        agent.go(job)
        until((agent.attempt(job) / "exit.json").exists, "the record of the end")
        stand.broker_host.ssh(f"sudo rm {_STATE}/filler")
        hung.machine.resume()
        done = stand.ended(job)
        assert (done["status"], done["attempts"]) == ("done", 1)
        assert {stand.ended(job)["status"] for job in acknowledged} == {"done"}
        assert {answer.status_code for answer in answers} - {200} <= {503, 507}
        assert not answers[-1].is_success
        assert stand.bot.post("/jobs", json=ping).is_success
