"""What was acknowledged is there, whatever happens to the process."""

from __future__ import annotations

import resource
import signal
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING

import httpx

from tests.contract.harness import TLS, Broker, claim, submit

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def load(broker: Broker, acknowledged: dict[str, str | None], stop: threading.Event, number: int) -> None:
    """Submit, claim and finish until the broker is gone; note what it acknowledged."""
    name = f"w{number}"
    headers = {"X-Bot-Token": broker.bot_token, "X-Worker-Token": broker.worker_token, "X-Worker-Id": name}
    with suppress(httpx.TransportError), httpx.Client(base_url=broker.url, headers=headers, verify=TLS) as client:
        while not stop.is_set():
            for _ in range(2):
                job_id = client.post("/jobs", json={"command": "ping"}).json()["id"]
                acknowledged.setdefault(job_id, None)
            job = client.get("/jobs/next").json()["job"]
            if job is not None and client.post(f"/jobs/{job['id']}/result", json={"result": name}).is_success:
                acknowledged[job["id"]] = name


def test_nothing_acknowledged_is_lost_with_the_process(new_broker: Callable[..., Broker]) -> None:
    broker = new_broker()
    acknowledged: dict[str, str | None] = {}
    for _ in range(3):
        broker.start()
        before = len(acknowledged)
        stop = threading.Event()
        threads = [threading.Thread(target=load, args=(broker, acknowledged, stop, n)) for n in range(6)]
        for thread in threads:
            thread.start()
        while len(acknowledged) < before + 100:
            time.sleep(0.01)
        broker.signal(signal.SIGKILL)
        stop.set()
        for thread in threads:
            thread.join()
    broker.start()
    headers = {"X-Bot-Token": broker.bot_token}
    with httpx.Client(base_url=broker.url, headers=headers, verify=TLS) as client:
        jobs = {job_id: client.get(f"/jobs/{job_id}") for job_id in acknowledged}
    assert [job_id for job_id, job in jobs.items() if job.status_code != 200] == []
    results = {job_id: result for job_id, result in acknowledged.items() if result is not None}
    assert len(results) > 50
    assert {job_id: jobs[job_id].json()["result"] for job_id in results} == results


def test_everything_survives_a_restart(new_broker: Callable[..., Broker]) -> None:
    broker = new_broker().start()
    bot, worker = broker.bot(), broker.worker("w1")
    ids = [submit(bot) for _ in range(6)]
    claim(worker)
    worker.post(f"/jobs/{ids[0]}/result", json={"result": "r"})
    claim(worker)
    worker.post(f"/jobs/{ids[1]}/fail", json={"error": "e"})
    claim(worker)
    claim(worker)
    worker.post(f"/jobs/{ids[3]}/release")
    before = [bot.get(f"/jobs/{job_id}").json() for job_id in ids]
    agents = bot.get("/agents").json()
    broker.restart()
    assert [bot.get(f"/jobs/{job_id}").json() for job_id in ids] == before
    assert bot.get("/agents").json() == agents
    assert worker.post(f"/jobs/{ids[2]}/heartbeat", json={"lease_epoch": 1}).status_code == 200
    assert [claim(worker)["id"] for _ in range(3)] == ids[3:]


def test_a_full_disk_is_said_and_survived(new_broker: Callable[..., Broker], tmp_path: Path) -> None:
    """The disk is stood in by a limit on the size of the process's files."""
    broker = new_broker().start()
    bot = broker.bot()
    acknowledged = [submit(bot, payload="x" * 10_000) for _ in range(10)]
    size = max(file.stat().st_size for file in tmp_path.iterdir())
    resource.prlimit(broker.pid, resource.RLIMIT_FSIZE, (size + 100_000, resource.RLIM_INFINITY))
    statuses = []
    for _ in range(30):
        response = bot.post("/jobs", json={"command": "ping", "payload": "x" * 10_000})
        statuses.append(response.status_code)
        if response.status_code == 200:
            acknowledged.append(response.json()["id"])
    assert set(statuses) <= {200, 503, 507}
    assert statuses[-1] in (503, 507)
    assert bot.get(f"/jobs/{acknowledged[0]}").status_code == 200

    resource.prlimit(broker.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    acknowledged.append(submit(bot))
    worker = broker.worker("w")
    assert [claim(worker)["id"] for _ in acknowledged] == acknowledged
    assert claim(worker) is None
    broker.signal(signal.SIGKILL)
    broker.start()
    assert {bot.get(f"/jobs/{job_id}").json()["status"] for job_id in acknowledged} <= {"running"}


def test_one_broker_per_database(new_broker: Callable[..., Broker], start_broker: Callable[..., Broker]) -> None:
    broker = start_broker()
    second = new_broker(BROKER_DB=broker.environment["BROKER_DB"])
    result = second.command("serve")
    assert result.returncode == 1
    assert "another broker serves" in result.stderr
    assert "Traceback" not in result.stderr
