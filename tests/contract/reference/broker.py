"""The calls of the jobs dialect."""

from __future__ import annotations

import asyncio
import json
import os
import re
import time
import uuid
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.contract.reference import hub, native, reading, tasks
from tests.contract.reference.http import RefusedError, Request, require
from tests.contract.reference.store import SILENT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from tests.contract.reference.store import Store

    Job = dict[str, Any]

KEYS = (
    "id", "created_at", "started_at", "finished_at", "lease_until", "status",
    "command", "payload", "result", "error", "worker_id", "requires",
    "agent", "dialect", "attempts", "max_deliveries", "lease_epoch", "lease_seconds", "outcome", "duration_ms",
    "priority", "not_before", "idempotency_key", "progress", "progress_note",
)  # fmt: skip
TIMES = ("created_at", "started_at", "finished_at", "lease_until", "not_before")
QUEUED = {"status": "queued", "worker_id": None, "started_at": None, "lease_until": None}
# What only the hub dialect knows of an agent.
MAX_BODY = 524288
MAX_TEXT = 262144


@dataclass(frozen=True)
class Caller:
    """Who calls: the owner of the token or, of a worker, the name that it gives."""

    name: str | None
    caps: frozenset[str] = frozenset()


class Broker:
    """The calls."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.lease_seconds = int(os.environ.get("LEASE_SECONDS", "60"))
        self.most_unfinished = int(os.environ.get("MAX_QUEUED_JOBS", "1000000"))
        self.per_minute = int(os.environ.get("RATE_LIMIT_JOBS_PER_MIN", "1000000"))
        self.commands = [name.strip() for name in os.environ.get("BROKER_COMMANDS", "").split(",") if name]
        self.stopping = False
        self.submissions: dict[str | None, list[float]] = {}
        self.dismissals: Counter[str | None] = Counter()
        self.max_body = int(os.environ.get("MAX_REQUEST_BODY_BYTES", str(MAX_BODY)))
        self.max_result = int(os.environ.get("MAX_RESULT_BYTES", str(MAX_TEXT)))
        self.kept_seconds = int(os.environ.get("JOB_RETENTION_SECONDS", str(30 * 86400)))
        self.lost = 0
        self.reports = native.Reports()
        self.lines = hub.Lines(self)

    async def handle(self, request: Request) -> Any:
        """Answer one request."""
        if request.method == "GET" and request.path == "/health":
            return {"ok": True, "ts_bound": True}
        if request.method == "GET" and request.path == "/openapi.json":
            return DOCUMENT
        if request.path.startswith("/api/"):
            return await tasks.handle(self, request)
        if request.method == "GET" and request.path == "/metrics":
            return hub.metrics(self)
        call, job_id = self.route(request, CALLS)
        role, owner = self.admit(request, call)
        caller = self.identify(request, owner) if role == "worker" else Caller(owner)
        body = await request.body(self.max_body)
        return await CALLS[call](self, request, caller, body, *job_id)

    def route(self, request: Request, calls: Iterable[str]) -> tuple[str, tuple[str, ...]]:
        """The call that a request is, and the job's id if its path has one."""
        allowed = []
        for call in calls:
            method, _, path = call.partition(" ")
            match = re.fullmatch(path.replace("{id}", "([^/]+)"), request.path, re.DOTALL)
            if match and method == request.method:
                return call, match.groups()
            allowed += [method] if match else []
        require(allowed, 404, "Not Found")
        raise RefusedError(405, "Method Not Allowed", {"allow": ", ".join(allowed)})

    def admit(self, request: Request, call: str) -> tuple[str, str | None]:
        """The role of the caller, and the name that its token was minted for."""
        roles = ROLES[call]
        for role in roles:
            token = request.headers.get("x-worker-token" if role == "worker" else "x-bot-token", "")
            if role != "worker" and not token:
                token = request.headers.get("authorization", "").removeprefix("Bearer ").removeprefix("bearer ")
            if reading.shared(role, token):
                return role, None
            for good in GOOD_FOR[role]:
                if token and (owner := self.store.owner(good, token)):
                    return role, owner
        raise RefusedError(401, f"bad {roles[0]} token" if len(roles) == 1 else "bad token")

    def identify(self, request: Request, owner: str | None) -> Caller:
        """Who a worker is, from its headers."""
        name = request.headers.get("x-worker-id", "").strip() or owner
        version = request.headers.get("x-runner-version", "").strip()
        require(not name or reading.NAME.fullmatch(name), 400, "X-Worker-Id must be a name")
        require(not version or reading.VERSION.fullmatch(version), 400, "X-Runner-Version must be a version")
        caps = reading.capabilities(request.headers.get("x-worker-caps"))
        require(owner in (None, name), 403, "the token is bound to another name")
        if name:
            self.store.saw(name, version, caps)
        return Caller(name, frozenset(caps or ()))

    async def submit(self, request: Request, caller: Caller, body: bytes) -> Any:
        """POST /jobs."""
        values = reading.json_object(body or b"{}", 400)
        key = request.headers.get("idempotency-key")
        if key is not None:
            require(values.get("idempotency_key") in (None, key), 400, "Idempotency-Key and the body's differ")
            values["idempotency_key"] = key
        (job,) = self.enqueue(caller.name, [self.order(values)])
        return {"id": job["id"], "status": job["status"]}

    def order(self, values: dict[str, Any]) -> Job:
        """The job that a submission asks for."""
        command = values.get("command")
        command = command.strip() if isinstance(command, str) else ""
        require(reading.COMMAND.fullmatch(command), 400, "invalid command")
        require(not self.commands or command in self.commands, 400, "invalid command")
        payload = reading.optional_text(values, "payload", 400) or ""
        require(len(payload.encode()) <= MAX_TEXT, 400, "payload too large")
        requires, needs = reading.requirement(values.get("requires"))
        agent = reading.optional_text(values, "agent", 400)
        require(agent is None or reading.NAME.fullmatch(agent), 400, "agent must be a name")
        deliveries = values.get("max_deliveries")
        deliveries = 5 if deliveries is None else deliveries
        require(type(deliveries) is int and 1 <= deliveries <= 100, 400, "max_deliveries must be from 1 to 100")
        priority = reading.integer(values, "priority", -100, 100, 400) or 0
        when, key = values.get("not_before"), reading.optional_text(values, "idempotency_key", 400)
        require(when is None or (type(when) in (int, float) and 0 <= when <= 2**37), 400, "not_before must be a time")
        require(key is None or reading.KEY.fullmatch(key), 400, "idempotency_key must be a key")
        return dict.fromkeys(KEYS) | {
            "id": str(uuid.uuid4()), "created_at": time.time(), "status": "queued", "command": command,
            "payload": payload, "requires": requires, "agent": agent, "attempts": 0, "max_deliveries": deliveries,
            "lease_epoch": 0, "lease_seconds": self.lease_seconds, "needs": needs,
            "dialect": "jobs", "retry_seconds": 0, "heartbeat_at": None, "priority": priority,
            "not_before": when if (when or 0) > time.time() else None, "idempotency_key": key,
            "words": [command, payload, requires, agent, deliveries, priority, when],
        }  # fmt: skip

    def enqueue(self, bot: str | None, jobs: list[Job]) -> list[Job]:
        """Queue jobs, all or none; for one whose submitter used its key before, there is the earlier job."""
        kept: list[Job] = []
        for job in jobs:
            job["submitter"] = bot
            key = (job["idempotency_key"], bot)
            known = [*self.store.jobs.values(), *kept] if key[0] else []
            same = [other for other in known if (other["idempotency_key"], other["submitter"]) == key]
            kept.append(same[0] if same else job)
            words, earlier = kept[-1]["words"], kept[-1]["id"]
            require(words == job["words"], 422, f"idempotency_key was used for another submission: job {earlier}")
        new = [job for job, earlier in zip(jobs, kept, strict=True) if job is earlier]
        self.bound(bot, len(jobs), len(new))
        for job in new:
            self.store.write(job)
        return kept

    def bound(self, bot: str | None, asked: int, new: int) -> None:
        """Refuse submissions that are too many."""
        require(asked <= min(self.per_minute, self.most_unfinished), 413, "batch too large")
        recent = [then for then in self.submissions.get(bot, []) if then > time.time() - 60]
        require(len(recent) + asked <= self.per_minute, 429, "rate limit exceeded", {"retry-after": "60"})
        unfinished = sum(job["status"] in ("queued", "running") for job in self.store.jobs.values())
        require(unfinished + new <= self.most_unfinished, 429, "job queue limit reached", {"retry-after": "2"})
        self.submissions[bot] = recent + [time.time()] * asked

    async def browse(self, request: Request, _caller: Caller, _body: bytes) -> Any:
        """GET /jobs."""
        status, agent = request.query.get("status"), request.query.get("agent")
        limit = reading.number("limit", request.query.get("limit"), 1, 200, 50)
        before = reading.number("cursor", request.query.get("cursor"), 1, 2**62, 2**62)
        require(status in (None, "queued", "running", "done", "failed"), 400, "status must be one of four")
        require(agent is None or reading.NAME.fullmatch(agent), 400, "agent must be the name of one")
        outcome = request.query.get("outcome")
        require(outcome in (None, "done", "failed", "cancelled", "dead"), 400, "outcome must be one of four")
        fits = status in (None, "done" if outcome == "done" else "failed")
        require(outcome is None or fits, 400, "outcome must be one of the status")
        page: list[Job] = []
        size = 0
        for n, job in reversed([*enumerate(self.store.jobs.values(), 1)]):
            if (
                n >= before
                or status not in (None, job["status"])
                or outcome not in (None, job["outcome"])
                or agent not in (None, job["worker_id"] or job["agent"])
            ):
                continue
            if len(page) == limit or size >= 2**20:
                return {"jobs": page, "cursor": str(n + 1)}
            page.append(shown(job))
            size += len(job["payload"])
        return {"jobs": page, "cursor": None}

    async def agents(self, request: Request, _caller: Caller, _body: bytes) -> Any:
        """GET /agents."""
        state, kind = request.query.get("status"), request.query.get("type")
        require(state in (None, "online", "offline"), 400, "status must be online or offline")
        agents = [self.agent(name) for name in sorted(self.names())]
        agents = [agent for agent in agents if state in (None, agent["status"]) and kind in (None, agent["type"])]
        return {"agents": agents}

    def names(self) -> set[str]:
        """Who called, was registered, or has a token."""
        return {*self.store.minted(), *self.store.agents}

    def agent(self, name: str) -> Job:
        """What is shown of an agent."""
        agent = self.store.agents.get(name, SILENT)
        status = "online" if time.time() - (agent["last_seen"] or 0) < 50 else "offline"
        running = [job["id"] for job in self.running() if job["worker_id"] == name]
        return {"id": name, "status": status, **agent, "running": running}

    async def look(self, request: Request, _caller: Caller, _body: bytes, job_id: str) -> Any:
        """GET /jobs/{id}."""
        deadline = time.monotonic() + reading.seconds(request.query.get("wait"))
        while self.find(job_id)["outcome"] is None:
            if not await self.changed(deadline, request):
                break
        return shown(self.find(job_id))

    async def claim(self, request: Request, caller: Caller, _body: bytes) -> Any:
        """GET /jobs/next."""
        deadline = time.monotonic() + reading.seconds(request.query.get("wait"))
        dismissals = self.dismissals[caller.name]
        while (job := self.next(caller)) is None:
            if not await self.changed(deadline, request) or self.dismissals[caller.name] != dismissals:
                return {"job": None}
            self.admit(request, "GET /jobs/next")
        return {"job": shown(job)}

    async def changed(self, deadline: float, request: Request) -> bool:
        """Wait until something changes; false when the caller shall wait no longer."""
        with suppress(TimeoutError):
            async with asyncio.timeout(deadline - time.monotonic()):
                await self.store.changed.wait()
        return time.monotonic() < deadline and not self.stopping and not request.gone

    def next(self, caller: Caller | hub.Line, lease_seconds: int | None = None) -> Any:
        """Lease a job that the caller may run: of the highest priority the oldest."""
        cordoned = self.store.agents.get(caller.name or "", SILENT)["cordoned"]
        fitting = [
            job
            for job in self.store.jobs.values()
            if job["status"] == "queued"
            and not job["not_before"]
            and not cordoned
            and job["agent"] in (None, caller.name)
            and caller.caps.issuperset(job["needs"])
        ]
        if not fitting or self.store.paused:
            return None
        job = max(fitting, key=lambda job: job["priority"])
        return self.store.write(
            job,
            status="running",
            worker_id=caller.name,
            started_at=time.time(),
            lease_until=time.time() + (lease_seconds or job["lease_seconds"]),
            heartbeat_at=time.time(),
            error=None,
            progress=None,
            progress_note=None,
            lease_epoch=job["lease_epoch"] + 1,
            attempts=job["attempts"] + 1,
        )

    async def heartbeat(self, request: Request, caller: Caller, body: bytes, job_id: str) -> Any:
        """POST /jobs/{id}/heartbeat."""
        values = reading.json_object(body or b"{}", 422)
        job = self.leased("heartbeat", reading.epoch(request, values), caller, job_id)
        job = self.store.write(job, lease_until=time.time() + job["lease_seconds"])
        return {"ok": True, "lease_until": int(job["lease_until"]), "lease_epoch": job["lease_epoch"]}

    async def release(self, request: Request, caller: Caller, body: bytes, job_id: str) -> Any:
        """POST /jobs/{id}/release."""
        values = reading.json_object(body or b"{}", 422)
        reason = reading.optional_text(values, "reason", 422) or ""
        require(len(reason.encode()) <= 1024, 413, "reason too large")
        job = self.leased("release", reading.epoch(request, values), caller, job_id)
        self.give_back(job)
        return {"ok": True, "status": "queued"}

    def give_back(self, job: Job) -> None:
        """Queue a job again that was not tried."""
        self.store.write(job, **QUEUED, attempts=job["attempts"] - 1)

    async def result(self, request: Request, caller: Caller, body: bytes, job_id: str) -> Any:
        """POST /jobs/{id}/result."""
        values = reading.json_object(body, 422)
        if "result" not in values:
            reading.invalid(422, "missing", "result", values)
        result = reading.text(values, "result", 422)
        require(len(result.encode()) <= MAX_TEXT, 413, "result too large")
        ended = {"status": "done", "outcome": "done", "result": result}
        return self.end("result", reading.epoch(request, values), caller, job_id, ended)

    async def fail(self, request: Request, caller: Caller, body: bytes, job_id: str) -> Any:
        """POST /jobs/{id}/fail."""
        values = {"error": ""} | reading.json_object(body, 422)
        error = reading.text(values, "error", 422).strip() or "unknown"
        require(len(error.encode()) <= MAX_TEXT, 413, "error too large")
        ended = {"status": "failed", "outcome": "failed", "error": error}
        return self.end("fail", reading.epoch(request, values), caller, job_id, ended)

    async def held(self, _request: Request, caller: Caller, body: bytes) -> Any:
        """POST /jobs/held."""
        values = reading.json_object(body, 422)
        require(caller.name, 400, "X-Worker-Id is missing")
        listed = values.get("held")
        if not isinstance(listed, list) or len(listed) > 1000 or not all(isinstance(lease, dict) for lease in listed):
            reading.invalid(422, "list_type", "held")
        for lease in listed:
            if type(lease.get("lease_epoch")) is not int or lease["lease_epoch"] < 0:
                reading.invalid(422, "int_type", "lease_epoch")
            reading.text({"id": None} | lease, "id", 422)
        self.dismissals[caller.name] += 1
        self.store.wake()
        leases = [(lease["id"], lease["lease_epoch"]) for lease in listed]
        lost = [job for job in self.running() if job["worker_id"] == caller.name]
        lost = [job for job in lost if (job["id"], job["lease_epoch"]) not in leases]
        for job in lost:
            self.take_back(job)
        return {"released": [job["id"] for job in lost]}

    def find(self, job_id: str) -> Any:
        """The job."""
        require(job_id in self.store.jobs, 404, "job not found")
        return self.store.jobs[job_id]

    def running(self) -> list[Job]:
        """The jobs that somebody runs."""
        return [job for job in self.store.jobs.values() if job["status"] == "running"]

    def leased(self, call: str, epoch: int | None, caller: Caller, job_id: str) -> Any:
        """The job, if the caller holds its current lease."""
        job = self.find(job_id)
        require(job["status"] == "running", 409, f"job not in running state: {job['status']}")
        require(epoch in (None, job["lease_epoch"]), 409, f"{call} with a stale epoch")
        require(caller.name in (None, job["worker_id"]), 409, f"{call} of a job that another worker holds")
        return job

    def end(self, call: str, epoch: int | None, caller: Caller, job_id: str, ended: Job) -> Any:
        """End a job. What comes from elsewhere or later is told so, and changes nothing."""
        job = self.find(job_id)
        status = job["status"]
        require(epoch in (None, job["lease_epoch"]), 409, f"{call} with a stale epoch")
        if status == ended["status"]:
            return {"ok": True, "status": status}
        if status in ("done", "failed"):
            return {"ok": True, "status": status, "note": f"already {status}; {call} ignored"}
        if status == "queued" and (call == "result" or job["lease_epoch"] > 0):
            raise RefusedError(400 if epoch is None else 409, "job not in running state: queued")
        if status == "running" and caller.name not in (None, job["worker_id"]):
            require(epoch is None, 409, f"{call} of a job that another worker holds")
            return {"ok": True, "status": status, "note": f"held by another worker; {call} ignored"}
        if status == "running" and ended["status"] == "failed" and job["retry_seconds"]:
            return {"ok": True, "status": tasks.retry(self, job, ended["error"])}
        self.store.write(job, **ended, finished_at=time.time(), lease_until=None)
        return {"ok": True, "status": ended["status"]}

    def take_back(self, job: Job) -> None:
        """End a lease that was lost."""
        self.lost += 1
        if job["attempts"] < job["max_deliveries"]:
            self.store.write(job, **QUEUED)
            return
        error = f"lease lost by worker {job['worker_id']} on delivery {job['attempts']} of {job['max_deliveries']}"
        ended = {"status": "failed", "outcome": "dead", "error": error}
        self.store.write(job, **ended, finished_at=time.time(), lease_until=None)

    async def keep_leases(self) -> None:
        """Take lost leases back, for ever."""
        while True:
            await asyncio.sleep(0.02)
            for job in self.running():
                if job["lease_until"] < time.time():
                    self.dismissals[job["worker_id"]] += 1
                    self.lines.end(job["worker_id"], 4408)
                    self.take_back(job)
            for job in [*self.store.jobs.values()]:
                if job["not_before"] and job["not_before"] < time.time():
                    self.store.write(job, not_before=None)
                if self.kept_seconds and job["finished_at"] and job["finished_at"] < time.time() - self.kept_seconds:
                    self.store.drop(job["id"])


