"""The calls that no seed has: batches, cancel, requeue, reports and their followers, the queue and its pause."""

from __future__ import annotations

import json
import time
from collections import Counter, defaultdict
from itertools import count
from typing import TYPE_CHECKING, Any

from tests.contract.reference import reading
from tests.contract.reference.http import RefusedError, Request, require

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

MOST_REPORTED = 2**20


class Reports:
    """What jobs reported."""

    def __init__(self) -> None:
        self.numbers = count(1)
        self.events: defaultdict[str, list[dict[str, Any]]] = defaultdict(list)
        self.sizes: Counter[str] = Counter()
        self.texts: set[Any] = set()

    def keep(self, job: dict[str, Any], event: dict[str, Any]) -> None:
        """Keep an event that is not kept already, if there is room."""
        place = (job["id"], job["lease_epoch"], event.get("offset"))
        size = 64 + len(event.get("text") or event.get("note") or "")
        if place in self.texts or self.sizes[job["id"]] + size > MOST_REPORTED:
            return
        if place[2] is not None:
            self.texts.add(place)
        self.sizes[job["id"]] += size
        self.events[job["id"]].append({"id": next(self.numbers), "at": time.time()} | event)

    def after(self, job_id: str, number: int) -> list[dict[str, Any]]:
        """The events of a job after one."""
        return [event for event in self.events[job_id] if event["id"] > number]


async def batch(broker: Any, request: Request, caller: Any, body: bytes) -> Any:
    """POST /jobs/batch."""
    require("idempotency-key" not in request.headers, 400, "Idempotency-Key is one job's")
    orders: Any = reading.json_object(body, 400).get("jobs")
    require(isinstance(orders, list) and all(isinstance(order, dict) for order in orders), 400, "jobs: objects")
    require(len(orders) <= 1000, 400, "jobs: 1000 at most")
    jobs = [order_at(broker, place, order) for place, order in enumerate(orders)]
    return {"jobs": [{"id": job["id"], "status": job["status"]} for job in broker.enqueue(caller.name, jobs)]}


def order_at(broker: Any, place: int, order: dict[str, Any]) -> Any:
    """The job of a place in a batch; what is wrong with it names the place."""
    try:
        return broker.order(order)
    except RefusedError as refusal:
        dot = "." if ": " in str(refusal.detail) else ": "
        raise RefusedError(refusal.status, f"jobs[{place}]{dot}{refusal.detail}") from None


async def cancel(broker: Any, _request: Request, _caller: Any, body: bytes, job_id: str) -> Any:
    """POST /jobs/{id}/cancel."""
    reason = reason_of(body) or "cancelled"
    job = broker.find(job_id)
    if job["outcome"] is None:
        broker.lines.cancel(job, reason)
        ended = {"status": "failed", "outcome": "cancelled", "error": reason, "not_before": None}
        job = broker.store.write(job, **ended, finished_at=time.time(), lease_until=None)
    note = {} if job["outcome"] == "cancelled" else {"note": "already ended; cancel ignored"}
    return {"ok": True, "status": job["status"], "outcome": job["outcome"], **note}


async def requeue(broker: Any, _request: Request, _caller: Any, _body: bytes, job_id: str) -> Any:
    """POST /jobs/{id}/requeue."""
    job = broker.find(job_id)
    require(job["outcome"] == "dead", 409, f"job is not dead: {job['outcome'] or job['status']}")
    anew = {"status": "queued", "worker_id": None, "started_at": None, "lease_until": None}
    broker.store.write(job, **anew, outcome=None, error=None, finished_at=None, attempts=0)
    return {"ok": True, "status": "queued"}


