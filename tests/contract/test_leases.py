"""Lost leases: the broker takes them back by itself."""

from __future__ import annotations

import signal
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

from tests.contract.harness import caps, claim, submit

if TYPE_CHECKING:
    from collections.abc import Callable

    import httpx

    from tests.contract.harness import Broker


@pytest.fixture
def hasty(start_broker: Callable[..., Broker]) -> Broker:
    return start_broker(LEASE_SECONDS="1")


def until(bot: httpx.Client, job_id: str, status: str) -> Any:
    """The job, once it has the status; polled, because nothing announces a requeue to its submitter."""
    deadline = time.monotonic() + 6
    while time.monotonic() < deadline:
        job = bot.get(f"/jobs/{job_id}").json()
        if job["status"] == status:
            return job
        time.sleep(0.02)
    raise AssertionError(job)


def test_a_lost_lease_is_taken_back_without_anybody_polling(hasty: Broker, cap: str) -> None:
    bot, worker = hasty.bot(), hasty.worker("w1", cap)
    job_id, _ = (submit(bot, requires=caps(cap)) for _ in range(2))
    began = time.monotonic()
    claim(worker)
    job = until(bot, job_id, "queued")
    assert 0.9 < time.monotonic() - began < 3
    nulls = {key: job[key] for key in ("started_at", "finished_at", "lease_until", "worker_id", "result", "error")}
    assert set(nulls.values()) == {None}
    assert (job["attempts"], job["lease_epoch"]) == (1, 1)
    assert claim(worker)["id"] == job_id


def test_a_waiting_worker_gets_the_job_of_a_lost_one(hasty: Broker, cap: str) -> None:
    job_id = submit(hasty.bot(), requires=caps(cap))
    claim(hasty.worker("lost", cap))
    job = claim(hasty.worker("waiting", cap), 10)
    assert (job["id"], job["worker_id"], job["attempts"], job["lease_epoch"]) == (job_id, "waiting", 2, 2)


def test_a_claim_from_before_the_loss_gets_nothing(hasty: Broker, cap: str) -> None:
    """Its worker may hang, and its kernel take the answer: the job goes to another, who has waited for less long."""
    job_id = submit(hasty.bot(), requires=caps(cap))
    claim(hasty.worker(f"w-{cap}", cap))
    with ThreadPoolExecutor() as pool:
        old = [pool.submit(claim, hasty.worker(f"w-{cap}", cap), 10) for _ in range(2)]
        time.sleep(0.3)
        job = claim(hasty.worker(f"o-{cap}", cap), 10)
        assert (job["id"], job["attempts"], job["lease_epoch"]) == (job_id, 2, 2)
        assert [waiting.result(2) for waiting in old] == [None, None]


def test_a_loser_that_calls_again_is_a_worker_like_any_other(hasty: Broker, cap: str) -> None:
    bot, worker = hasty.bot(), hasty.worker(f"w-{cap}", cap)
    job_id = submit(bot, requires=caps(cap))
    claim(worker)
    began = time.monotonic()
    assert claim(worker, 10) is None
    assert time.monotonic() - began < 5
    again = claim(worker, 10)
    assert (again["id"], again["attempts"], again["lease_epoch"]) == (job_id, 2, 2)
    assert worker.post(f"/jobs/{job_id}/result", json={"result": ""}).status_code == 200
    with ThreadPoolExecutor() as pool:
        waiting = pool.submit(claim, worker, 10)
        time.sleep(0.3)
        assert submit(bot, requires=caps(cap)) == waiting.result(5)["id"]


def test_the_lost_worker_cannot_overwrite_the_new_ones_run(hasty: Broker, cap: str) -> None:
    bot, lost, new = hasty.bot(), hasty.worker("lost", cap), hasty.worker("new", cap)
    path = f"/jobs/{submit(bot, requires=caps(cap))}"
    claim(lost)
    claim(new, 10)
    assert lost.post(f"{path}/result", json={"result": "late", "lease_epoch": 1}).status_code == 409
    note = {"ok": True, "status": "running", "note": "held by another worker; result ignored"}
    assert lost.post(f"{path}/result", json={"result": "late"}).json() == note
    assert new.post(f"{path}/result", json={"result": "new", "lease_epoch": 2}).status_code == 200
    assert lost.post(f"{path}/result", json={"result": "late"}).json() == {"ok": True, "status": "done"}
    assert bot.get(path).json()["result"] == "new"


def test_heartbeats_keep_a_lease(hasty: Broker, cap: str) -> None:
    bot, worker = hasty.bot(), hasty.worker("w1", cap)
    job_id = submit(bot, requires=caps(cap))
    claim(worker)
    end = time.monotonic() + 2.5
    while time.monotonic() < end:
        assert worker.post(f"/jobs/{job_id}/heartbeat", json={"lease_epoch": 1}).status_code == 200
        time.sleep(0.2)
    assert worker.post(f"/jobs/{job_id}/result", json={"result": "r", "lease_epoch": 1}).status_code == 200


@pytest.mark.parametrize("deliveries", [1, 2])
def test_a_job_is_dead_after_its_last_delivery(hasty: Broker, cap: str, deliveries: int) -> None:
    bot, workers = hasty.bot(), [hasty.worker(f"w{n}-{cap}", cap) for n in range(1, deliveries + 1)]
    job_id = submit(bot, requires=caps(cap), max_deliveries=deliveries)
    for worker in workers:
        assert claim(worker, 6)["id"] == job_id
    job = bot.get(f"/jobs/{job_id}", params={"wait": 6}).json()
    assert (job["status"], job["outcome"], job["attempts"]) == ("failed", "dead", deliveries)
    assert job["error"] == f"lease lost by worker w{deliveries}-{cap} on delivery {deliveries} of {deliveries}"
    assert job["finished_at"] is not None
    late = workers[-1].post(f"/jobs/{job_id}/result", json={"result": "late"})
    assert late.json() == {"ok": True, "status": "failed", "note": "already failed; result ignored"}
    hasty.signal(signal.SIGKILL)
    hasty.start()
    assert bot.get(f"/jobs/{job_id}").json() == job


def test_a_lease_lost_while_the_broker_was_down_is_taken_back(hasty: Broker, cap: str) -> None:
    bot, worker = hasty.bot(), hasty.worker("w1", cap)
    job_id = submit(bot, requires=caps(cap))
    claim(worker)
    hasty.restart()
    assert until(bot, job_id, "queued")["attempts"] == 1
    assert claim(worker)["id"] == job_id
