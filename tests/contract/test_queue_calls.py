"""What is ours of the queue: keys, batches, order, times, cancel, requeue, pause and retention."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

from tests.contract.harness import caps, claim, submit

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import httpx

    from tests.contract.harness import Broker, Endpoint

# Seconds: far longer than any answer takes that comes before its wait is over.
WAIT = 8
LATE = {"heartbeat": {}, "release": {}, "log": {"text": "late"}}


@pytest.fixture
def own(start_broker: Callable[..., Broker]) -> Broker:
    """A broker that may be paused."""
    return start_broker(LEASE_SECONDS="59")


@pytest.fixture
def pausing(own: Broker) -> Iterator[httpx.Client]:
    """An admin; what it paused is resumed."""
    admin = own.client({"X-Bot-Token": own.admin_token})
    yield admin
    admin.post("/queue/resume")


def batch(bot: httpx.Client, *jobs: dict[str, Any], **headers: str) -> httpx.Response:
    return bot.post("/jobs/batch", json={"jobs": [{"command": "ping", **job} for job in jobs]}, headers=headers)


def listed(bot: httpx.Client, cap: str, **filters: str) -> list[str]:
    """The ids of this test's jobs, the oldest first."""
    jobs = bot.get("/jobs", params={"limit": 200, **filters}).json()["jobs"]
    return [job["id"] for job in jobs[::-1] if cap in (job["requires"] or "")]


def dead(broker: Broker, cap: str) -> str:
    """A dead letter."""
    job_id = submit(broker.bot(), requires=caps(cap), max_deliveries=1)
    worker = broker.worker(f"w-{cap}", cap)
    claim(worker)
    worker.post("/jobs/held", json={"held": []})
    return job_id


# Idempotency keys


def test_the_same_words_under_a_key_are_answered_with_the_same_job(
    bot: httpx.Client, worker: httpx.Client, cap: str
) -> None:
    words = {"command": "ping", "payload": "p", "requires": caps(cap), "idempotency_key": cap}
    first = bot.post("/jobs", json=words)
    job_id = first.json()["id"]
    for status in ("queued", "running", "done"):
        if status == "running":
            claim(worker)
        if status == "done":
            worker.post(f"/jobs/{job_id}/result", json={"result": "r"})
        again = bot.post("/jobs", json=words)
        assert (again.status_code, again.json()) == (200, {"id": job_id, "status": status})
    assert claim(worker) is None
    assert bot.get(f"/jobs/{job_id}").json()["idempotency_key"] == cap


def test_a_key_may_be_in_the_header(bot: httpx.Client, cap: str) -> None:
    words = {"command": "ping", "requires": caps(cap)}
    for _ in range(2):
        assert bot.post("/jobs", json=words, headers={"Idempotency-Key": cap}).status_code == 200
    assert bot.post("/jobs", json=words | {"idempotency_key": cap}, headers={"Idempotency-Key": cap}).status_code == 200
    assert len(listed(bot, cap)) == 1
    differ = bot.post("/jobs", json=words | {"idempotency_key": "other"}, headers={"Idempotency-Key": cap})
    assert (differ.status_code, "Idempotency-Key" in differ.json()["detail"]) == (400, True)


@pytest.mark.parametrize("other", [{"payload": "p"}, {"priority": 1}, {"not_before": 1}, {"agent": "x"}], ids=str)
def test_other_words_under_a_key_are_refused(bot: httpx.Client, cap: str, other: dict[str, Any]) -> None:
    words = {"command": "ping", "requires": caps(cap), "idempotency_key": cap}
    job_id = bot.post("/jobs", json=words).json()["id"]
    response = bot.post("/jobs", json=words | other)
    assert (response.status_code, job_id in response.json()["detail"]) == (422, True)
    assert listed(bot, cap) == [job_id]


def test_a_key_is_one_submitters(own: Broker, cap: str) -> None:
    tokens = [own.bot_token] + [
        own.command("token", "mint", f"{cap}-{n}", "--role", "bot").stdout.strip() for n in range(2)
    ]
    ids = {
        submit(own.client({"X-Bot-Token": token}), requires=caps(cap), idempotency_key="k", payload=token[:4])
        for token in tokens
    }
    assert len(ids) == 3


def test_a_key_outlives_a_restart(new_broker: Callable[..., Broker], cap: str) -> None:
    broker = new_broker().start()
    job_id = submit(broker.bot(), requires=caps(cap), idempotency_key="k")
    broker.disconnect()
    broker.restart()
    assert submit(broker.bot(), requires=caps(cap), idempotency_key="k") == job_id