async def log(broker: Any, request: Request, caller: Any, body: bytes, job_id: str) -> Any:
    """POST /jobs/{id}/log."""
    values = reading.json_object(body, 422)
    text, note = reading.optional_text(values, "text", 422), reading.optional_text(values, "note", 422)
    require(len((text or "").encode()) <= 65536, 413, "text too large")
    require(len((note or "").encode()) <= 1024, 413, "note too large")
    offset = reading.integer(values, "offset", 0, 2**53, 422)
    percent = reading.integer(values, "progress", 0, 100, 422)
    job = broker.leased("log", reading.epoch(request, values), caller, job_id)
    if text:
        broker.reports.keep(job, {"type": "log", "offset": offset, "text": text})
    if percent is not None or note is not None:
        broker.reports.keep(job, {"type": "progress", "progress": percent, "note": note})
    progress = job["progress"] if percent is None else percent
    broker.store.write(job, progress=progress, progress_note=job["progress_note"] if note is None else note)
    return {"ok": True}


async def events(broker: Any, request: Request, _caller: Any, _body: bytes, job_id: str) -> Any:
    """GET /jobs/{id}/events."""
    after = reading.number("after", request.query.get("after"), 0, 2**62, 0)
    after = reading.number("Last-Event-ID", request.headers.get("last-event-id"), 0, 2**62, after)
    limit = reading.number("limit", request.query.get("limit"), 1, 200, 200)
    deadline = time.monotonic() + reading.seconds(request.query.get("wait"))
    status = broker.find(job_id)["status"]
    if "text/event-stream" in request.headers.get("accept", ""):
        return stream(broker, request, job_id, after)
    while True:
        job, found = broker.find(job_id), broker.reports.after(job_id, after)[:limit]
        if found or job["outcome"] or job["status"] != status or not await broker.changed(deadline, request):
            after = found[-1]["id"] if found else after
            return {"status": job["status"], "outcome": job["outcome"], "events": found, "after": after}


async def stream(broker: Any, request: Request, job_id: str, after: int) -> AsyncIterator[str]:
    """The same as server-sent events."""
    told: Any = None
    while True:
        changed, job = broker.store.changed, broker.find(job_id)
        for event in broker.reports.after(job_id, after):
            after = event["id"]
            yield f"id: {after}\nevent: {event['type']}\ndata: {json.dumps(event)}\n\n"
        state = {"type": "state", "status": job["status"], "outcome": job["outcome"]}
        if state != told:
            yield f"event: state\ndata: {json.dumps(state)}\n\n"
        told = state
        if job["outcome"] or broker.stopping:
            return
        await changed.wait()
        try:
            broker.admit(request, "GET /jobs/{id}/events")
        except RefusedError:
            return


async def queue(broker: Any, _request: Request, _caller: Any, _body: bytes) -> Any:
    """GET /queue."""
    jobs = [*broker.store.jobs.values()]
    queued = [job for job in jobs if job["status"] == "queued"]
    ready = [int(job["created_at"]) for job in queued if not job["not_before"]]
    counts = {"ready": len(ready), "delayed": len(queued) - len(ready), "running": len(broker.running())}
    dead = sum(job["outcome"] == "dead" for job in jobs)
    return {**counts, "dead": dead, "oldest": min(ready, default=None), "paused": broker.store.paused}


async def pause(broker: Any, _request: Request, _caller: Any, body: bytes) -> Any:
    """POST /queue/pause."""
    broker.store.pause({"since": int(time.time()), "reason": reason_of(body)})
    return {"ok": True}


async def resume(broker: Any, _request: Request, _caller: Any, _body: bytes) -> Any:
    """POST /queue/resume."""
    broker.store.pause(None)
    return {"ok": True}


def reason_of(body: bytes) -> str:
    """The reason in a body that may be none."""
    reason = reading.optional_text(reading.json_object(body or b"{}", 422), "reason", 422) or ""
    require(len(reason.encode()) <= 1024, 413, "reason too large")
    return reason


CALLS: dict[str, Callable[..., Any]] = {
    "POST /jobs/batch": batch,
    "POST /jobs/{id}/cancel": cancel,
    "POST /jobs/{id}/requeue": requeue,
    "POST /jobs/{id}/log": log,
    "GET /jobs/{id}/events": events,
    "GET /queue": queue,
    "POST /queue/pause": pause,
    "POST /queue/resume": resume,
}
ROLES = {call: ["bot"] for call in CALLS} | {
    "POST /jobs/{id}/log": ["worker"],
    "POST /queue/pause": ["admin"],
    "POST /queue/resume": ["admin"],
}
