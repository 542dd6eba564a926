"""The hub's calls, and its lines over WebSocket."""

from __future__ import annotations

import asyncio
import json
import re
import time
import uuid
from collections import Counter, defaultdict
from contextlib import suppress
from itertools import count
from typing import TYPE_CHECKING, Any

from tests.contract.reference import frames, reading
from tests.contract.reference.http import RefusedError, require

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.contract.reference.http import Request

    Job = dict[str, Any]

TYPE = re.compile("[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
WORDS = {"queued": "sent", "running": "running", "done": "completed"}
MAX_MESSAGE = 65536


def kept(value: dict[str, Any]) -> str:
    """The text that an object is kept as."""
    reading.shallow(value, 400)
    if value.keys() == {"text"} and isinstance(value["text"], str) and shown(value["text"]) == value:
        return str(value["text"])
    return json.dumps(value) if value else ""


def shown(text: str) -> dict[str, Any]:
    """The object that a text is shown as."""
    with suppress(ValueError):
        value = json.loads(text) if text else {}
        if isinstance(value, dict):
            return value
    return {"text": text}


async def register(broker: Any, request: Request, _caller: Any, body: bytes) -> Any:
    """POST /agents/register."""
    values = reading.json_object(body, 400)
    name, metadata = values.get("agentId"), values.get("metadata")
    require(isinstance(name, str) and reading.NAME.fullmatch(name) and name != "hub", 400, "agentId must be a name")
    metadata = {} if metadata is None else metadata
    require(isinstance(metadata, dict), 400, "metadata must be an object")
    require(len(json.dumps(metadata)) <= 16384, 400, "metadata too large")
    kind, capabilities = metadata.pop("type", None), metadata.pop("capabilities", None) or []
    require(kind is None or (isinstance(kind, str) and TYPE.fullmatch(kind)), 400, "type must be a name")
    require(isinstance(capabilities, list), 400, "capabilities must be names")
    names = reading.capabilities(json.dumps(capabilities))
    require(broker.store.count(name) < 2, 409, "it has two tokens already")
    broker.store.know(name, type=kind, capabilities=sorted(names or []), metadata=metadata)
    token = broker.store.mint(name, "worker")
    url = f"ws://{request.headers['host']}/agent/{name}/{token}"
    return {"agent": broker.agent(name), "token": token, "wsUrl": url}


async def status(broker: Any, _request: Request, _caller: Any, _body: bytes, name: str) -> Any:
    """GET /agents/{id}/status."""
    require(name in broker.names(), 404, "agent not found")
    return {"agent": broker.agent(name)}


async def task(broker: Any, _request: Request, caller: Any, body: bytes, name: str) -> Any:
    """POST /agents/{id}/task."""
    values = reading.json_object(body, 400)
    command = values.pop("type", None)
    payload = kept(values)
    require(name in broker.names(), 404, "agent not found")
    submission = broker.order({"command": command, "payload": payload, "agent": name})
    (job,) = broker.enqueue(caller.name, [submission | {"dialect": "hub"}])
    return {"taskId": job["id"], "status": "sent"}


async def log(broker: Any, request: Request, _caller: Any, _body: bytes, name: str) -> Any:
    """GET /agents/{id}/log."""
    after = reading.number("after", request.query.get("after"), 0, 2**53, 0)
    lines = reading.number("lines", request.query.get("lines"), 1, 1000, 100)
    require(name in broker.names(), 404, "agent not found")
    return {"lines": [entry for entry in broker.lines.logs[name][-1000:] if entry["n"] > after][-lines:]}


async def cordon(broker: Any, request: Request, _caller: Any, _body: bytes, name: str) -> Any:
    """POST /agents/{id}/cordon and uncordon."""
    require(name in broker.names(), 404, "agent not found")
    broker.store.know(name, cordoned=request.path.endswith("/cordon"))
    return {"agent": broker.agent(name)}


async def remove(broker: Any, request: Request, _caller: Any, _body: bytes, name: str) -> Any:
    """DELETE /agents/{id}."""
    requeue = request.query.get("requeue", "0")
    require(requeue in ("0", "1"), 400, "requeue must be 0 or 1")
    require(not broker.store.configured(name), 409, "remove its key from AGENT_API_KEYS first")
    require(name in broker.names(), 404, "agent not found")
    broker.store.forget(name)
    broker.lines.end(name, 4410)
    for job in broker.running():
        if job["worker_id"] == name:
            broker.take_back(job)
    jobs = [job for job in broker.store.jobs.values() if job["status"] == "queued" and job["agent"] == name]
    for job in jobs:
        ended = {"status": "failed", "outcome": "cancelled", "error": f"agent {name} was removed"}
        broker.store.write(job, **({"agent": None} if requeue == "1" else {**ended, "finished_at": time.time()}))
    ids = [job["id"] for job in jobs]
    return {"ok": True, "cancelled": [] if requeue == "1" else ids, "requeued": ids if requeue == "1" else []}


def metrics(broker: Any) -> str:
    """GET /metrics."""
    jobs = list(broker.store.jobs.values())
    agents = Counter(broker.agent(name)["status"] for name in broker.names())
    ready = [job for job in jobs if job["status"] == "queued"]
    running = len(broker.running())
    found = {
        f'vm_hub_messages_total{{direction="{way}",type="{kind}"}}': n for (way, kind), n in broker.lines.counts.items()
    }
    found |= {f'vm_hub_agents{{status="{word}"}}': agents[word] for word in ("online", "offline")}
    found |= {"vm_hub_active_tasks": running, 'openclaw_jobs{state="running"}': running}
    found |= {'openclaw_jobs{state="ready"}': len(ready), "openclaw_jobs_submitted_total": len(jobs)}
    found |= {"openclaw_jobs_delivered_total": sum(job["lease_epoch"] for job in jobs)}
    found |= {"openclaw_jobs_done_total": sum(job["status"] == "done" for job in jobs)}
    found |= {"openclaw_leases_lost_total": broker.lost}
    found |= {
        "openclaw_oldest_ready_job_seconds": time.time()
        - min([job["created_at"] for job in ready], default=time.time())
    }
    return "".join(f"{name} {value}\n" for name, value in found.items())


class Line:
    """One agent's line."""

    def __init__(
        self, name: str, trusted: Callable[[], bool], caps: frozenset[str], slots: int, writer: asyncio.StreamWriter
    ) -> None:
        self.name = name
        self.trusted = trusted
        self.caps = caps
        self.slots = slots
        self.writer = writer
        self.given: dict[str, int] = {}
        self.greeted = False
        self.pong = asyncio.Event()


class Lines:
    """Every agent's line."""

    def __init__(self, broker: Any) -> None:
        self.broker = broker
        self.store = broker.store
        self.lines: dict[str, Line] = {}
        self.counts: Counter[tuple[str, str]] = Counter()
        self.numbers = count(1)
        self.logs: defaultdict[str, list[dict[str, Any]]] = defaultdict(list)

    async def serve(self, request: Request, writer: asyncio.StreamWriter) -> None:
        """Serve one line."""
        frames.accept(writer, request.headers["sec-websocket-key"])
        try:
            line = self.admit(request, writer)
        except RefusedError as refusal:
            frames.close(writer, refusal.status)
            return
        self.end(line.name, 4409)
        self.lines[line.name] = line
        pump = asyncio.create_task(self.pump(line))
        try:
            await self.listen(line, request.reader)
        except frames.TooLargeError:
            frames.close(writer, 1009)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            pump.cancel()
            if self.lines.get(line.name) is line:
                del self.lines[line.name]

    def admit(self, request: Request, writer: asyncio.StreamWriter) -> Line:
        """The line, if its agent may have one."""
        _, _, name, *rest = request.path.split("/")
        bearer = request.headers.get("authorization", "").removeprefix("Bearer ")
        token = rest[0] if rest else bearer
        owner = first = self.store.owner("worker", token)
        require(owner, 4401, "bad token")
        require(owner == name, 4403, "another's name")
        slots = request.query.get("slots", "1")
        require(re.fullmatch("[0-9]+", slots), 1008, "slots must be a number")
        self.store.saw(name, None, None)
        caps = frozenset(self.store.agents[name]["capabilities"])
        return Line(name, lambda: self.store.owner("worker", token) == first, caps, int(slots), writer)

    def good(self, line: Line) -> bool:
        """Whether a line is open; it ends here where its token was revoked."""
        if self.lines.get(line.name) is line and not line.trusted():
            self.end(line.name, 4401)
        return self.lines.get(line.name) is line

    def end(self, name: str, code: int) -> None:
        """Close an agent's line."""
        if line := self.lines.pop(name, None):
            frames.close(line.writer, code)
            line.writer.close()

    def send(self, line: Line, kind: str, payload: dict[str, Any]) -> None:
        """Send an envelope of the hub's own."""
        self.counts["out", kind] += 1
        envelope: dict[str, Any] = {"id": str(uuid.uuid4()), "from": "hub", "to": line.name, "type": kind}
        envelope |= {"timestamp": int(time.time() * 1000), "payload": payload}
        frames.send(line.writer, frames.TEXT, json.dumps(envelope).encode())

    def cancel(self, job: Job, reason: str) -> None:
        """Tell whoever runs a job that it is cancelled."""
        line = self.lines.get(job["worker_id"] or "")
        if line and line.given.get(job["id"]) == job["lease_epoch"] and job["status"] == "running":
            self.send(line, "cancel", {"taskId": job["id"], "leaseEpoch": job["lease_epoch"], "reason": reason})

    async def pump(self, line: Line) -> None:
        """Hand out jobs and messages."""
        while self.good(line):
            changed = self.store.changed
            await self.bring(line)
            held = [job for job in self.broker.running() if job["worker_id"] == line.name]
            if len(held) < line.slots and (job := self.broker.next(line)):
                line.given[job["id"]] = job["lease_epoch"]
                identity = {"type": job["command"], "taskId": job["id"]}
                lease = {"leaseEpoch": job["lease_epoch"], "leaseSeconds": job["lease_seconds"]}
                lease["maxDeliveries"] = job["max_deliveries"]
                self.send(line, "task", shown(job["payload"]) | identity | lease)
                continue
            await changed.wait()

    async def bring(self, line: Line) -> None:
        """Send what waits for an agent, and forget it once it was read."""
        waiting = self.store.waiting(line.name)
        for _, envelope in waiting:
            frames.send(line.writer, frames.TEXT, envelope.encode())
        if waiting:
            line.pong.clear()
            frames.send(line.writer, frames.PING, b"read?")
            await line.pong.wait()
            self.store.received([n for n, _ in waiting])

    async def listen(self, line: Line, reader: asyncio.StreamReader) -> None:
        """Take what an agent says."""
        began, count = time.monotonic(), 0
        while True:
            opcode, data = await frames.receive(reader, self.broker.max_body)
            if opcode == frames.CLOSE:
                frames.send(line.writer, frames.CLOSE, data)
                return
            if opcode == frames.PONG:
                line.pong.set()
            if opcode not in (frames.TEXT, frames.BINARY):
                continue
            count += 1
            await asyncio.sleep(max(0.0, (count - 100) / 50 - (time.monotonic() - began)))
            if self.good(line):
                self.answer(line, opcode, data)

    def answer(self, line: Line, opcode: int, data: bytes) -> None:
        """Do what an envelope asks for, and say so."""
        known: dict[str, Any] = {"id": None}
        try:
            require(opcode == frames.TEXT, 400, "an envelope is a text")
            envelope = self.read(line, data)
            known["id"] = envelope["id"]
            self.counts["in", envelope["type"]] += 1
            self.store.saw(line.name, None, None)
            said = HEAR[envelope["type"]] if envelope["to"] == "hub" else Lines.post
            facts = said(self, line, envelope)
            if facts is not None:
                self.send(line, "ack", known | facts)
        except RefusedError as refusal:
            self.send(line, "error", known | {"error": str(refusal.detail)} | refusal.headers)

    def read(self, line: Line, data: bytes) -> dict[str, Any]:
        """An envelope."""
        values = {"from": line.name, "to": "hub", "payload": {}} | reading.json_object(data, 400)
        require(reading.text({"id": None} | values, "id", 400), 400, "id must be a text")
        require(values["from"] == line.name, 400, "from must be the agent")
        require(isinstance(values["payload"], dict), 400, "payload must be an object")
        require(isinstance(values["to"], str) and reading.NAME.fullmatch(values["to"]), 400, "to must be a name")
        require(values.get("type") in HEAR, 400, "type must be one of four")
        return values

    def respond(self, line: Line, envelope: dict[str, Any]) -> dict[str, Any]:
        """A `response`."""
        said = envelope["payload"]
        job_id, epoch = reading.text({"taskId": None} | said, "taskId", 400), said.get("leaseEpoch")
        require(job_id in self.store.jobs, 404, "job not found")
        job = self.store.jobs[job_id]
        stale = {"taskId": job_id, "status": WORDS.get(job["status"], job["outcome"])}
        require(epoch in (None, job["lease_epoch"]), 409, "stale lease epoch", stale)
        mine = job["worker_id"] == line.name
        if said.get("released") is True:
            require(mine and job["status"] == "running", 409, "not held", stale)
            self.broker.give_back(job)
            return {"taskId": job_id, "status": "sent"}
        require(isinstance(said.get("success"), bool), 400, "success must be true or false")
        if job["outcome"] is None:
            require(mine and job["status"] == "running", 409, "not held", stale)
            job = self.store.write(job, **self.ended(said), finished_at=time.time(), lease_until=None)
        return {"taskId": job_id, "status": WORDS.get(job["status"], job["outcome"])}

    def ended(self, said: dict[str, Any]) -> dict[str, Any]:
        """What a job ends with."""
        value = said.get("result" if said["success"] else "error")
        text = (
            value or ""
            if isinstance(value, str | None)
            else kept(value)
            if isinstance(value, dict)
            else json.dumps(value)
        )
        require(len(text.encode()) <= self.broker.max_result, 413, "result too large")
        if said["success"]:
            return {"status": "done", "outcome": "done", "result": text}
        return {"status": "failed", "outcome": "failed", "error": text or "unknown"}

    def health(self, line: Line, envelope: dict[str, Any]) -> dict[str, Any]:
        """A `health`."""
        said, listed = envelope["payload"], envelope["payload"].get("tasks")
        measures = {name: said[name] for name in ("cpu", "memory", "disk") if name in said}
        require(all(isinstance(value, int | float | dict) for value in measures.values()), 400, "no measures")
        slots = said.get("slots", line.slots)
        require(type(slots) is int and 0 <= slots <= 64, 400, "slots must be from 0 to 64")
        line.slots = slots
        self.store.wake()
        require(len(json.dumps(measures)) <= 4096, 413, "health too large")
        for lease in listed or []:
            require(type(lease.get("leaseEpoch")) is int, 400, "leaseEpoch: Field required")
        leases = line.given if listed is None else {lease["taskId"]: lease["leaseEpoch"] for lease in listed}
        self.store.know(line.name, health=measures | {"at": int(time.time())})
        mine = self.held_by(line)
        if listed is not None and not line.greeted:
            for job_id in mine.keys() - leases.keys() - line.given.keys():
                self.broker.take_back(mine[job_id])
            line.greeted = True
            mine = self.held_by(line)
        held = [job_id for job_id, epoch in leases.items() if job_id in mine and mine[job_id]["lease_epoch"] == epoch]
        for job_id in held:
            self.store.write(mine[job_id], lease_until=time.time() + mine[job_id]["lease_seconds"])
        return {"held": sorted(held), "lost": sorted(leases.keys() - set(held))}

    def held_by(self, line: Line) -> dict[str, Job]:
        """What an agent runs."""
        return {job["id"]: job for job in self.broker.running() if job["worker_id"] == line.name}

    def log(self, line: Line, envelope: dict[str, Any]) -> None:
        """A `log`."""
        texts = envelope["payload"].get("lines")
        require(isinstance(texts, list) and all(isinstance(text, str) for text in texts), 400, "lines must be texts")
        for text in texts:
            entry = {"n": next(self.numbers), "at": int(time.time()), "taskId": envelope["payload"].get("taskId")}
            self.logs[line.name].append(entry | {"text": text[:4096]})

    def task(self, _line: Line, _envelope: dict[str, Any]) -> None:
        """A `task`, which is for agents."""
        raise RefusedError(400, "the hub runs no tasks")

    def post(self, line: Line, envelope: dict[str, Any]) -> dict[str, Any]:
        """A message."""
        require(envelope["to"] in self.broker.names(), 404, "agent not found")
        text = json.dumps(envelope | {"timestamp": int(time.time() * 1000)})
        require(len(text) <= MAX_MESSAGE, 413, "message too large")
        self.store.post(envelope["to"], line.name, envelope["id"], text)
        return {"status": "sent"}


HEAR: dict[str, Callable[..., Any]] = {
    "task": Lines.task,
    "response": Lines.respond,
    "health": Lines.health,
    "log": Lines.log,
}
CALLS: dict[str, Callable[..., Any]] = {
    "POST /agents/register": register,
    "GET /agents/{id}/status": status,
    "GET /agents/{id}/log": log,
    "POST /agents/{id}/task": task,
    "POST /agents/{id}/cordon": cordon,
    "POST /agents/{id}/uncordon": cordon,
    "DELETE /agents/{id}": remove,
}
ROLES = {call: ["bot"] if call.endswith(("status", "task", "log")) else ["admin"] for call in CALLS}