# Batches


def test_a_batch_is_queued_in_its_order(bot: httpx.Client, worker: httpx.Client, cap: str) -> None:
    response = batch(bot, *({"requires": caps(cap), "payload": str(n)} for n in range(5)))
    assert response.status_code == 200
    jobs = response.json()["jobs"]
    assert [job["status"] for job in jobs] == ["queued"] * 5
    claimed = [claim(worker) for _ in jobs]
    assert [(job["id"], job["payload"]) for job in claimed] == [(job["id"], str(n)) for n, job in enumerate(jobs)]
    assert batch(bot).json() == {"jobs": []}


@pytest.mark.parametrize(
    ("wrong", "detail"),
    [
        ({"priority": "1"}, "jobs[2].priority: "),
        ({"command": "no command"}, "jobs[2]: invalid command"),
        ({"payload": "x" * 262145}, "jobs[2]: payload too large"),
    ],
)
def test_a_batch_with_a_job_that_is_wrong_queues_none(
    bot: httpx.Client, cap: str, wrong: dict[str, Any], detail: str
) -> None:
    response = batch(bot, *[{"requires": caps(cap)}] * 2, {"requires": caps(cap), **wrong})
    assert (response.status_code, response.json()["detail"][: len(detail)]) == (400, detail)
    assert listed(bot, cap) == []


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b'{"jobs":{}}', b'{"jobs":[1]}', b'{"jobs":null}'])
def test_a_batch_that_is_none(bot: httpx.Client, body: bytes) -> None:
    response = bot.post("/jobs/batch", content=body)
    assert (response.status_code, isinstance(response.json()["detail"], str)) == (400, True)


def test_a_batch_has_a_bounded_number_of_jobs(bot: httpx.Client, cap: str) -> None:
    job = {"requires": caps(cap)}
    assert batch(bot, *[job] * 1001).status_code == 400
    assert listed(bot, cap) == []
    assert len(batch(bot, *[job] * 1000).json()["jobs"]) == 1000


def test_a_key_in_a_batch_is_its_jobs(bot: httpx.Client, cap: str) -> None:
    keyed: dict[str, Any] = {"requires": caps(cap), "idempotency_key": cap}
    earlier = submit(bot, **keyed)
    ids = [job["id"] for job in batch(bot, {"requires": caps(cap)}, keyed).json()["jobs"]]
    assert (ids[1], len(set(ids))) == (earlier, 2)
    fresh = keyed | {"idempotency_key": f"{cap}-2"}
    twice = [job["id"] for job in batch(bot, fresh, fresh).json()["jobs"]]
    assert twice[0] == twice[1]
    before = listed(bot, cap)
    refused = batch(bot, {"requires": caps(cap)}, keyed | {"payload": "other"})
    assert refused.status_code == 422
    assert batch(bot, {"requires": caps(cap)}, **{"Idempotency-Key": cap}).status_code == 400
    assert listed(bot, cap) == before


def test_a_batch_fits_into_the_queue_whole_or_not_at_all(start_broker: Callable[..., Broker], cap: str) -> None:
    bot = start_broker(MAX_QUEUED_JOBS="3").bot()
    job = {"requires": caps(cap)}
    submit(bot, **job)
    full = batch(bot, *[job] * 3)
    assert (full.status_code, full.json()) == (429, {"detail": "job queue limit reached"})
    assert int(full.headers["Retry-After"]) > 0
    assert batch(bot, *[job] * 4).status_code == 413
    assert len(listed(bot, cap)) == 1
    assert batch(bot, *[job] * 2).status_code == 200


def test_a_batch_fits_into_the_minute_whole_or_not_at_all(start_broker: Callable[..., Broker], cap: str) -> None:
    bot = start_broker(RATE_LIMIT_JOBS_PER_MIN="3").bot()
    job = {"requires": caps(cap)}
    assert batch(bot, *[job] * 2).status_code == 200
    fast = batch(bot, *[job] * 2)
    assert (fast.status_code, fast.json()) == (429, {"detail": "rate limit exceeded"})
    assert 0 < int(fast.headers["Retry-After"]) <= 60
    never = batch(bot, *[job] * 4)
    assert (never.status_code, "retry-after" in never.headers) == (413, False)
    assert len(listed(bot, cap)) == 2
    submit(bot, **job)
    assert bot.post("/jobs", json={"command": "ping"}).status_code == 429


