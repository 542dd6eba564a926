"""A worker says which leases it holds, and is rid of all others."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

from tests.contract.harness import caps, claim, submit

if TYPE_CHECKING:
    import httpx

    from tests.contract.harness import Endpoint


def held(worker: httpx.Client, *jobs: dict[str, Any]) -> list[str]:
    """Say what is held; returns what was taken back."""
    leases = [{"id": job["id"], "lease_epoch": job["lease_epoch"]} for job in jobs]
    response = worker.post("/jobs/held", json={"held": leases})
    assert response.status_code == 200, response.text
    return list(response.json()["released"])


def test_what_is_not_held_is_queued_at_the_head_at_once(broker: Endpoint, cap: str) -> None:
    bot, worker, other = broker.bot(), broker.worker(f"w-{cap}", cap), broker.worker(f"o-{cap}", cap)
    ids = [submit(bot, requires=caps(cap)) for _ in range(4)]
    lost, kept, foreign = claim(worker), claim(worker), claim(other)
    assert held(worker, kept) == [lost["id"]]
    assert [bot.get(f"/jobs/{job_id}").json()["status"] for job_id in ids] == ["queued", "running", "running", "queued"]
    again = claim(other)
    assert (again["id"], again["lease_epoch"], again["attempts"]) == (ids[0], 2, 2)
    assert held(worker, kept) == []
    assert held(other, foreign, again) == []
    late = worker.post(f"/jobs/{lost['id']}/result", json={"result": "late", "lease_epoch": 1})
    assert late.status_code == 409


def test_a_lease_of_another_epoch_is_not_held(broker: Endpoint, cap: str) -> None:
    bot, worker = broker.bot(), broker.worker(f"w-{cap}", cap)
    job_id = submit(bot, requires=caps(cap))
    first = claim(worker)
    assert held(worker) == [job_id]
    assert claim(worker)["lease_epoch"] == 2
    assert held(worker, first) == [job_id]


def test_the_last_delivery_ends_as_a_lost_lease_does(broker: Endpoint, cap: str) -> None:
    bot, worker = broker.bot(), broker.worker(f"w-{cap}", cap)
    job_id = submit(bot, requires=caps(cap), max_deliveries=1)
    claim(worker)
    assert held(worker) == [job_id]
    job = bot.get(f"/jobs/{job_id}").json()
    assert (job["status"], job["outcome"]) == ("failed", "dead")
    assert "lease lost" in job["error"]
    assert claim(worker) is None


def test_a_worker_without_a_name_is_refused(broker: Endpoint, cap: str) -> None:
    nameless = broker.worker(None, cap)
    refused = nameless.post("/jobs/held", json={"held": []})
    assert refused.status_code == 400
    assert "X-Worker-Id" in refused.json()["detail"]


def test_waiting_claims_go_first_and_without_a_job(broker: Endpoint, cap: str) -> None:
    bot, worker, other = broker.bot(), broker.worker(f"w-{cap}", cap), broker.worker(f"o-{cap}", cap)
    with ThreadPoolExecutor() as pool:
        old = [pool.submit(claim, broker.worker(f"w-{cap}", cap), 8) for _ in range(3)]
        theirs = pool.submit(claim, other, 8)
        time.sleep(0.3)
        assert held(worker) == []
        assert [waiting.result(2) for waiting in old] == [None] * 3
        assert not theirs.done()
        job_id = submit(bot, requires=caps(cap))
        assert theirs.result(2)["id"] == job_id


def test_no_old_connection_takes_a_job_for_longer_than_the_call(broker: Endpoint, cap: str) -> None:
    """A job comes at the moment of the call, to a worker whose old claim nobody reads any more."""
    bot, worker = broker.bot(), broker.worker(f"w-{cap}", cap)
    head = (
        f"GET /jobs/next?wait=20 HTTP/1.1\r\nHost: b\r\nX-Worker-Token: {broker.worker_token}\r\n"
        f"X-Worker-Id: w-{cap}\r\nX-Worker-Caps: {cap}\r\n\r\n"
    )
    with ThreadPoolExecutor() as pool:
        for _ in range(25):
            with broker.socket() as deaf:
                deaf.sendall(head.encode())
                time.sleep(0.05)
                submitted = pool.submit(submit, bot, requires=caps(cap))
                pool.submit(held, worker).result()
                job = claim(worker, wait=2)
                assert job is not None, "the old connection has it"
                assert job["id"] == submitted.result()
                assert worker.post(f"/jobs/{job['id']}/result", json={"result": ""}).status_code == 200


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "held"),
        ({"held": None}, "held"),
        ({"held": {}}, "held"),
        ({"held": ["id"]}, "held"),
        ({"held": [{"id": "x"}]}, "lease_epoch"),
        ({"held": [{"lease_epoch": 1}]}, "id"),
        ({"held": [{"id": 1, "lease_epoch": 1}]}, "id"),
        ({"held": [{"id": "x", "lease_epoch": "1"}]}, "lease_epoch"),
        ({"held": [{"id": "x", "lease_epoch": -1}]}, "lease_epoch"),
        ({"held": [{"id": "x", "lease_epoch": 1}] * 1001}, "held"),
    ],
)
def test_a_list_that_cannot_be_understood_frees_nothing(broker: Endpoint, cap: str, body: object, field: str) -> None:
    bot, worker = broker.bot(), broker.worker(f"w-{cap}", cap)
    job_id = submit(bot, requires=caps(cap))
    claim(worker)
    refused = worker.post("/jobs/held", json=body)
    assert refused.status_code == 422
    assert refused.json()["detail"][0]["loc"] == ["body", field]
    assert bot.get(f"/jobs/{job_id}").json()["status"] == "running"
