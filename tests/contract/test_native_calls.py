"""The calls that the seed does not have, and leases with their epochs."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

from tests.contract.harness import caps, claim, submit

if TYPE_CHECKING:
    import httpx

    from tests.contract.harness import Endpoint

# Seconds: far longer than any answer takes that comes before its wait is over.
WAIT = 8
STALE = {
    "heartbeat": {},
    "release": {},
    "log": {"text": "late"},
    "result": {"result": "late"},
    "fail": {"error": "late"},
}


def test_a_heartbeat_extends_the_lease_from_now(worker: httpx.Client, job: Any) -> None:
    response = worker.post(f"/jobs/{job['id']}/heartbeat", json={"lease_epoch": 1})
    body = response.json()
    assert list(body) == ["ok", "lease_until", "lease_epoch"]
    assert (response.status_code, body["ok"], body["lease_epoch"]) == (200, True, 1)
    assert job["lease_until"] <= body["lease_until"] <= time.time() + 61


def test_heartbeat_and_release_need_no_body(worker: httpx.Client, job: Any) -> None:
    assert worker.post(f"/jobs/{job['id']}/heartbeat").status_code == 200
    assert worker.post(f"/jobs/{job['id']}/release").status_code == 200


def test_a_released_job_is_the_next_and_its_delivery_is_not_charged(
    bot: httpx.Client, worker: httpx.Client, job: Any, cap: str
) -> None:
    submit(bot, requires=caps(cap))
    response = worker.post(f"/jobs/{job['id']}/release", json={"lease_epoch": 1, "reason": "draining"})
    assert (response.status_code, response.json()) == (200, {"ok": True, "status": "queued"})
    queued = bot.get(f"/jobs/{job['id']}").json()
    assert (queued["status"], queued["attempts"], queued["worker_id"], queued["lease_until"]) == (
        "queued", 0, None, None,
    )  # fmt: skip
    again = claim(worker)
    assert (again["id"], again["attempts"], again["lease_epoch"]) == (job["id"], 1, 2)


@pytest.mark.parametrize("call", STALE)
@pytest.mark.parametrize("where", ["body", "header"])
def test_a_stale_epoch_changes_nothing(
    bot: httpx.Client, worker: httpx.Client, job: Any, call: str, where: str
) -> None:
    path = f"/jobs/{job['id']}"
    worker.post(f"{path}/release")
    current = claim(worker)
    assert current["lease_epoch"] == 2
    if where == "body":
        response = worker.post(f"{path}/{call}", json={**STALE[call], "lease_epoch": 1})
    else:
        response = worker.post(f"{path}/{call}", json=STALE[call], headers={"X-Lease-Epoch": "1"})
    assert (response.status_code, list(response.json())) == (409, ["detail"])
    assert bot.get(path).json() == current


@pytest.mark.parametrize("call", STALE)
def test_an_epoch_ends_with_its_lease(bot: httpx.Client, worker: httpx.Client, job: Any, call: str) -> None:
    path = f"/jobs/{job['id']}"
    worker.post(f"{path}/release")
    before = bot.get(path).json()
    response = worker.post(f"{path}/{call}", json={**STALE[call], "lease_epoch": 1})
    assert response.status_code == 409
    assert bot.get(path).json() == before


@pytest.mark.parametrize("call", STALE)
@pytest.mark.parametrize("epoch", [{}, {"lease_epoch": 1}])
def test_only_the_holder_may_touch_a_lease(
    *, broker: Endpoint, bot: httpx.Client, job: Any, cap: str, call: str, epoch: dict[str, int]
) -> None:
    path = f"/jobs/{job['id']}"
    other = broker.worker("w2", cap)
    response = other.post(f"{path}/{call}", json={**STALE[call], **epoch})
    if epoch or call in ("heartbeat", "release", "log"):
        assert response.status_code == 409
    else:
        note = f"held by another worker; {call} ignored"
        assert (response.status_code, response.json()) == (200, {"ok": True, "status": "running", "note": note})
    assert bot.get(path).json() == {**job, "lease_until": bot.get(path).json()["lease_until"]}


def test_a_late_failure_does_not_end_a_requeued_job(bot: httpx.Client, worker: httpx.Client, job: Any) -> None:
    worker.post(f"/jobs/{job['id']}/release")
    response = worker.post(f"/jobs/{job['id']}/fail", json={"error": "late"})
    assert (response.status_code, response.json()) == (400, {"detail": "job not in running state: queued"})


@pytest.mark.parametrize("call", ["heartbeat", "release", "log"])
def test_an_ended_job_has_no_lease(bot: httpx.Client, worker: httpx.Client, job: Any, call: str) -> None:
    worker.post(f"/jobs/{job['id']}/result", json={"result": "r"})
    response = worker.post(f"/jobs/{job['id']}/{call}", json={"lease_epoch": 1})
    assert (response.status_code, response.json()) == (409, {"detail": "job not in running state: done"})


def test_a_result_may_be_repeated_with_its_epoch_only(worker: httpx.Client, job: Any) -> None:
    path = f"/jobs/{job['id']}/result"
    for epoch, status in ((1, 200), (1, 200), (0, 409), (2, 409)):
        assert worker.post(path, json={"result": "r", "lease_epoch": epoch}).status_code == status


def test_epochs_in_body_and_header_must_agree(worker: httpx.Client, job: Any) -> None:
    response = worker.post(f"/jobs/{job['id']}/heartbeat", json={"lease_epoch": 1}, headers={"X-Lease-Epoch": "2"})
    assert response.status_code == 400
    assert "X-Lease-Epoch" in response.json()["detail"]


def test_a_waiting_worker_gets_a_job_the_moment_it_is_there(bot: httpx.Client, worker: httpx.Client, cap: str) -> None:
    with ThreadPoolExecutor() as pool:
        waiting = pool.submit(claim, worker, WAIT)
        # Until the worker is registered, its claim would find the job at once, which proves nothing.
        while not any(agent["capabilities"] == [cap] for agent in bot.get("/agents").json()["agents"]):
            pass
        time.sleep(0.2)
        began = time.monotonic()
        job_id = submit(bot, requires=caps(cap))
        assert waiting.result(WAIT)["id"] == job_id
        assert time.monotonic() - began < 2


def test_a_wait_ends_with_null(worker: httpx.Client) -> None:
    began = time.monotonic()
    assert claim(worker, 0.3) is None
    assert 0.25 < time.monotonic() - began < 5


def test_every_job_wakes_one_waiting_worker(broker: Endpoint, bot: httpx.Client, cap: str) -> None:
    workers = [broker.worker(f"waiting-{n}", cap) for n in range(8)]
    with ThreadPoolExecutor(len(workers)) as pool:
        waiting = [pool.submit(claim, worker, WAIT) for worker in workers]
        ids = {submit(bot, requires=caps(cap)) for _ in workers}
        assert {job.result(WAIT)["id"] for job in waiting} == ids


def test_a_job_that_comes_as_a_wait_begins_is_not_missed(bot: httpx.Client, worker: httpx.Client, cap: str) -> None:
    with ThreadPoolExecutor() as pool:
        for n in range(30):
            waiting = pool.submit(claim, worker, WAIT)
            time.sleep(n / 2000)
            assert submit(bot, requires=caps(cap)) == waiting.result(5)["id"]


def test_a_foreign_job_ends_no_wait(bot: httpx.Client, worker: httpx.Client, cap: str) -> None:
    with ThreadPoolExecutor() as pool:
        waiting = pool.submit(claim, worker, WAIT)
        time.sleep(0.2)
        submit(bot, requires=caps(cap, "foreign"))
        time.sleep(0.1)
        assert submit(bot, requires=caps(cap)) == waiting.result(5)["id"]


def test_a_job_is_not_lost_with_the_worker_that_it_woke(broker: Endpoint, bot: httpx.Client, cap: str) -> None:
    """Workers that hang up while they wait: their job goes to one that is still there, uncharged."""
    head = f"GET /jobs/next?wait={WAIT} HTTP/1.1\r\nHost: x\r\nX-Worker-Token: {broker.worker_token}\r\n"
    socks = [broker.socket() for _ in range(5)]
    for sock in socks:
        sock.sendall(f"{head}X-Worker-Id: gone\r\nX-Worker-Caps: {cap}\r\n\r\n".encode())
    for sock in socks[:4]:
        sock.close()
    with ThreadPoolExecutor() as pool:
        waiting = pool.submit(claim, broker.worker("here", cap), WAIT)
        time.sleep(0.2)
        socks[4].close()
        submit(bot, requires=caps(cap))
        job = waiting.result(WAIT)
    assert (job["worker_id"], job["attempts"]) == ("here", 1)


@pytest.mark.parametrize("end", ["result", "fail"])
def test_a_submitter_can_wait_for_the_end(bot: httpx.Client, worker: httpx.Client, job: Any, end: str) -> None:
    def finish() -> None:
        worker.post(f"/jobs/{job['id']}/{end}", json=STALE[end])

    timer = threading.Timer(0.3, finish)
    timer.start()
    began = time.monotonic()
    seen = bot.get(f"/jobs/{job['id']}", params={"wait": WAIT}).json()
    assert seen["status"] == {"result": "done", "fail": "failed"}[end]
    assert time.monotonic() - began < 5
    timer.join()
    assert bot.get(f"/jobs/{job['id']}", params={"wait": WAIT}).json() == seen


def test_waiting_for_an_end_that_does_not_come(bot: httpx.Client, job: Any) -> None:
    began = time.monotonic()
    assert bot.get(f"/jobs/{job['id']}", params={"wait": "0.2"}).json()["status"] == "running"
    assert bot.get("/jobs/none", params={"wait": WAIT}).status_code == 404
    assert time.monotonic() - began < WAIT / 2


def test_jobs_are_listed_newest_first_in_pages(bot: httpx.Client, broker: Endpoint) -> None:
    agent = f"lister-{time.monotonic_ns()}"
    submit(bot, agent="another")
    ids = [submit(bot, agent=agent) for _ in range(5)]
    seen: list[str] = []
    cursor: str | None = None
    pages = 0
    while pages == 0 or cursor is not None:
        query = {"agent": agent, "limit": "2"} | ({"cursor": cursor} if cursor else {})
        page = bot.get("/jobs", params=query).json()
        assert list(page) == ["jobs", "cursor"]
        seen += [job["id"] for job in page["jobs"]]
        cursor = page["cursor"]
        pages += 1
        assert pages <= 3
    assert (seen, pages) == (ids[::-1], 3)
    claim(broker.worker(agent))
    for status, expected in (("running", ids[:1]), ("queued", ids[:0:-1]), ("done", [])):
        jobs = bot.get("/jobs", params={"agent": agent, "status": status}).json()["jobs"]
        assert [job["id"] for job in jobs] == expected
    assert bot.get("/jobs", params={"limit": 1}).json()["jobs"][0]["id"] == ids[-1]


def test_a_page_has_a_bounded_size(bot: httpx.Client) -> None:
    agent = f"big-{time.monotonic_ns()}"
    ids = [submit(bot, agent=agent, payload="x" * 250_000) for _ in range(7)]
    page = bot.get("/jobs", params={"agent": agent}).json()
    assert 1 < len(page["jobs"]) < 7
    rest = bot.get("/jobs", params={"agent": agent, "cursor": page["cursor"]}).json()
    assert [job["id"] for job in page["jobs"] + rest["jobs"]] == ids[::-1]
    assert rest["cursor"] is None


def test_agents_are_known_from_their_calls(broker: Endpoint, bot: httpx.Client, cap: str) -> None:
    name = f"agent-{time.monotonic_ns()}"
    worker = broker.worker(name, f'["{cap}", "b"]')
    job_id = submit(bot, requires=caps(cap))
    began = int(time.time())
    worker.get("/jobs/next", headers={"X-Runner-Version": "1.2.3"})
    worker.post(f"/jobs/{job_id}/heartbeat")
    (agent,) = [agent for agent in bot.get("/agents").json()["agents"] if agent["id"] == name]
    assert began <= agent.pop("last_seen") <= time.time()
    assert agent == {
        "id": name,
        "status": "online",
        "runner_version": "1.2.3",
        "capabilities": ["b", cap],
        "running": [job_id],
        "type": None,
        "metadata": {},
        "health": None,
        "cordoned": False,
    }