# Order


def test_the_highest_priority_comes_first_and_of_equals_the_oldest(
    bot: httpx.Client, worker: httpx.Client, cap: str
) -> None:
    priorities = (0, -100, 7, None, 7, 100)
    ids = [submit(bot, requires=caps(cap), priority=priority) for priority in priorities]
    jobs = [claim(worker) for _ in ids]
    assert [ids.index(job["id"]) for job in jobs] == [5, 2, 4, 0, 3, 1]
    assert [job["priority"] for job in jobs] == [100, 7, 7, 0, 0, -100]


def test_priorities_hold_across_routes(bot: httpx.Client, worker: httpx.Client, cap: str) -> None:
    named = submit(bot, agent=f"w-{cap}", requires=caps(cap))
    urgent = submit(bot, requires=caps(cap), priority=1)
    assert [claim(worker)["id"] for _ in range(2)] == [urgent, named]


def test_jobs_for_others_keep_nobodys_back(bot: httpx.Client, worker: httpx.Client, cap: str) -> None:
    batch(bot, *[{"requires": caps(cap, f"not-{cap}"), "priority": 100}] * 200)
    mine = submit(bot, requires=caps(cap), priority=-100)
    assert claim(worker)["id"] == mine


def test_a_released_job_has_its_old_place_among_its_equals(bot: httpx.Client, worker: httpx.Client, cap: str) -> None:
    ids = [submit(bot, requires=caps(cap), priority=priority) for priority in (3, 3, 4)]
    assert [claim(worker)["id"] for _ in range(2)] == [ids[2], ids[0]]
    worker.post(f"/jobs/{ids[0]}/release")
    worker.post(f"/jobs/{ids[2]}/release")
    assert [claim(worker)["id"] for _ in ids] == [ids[2], ids[0], ids[1]]


# Times to begin


def test_a_job_for_later_is_nobodys_until_then(bot: httpx.Client, worker: httpx.Client, cap: str) -> None:
    when = time.time() + 1.2
    job_id = submit(bot, requires=caps(cap), not_before=when)
    shown = bot.get(f"/jobs/{job_id}").json()
    assert (shown["status"], shown["not_before"]) == ("queued", int(when))
    ready = submit(bot, requires=caps(cap))
    assert claim(worker)["id"] == ready
    assert claim(worker) is None
    job = claim(worker, WAIT)
    assert (job["id"], job["not_before"], job["attempts"]) == (job_id, None, 1)
    assert when - 0.05 <= time.time() <= when + 2


def test_a_job_for_the_latest_time_is_shown_in_each_dialect(own: Broker, cap: str) -> None:
    job_id = submit(own.bot(), requires=caps(cap), not_before=2**37)
    assert own.bot().get(f"/jobs/{job_id}").json()["not_before"] == 2**37
    task = own.client({"Authorization": f"Bearer {own.bot_token}"}).get(f"/api/tasks/{job_id}").json()
    assert task["next_retry_at"].startswith("6325-")


def test_a_past_time_means_now(bot: httpx.Client, worker: httpx.Client, cap: str) -> None:
    job_id = submit(bot, requires=caps(cap), not_before=time.time() - 5)
    assert bot.get(f"/jobs/{job_id}").json()["not_before"] is None
    assert claim(worker)["id"] == job_id


# Cancel, and dead letters


def test_a_cancelled_job_is_never_handed_out(bot: httpx.Client, worker: httpx.Client, cap: str) -> None:
    job_id = submit(bot, requires=caps(cap))
    response = bot.post(f"/jobs/{job_id}/cancel", json={"reason": "why"})
    assert (response.status_code, response.json()) == (200, {"ok": True, "status": "failed", "outcome": "cancelled"})
    job = bot.get(f"/jobs/{job_id}").json()
    assert (job["status"], job["outcome"], job["error"]) == ("failed", "cancelled", "why")
    assert job["finished_at"] is not None
    assert claim(worker) is None