def shown(job: Job) -> Job:
    """What is shown of a job."""
    public = {key: int(job[key]) if key in TIMES and job[key] is not None else job[key] for key in KEYS}
    if job["started_at"] and job["finished_at"]:
        public["duration_ms"] = round((job["finished_at"] - job["started_at"]) * 1000)
    return public


DOCUMENT = json.loads(Path("broker_app/openapi.json").read_bytes())
CALLS: dict[str, Callable[..., Any]] = {
    "POST /jobs": Broker.submit,
    "GET /jobs": Broker.browse,
    "GET /agents": Broker.agents,
    "GET /jobs/next": Broker.claim,
    "POST /jobs/held": Broker.held,
    "GET /jobs/{id}": Broker.look,
    "POST /jobs/{id}/heartbeat": Broker.heartbeat,
    "POST /jobs/{id}/release": Broker.release,
    "POST /jobs/{id}/result": Broker.result,
    "POST /jobs/{id}/fail": Broker.fail,
    **native.CALLS,
    **hub.CALLS,
}
GOOD_FOR = {"worker": ["worker"], "bot": ["bot", "admin"], "admin": ["admin"]}
ROLES = {
    "POST /jobs": ["bot"],
    "GET /jobs": ["bot"],
    "GET /agents": ["bot"],
    "GET /jobs/next": ["worker"],
    "POST /jobs/held": ["worker"],
    "GET /jobs/{id}": ["bot", "worker"],
    "POST /jobs/{id}/heartbeat": ["worker"],
    "POST /jobs/{id}/release": ["worker"],
    "POST /jobs/{id}/result": ["worker"],
    "POST /jobs/{id}/fail": ["worker"],
    **native.ROLES,
    **hub.ROLES,
}
