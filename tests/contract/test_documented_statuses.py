"""Every status that the OpenAPI document promises can be had, and (see the harness) no other ever comes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.contract.harness import caps, claim, submit

if TYPE_CHECKING:
    from collections.abc import Callable

    import httpx

    from tests.contract.harness import Broker

# Only a failing disk brings these forth; test_durability does.
UNPROVOKED = {503, 507}


def test_every_documented_status_can_be_had(start_broker: Callable[..., Broker], cap: str) -> None:
    broker = start_broker(MAX_QUEUED_JOBS="3")
    document = broker.document
    seen: set[tuple[str, str, int]] = set()

    def note(response: httpx.Response) -> None:
        found = document.operation(response.request.method, response.request.url.path)
        assert found is not None
        seen.add((response.request.method, found[0], response.status_code))

    bot, worker, nobody = broker.bot(), broker.worker("w", cap), broker.client()
    token = broker.command("token", "mint", "other").stdout.strip()
    impostor = broker.client({"X-Worker-Token": token, "X-Worker-Id": "w"})
    for client in (bot, worker, nobody, impostor):
        client.event_hooks["response"].append(note)
    large = b" " * 600_000

    for path in ("/health", "/openapi.json"):
        nobody.get(path)
    for path in ("/jobs", "/agents", "/queue"):
        nobody.get(path)
        bot.get(path)
        bot.request("GET", path, content=large)
    bot.get("/jobs?limit=0")
    nobody.post("/jobs")
    bot.post("/jobs", content=large)
    bot.post("/jobs", content=b"[]")
    job_id = submit(bot, requires=caps(cap))
    for path in ("/jobs/next", f"/jobs/{job_id}"):
        nobody.get(path)
        impostor.get(path)
        worker.get(f"{path}?wait=x")
        worker.request("GET", path, content=large)
        worker.get(path)
    worker.get("/jobs/none")
    for call in ("heartbeat", "log", "release", "result", "fail"):
        path = f"/jobs/{job_id}/{call}"
        nobody.post(path)
        impostor.post(path)
        worker.post(path, content=large)
        worker.post(path, content=b"[]")
        body = {"result": "r", "lease_epoch": 99}
        worker.post(path, json=body)
        worker.post(f"/jobs/none/{call}", json=body)
        worker.post(path, json=body, headers={"X-Lease-Epoch": "x"})
        worker.post(path, json={"result": "r"})
        claim(worker)
    nobody.post("/jobs/held")
    impostor.post("/jobs/held")
    nameless = broker.worker()
    nameless.event_hooks["response"].append(note)
    nameless.post("/jobs/held", json={"held": []})
    worker.post("/jobs/held", content=large)
    worker.post("/jobs/held", content=b"[]")
    worker.post("/jobs/held", json={"held": []})
    bot.get("/agents?status=x")
    follow_cancel_and_requeue(broker, note, large)
    submit_many(bot, nobody, large)
    while bot.post("/jobs", json={"command": "ping"}).status_code == 200:
        pass
    promised = {entry for entry in document.statuses() if entry[2] not in UNPROVOKED}
    assert seen == {entry for entry in promised if not entry[1].startswith(("/api/", "/agents/", "/metrics"))}


def follow_cancel_and_requeue(broker: Broker, note: Callable[[httpx.Response], None], large: bytes) -> None:
    """What operators do with jobs and the queue."""
    bot, admin, worker, nobody = broker.bot(), broker.admin(), broker.worker("w", "mortal"), broker.client()
    for client in (bot, admin, nobody):
        client.event_hooks["response"].append(note)
    dead = submit(bot, requires=caps("mortal"), max_deliveries=1)
    claim(worker)
    worker.post("/jobs/held", json={"held": []})
    paths = [f"/jobs/{dead}/{call}" for call in ("events", "requeue", "cancel")]
    paths += ["/queue/resume", "/queue/pause", "/queue/resume"]
    for path in paths:
        method = "GET" if path.endswith("events") else "POST"
        nobody.request(method, path)
        for body in (large, b"[]", b""):
            admin.request(method, path, content=body)
        bot.request(method, path)
        bot.request(method, path.replace(dead, "none"))
    bot.get(f"/jobs/{dead}/events?after=x")


def submit_many(bot: httpx.Client, nobody: httpx.Client, large: bytes) -> None:
    """Submit in batches, and under a key."""
    nobody.post("/jobs/batch")
    bot.post("/jobs/batch", content=large)
    bot.post("/jobs/batch", content=b"[]")
    job = {"command": "ping", "idempotency_key": "k"}
    for payload in ("", "other"):
        bot.post("/jobs/batch", json={"jobs": [job | {"payload": payload}]})
        bot.post("/jobs", json=job | {"payload": payload})
    bot.post("/jobs/batch", json={"jobs": [{"command": "ping"}] * 3})