@pytest.mark.parametrize("call", LATE)
def test_a_running_job_that_is_cancelled_has_ended_and_its_worker_is_refused(
    bot: httpx.Client, worker: httpx.Client, job: Any, call: str
) -> None:
    path = f"/jobs/{job['id']}"
    assert bot.post(f"{path}/cancel").json() == {"ok": True, "status": "failed", "outcome": "cancelled"}
    ended = bot.get(path).json()
    assert (ended["outcome"], ended["lease_until"], ended["error"]) == ("cancelled", None, "cancelled")
    late = worker.post(f"{path}/{call}", json={**LATE[call], "lease_epoch": 1})
    assert (late.status_code, late.json()) == (409, {"detail": "job not in running state: failed"})
    assert bot.get(path).json() == ended


def test_what_a_cancelled_job_results_in_is_ignored(bot: httpx.Client, worker: httpx.Client, job: Any) -> None:
    path = f"/jobs/{job['id']}"
    bot.post(f"{path}/cancel")
    ended = bot.get(path).json()
    ignored = {"ok": True, "status": "failed", "note": "already failed; result ignored"}
    assert worker.post(f"{path}/result", json={"result": "late", "lease_epoch": 1}).json() == ignored
    assert worker.post(f"{path}/fail", json={"error": "late"}).json() == {"ok": True, "status": "failed"}
    assert bot.get(path).json() == ended


def test_who_waits_for_a_job_hears_of_its_cancelling(bot: httpx.Client, job: Any) -> None:
    with ThreadPoolExecutor() as pool:
        waiting = pool.submit(bot.get, f"/jobs/{job['id']}", params={"wait": WAIT})
        time.sleep(0.2)
        began = time.monotonic()
        bot.post(f"/jobs/{job['id']}/cancel")
        assert waiting.result(WAIT).json()["outcome"] == "cancelled"
        assert time.monotonic() - began < 2


def test_a_job_that_has_ended_stays_as_it_ended(bot: httpx.Client, worker: httpx.Client, job: Any) -> None:
    path = f"/jobs/{job['id']}"
    worker.post(f"{path}/result", json={"result": "r"})
    ended = bot.get(path).json()
    note = "already ended; cancel ignored"
    expected = {"ok": True, "status": "done", "outcome": "done", "note": note}
    assert bot.post(f"{path}/cancel", json={"reason": "late"}).json() == expected
    assert bot.get(path).json() == ended


def test_a_cancel_may_be_repeated(bot: httpx.Client, job: Any) -> None:
    path = f"/jobs/{job['id']}"
    bot.post(f"{path}/cancel", json={"reason": "first"})
    again = bot.post(f"{path}/cancel", json={"reason": "second"})
    assert again.json() == {"ok": True, "status": "failed", "outcome": "cancelled"}
    assert bot.get(path).json()["error"] == "first"


def test_dead_letters_are_listed_and_queued_again(own: Broker, cap: str) -> None:
    bot, worker = own.bot(), own.worker(f"w-{cap}", cap)
    job_id = dead(own, cap)
    failed = submit(bot, requires=caps(cap))
    claim(worker)
    worker.post(f"/jobs/{failed}/fail", json={"error": "e"})
    assert listed(bot, cap, outcome="dead") == [job_id]
    assert listed(bot, cap, outcome="dead", status="failed") == [job_id]
    assert listed(bot, cap, outcome="failed") == [failed]
    assert bot.get("/jobs", params={"outcome": "dead", "status": "queued"}).status_code == 400
    other = bot.post(f"/jobs/{failed}/requeue")
    assert (other.status_code, other.json()) == (409, {"detail": "job is not dead: failed"})
    response = bot.post(f"/jobs/{job_id}/requeue")
    assert (response.status_code, response.json()) == (200, {"ok": True, "status": "queued"})
    job = bot.get(f"/jobs/{job_id}").json()
    assert (job["attempts"], job["outcome"], job["error"], job["finished_at"]) == (0, None, None, None)
    again = claim(worker)
    assert (again["id"], again["lease_epoch"], again["attempts"]) == (job_id, 2, 1)
    assert bot.post(f"/jobs/{job_id}/requeue").status_code == 409


@pytest.mark.parametrize("call", ["cancel", "requeue"])
def test_there_is_nothing_to_cancel_or_requeue_of_no_job(bot: httpx.Client, call: str) -> None:
    response = bot.post(f"/jobs/none/{call}")
    assert (response.status_code, response.json()) == (404, {"detail": "job not found"})


# The queue


def test_the_queue_is_counted(own: Broker, pausing: httpx.Client, cap: str) -> None:
    bot, worker = own.bot(), own.worker(f"w-{cap}", cap)
    before = pausing.get("/queue").json()
    dead(own, cap)
    submit(bot, requires=caps(cap))
    claim(worker)
    began = int(time.time())
    submit(bot, requires=caps(cap))
    submit(bot, requires=caps(cap), not_before=time.time() + 60)
    after = bot.get("/queue").json()
    assert {key: after[key] - before[key] for key in ("ready", "delayed", "running", "dead")} == dict.fromkeys(
        ("ready", "delayed", "running", "dead"), 1
    )
    assert after["oldest"] <= time.time()
    assert before["oldest"] is not None or after["oldest"] >= began
    assert (before["paused"], after["paused"]) == (None, None)


def test_a_paused_queue_hands_out_nothing_and_takes_what_comes(own: Broker, pausing: httpx.Client, cap: str) -> None:
    bot, worker = own.bot(), own.worker(f"w-{cap}", cap)
    held = submit(bot, requires=caps(cap))
    claim(worker)
    began = int(time.time())
    assert pausing.post("/queue/pause", json={"reason": "mending"}).json() == {"ok": True}
    paused = bot.get("/queue").json()["paused"]
    assert (paused["reason"], began <= paused["since"] <= time.time()) == ("mending", True)
    job_id = submit(bot, requires=caps(cap))
    assert claim(worker) is None
    assert worker.post(f"/jobs/{held}/heartbeat").status_code == 200
    assert worker.post(f"/jobs/{held}/result", json={"result": "r"}).json()["status"] == "done"
    with ThreadPoolExecutor() as pool:
        waiting = pool.submit(claim, worker, WAIT)
        time.sleep(0.3)
        assert not waiting.done()
        began_waiting = time.monotonic()
        assert pausing.post("/queue/resume").json() == {"ok": True}
        assert waiting.result(WAIT)["id"] == job_id
        assert time.monotonic() - began_waiting < 2
    assert bot.get("/queue").json()["paused"] is None
    assert pausing.post("/queue/resume").status_code == 200


def test_a_pause_outlives_a_restart(new_broker: Callable[..., Broker]) -> None:
    broker = new_broker().start()
    admin = {"X-Bot-Token": broker.admin_token}
    submit(broker.bot())
    broker.client(admin).post("/queue/pause")
    paused = broker.bot().get("/queue").json()["paused"]
    broker.disconnect()
    broker.restart()
    assert broker.bot().get("/queue").json()["paused"] == paused
    assert claim(broker.worker("w")) is None
    broker.client(admin).post("/queue/resume")
    assert claim(broker.worker("w")) is not None


def test_a_bot_pauses_nothing(own: Broker) -> None:
    bot = own.bot()
    for call in ("pause", "resume"):
        response = bot.post(f"/queue/{call}")
        assert (response.status_code, response.json()) == (401, {"detail": "bad admin token"})
    assert bot.get("/queue").json()["paused"] is None


# Retention


def test_jobs_are_kept_for_a_while_after_their_end(start_broker: Callable[..., Broker], cap: str) -> None:
    broker = start_broker(JOB_RETENTION_SECONDS="4")
    bot, worker = broker.bot(), broker.worker(f"w-{cap}", cap)
    gone = [dead(broker, cap), submit(bot, requires=caps(cap), idempotency_key="k")]
    claim(worker)
    worker.post(f"/jobs/{gone[1]}/result", json={"result": "r"})
    running = submit(bot, requires=caps(cap))
    claim(worker)
    queued = submit(bot, requires=caps(cap))
    assert listed(bot, cap) == [*gone, running, queued]
    deadline = time.monotonic() + 20
    while listed(bot, cap) != [running, queued]:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert [bot.get(f"/jobs/{job_id}").status_code for job_id in gone] == [404, 404]
    assert bot.get("/queue").json()["dead"] == 0
    assert submit(bot, requires=caps(cap), idempotency_key="k", payload="other words") not in gone


def test_a_job_is_kept_until_then(start_broker: Callable[..., Broker], broker: Endpoint, cap: str) -> None:
    """A month, unless said otherwise, and for ever where that is said."""
    for kept in (broker, start_broker(JOB_RETENTION_SECONDS="0")):
        job_id = submit(kept.bot(), requires=caps(cap))
        kept.bot().post(f"/jobs/{job_id}/cancel")
    time.sleep(6)
    for kept in (broker, start_broker(JOB_RETENTION_SECONDS="0")):
        assert len(listed(kept.bot(), cap)) == 1
