"""The tasks dialect, over the same jobs."""

from __future__ import annotations

import json
import os
import random
import re
import time
import uuid
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NoReturn

from tests.contract.reference import broker as jobs
from tests.contract.reference import reading
from tests.contract.reference.http import RefusedError, require

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.contract.reference.http import Request

    Job = dict[str, Any]

TYPE = re.compile("[A-Za-z][A-Za-z0-9:_-]{0,63}")
STATES = {
    "pending": ("queued", None), "processing": ("running", None), "completed": ("done", "done"),
    "failed": ("failed", "failed"), "cancelled": ("failed", "cancelled"), "dead_letter": ("failed", "dead"),
}  # fmt: skip


async def handle(broker: jobs.Broker, request: Request) -> Any:
    """Answer one request."""
    if request.method == "GET" and request.path == "/api/health":
        return {"status": "ok"}
    call, task_id = broker.route(request, CALLS)
    authorization = re.fullmatch(r"bearer +(\S+)", request.headers.get("authorization", ""), re.IGNORECASE)
    bearer, key = authorization[1] if authorization else "", request.headers.get("x-api-key", "")
    roles = ["bot", "admin", "worker"] if "/agents/" in call else ["admin"] if "requeue" in call else ["bot", "admin"]
    admitted = [role for role in roles if owns(broker, role, bearer if role == "worker" else (bearer or key))]
    require(admitted, 401, "Invalid or missing API key")
    name = ""
    if "/agents/" in call:
        name = matching(request, "agent_id", reading.NAME) or wrong("agent_id")
        mine = reading.shared("worker", key or bearer) or broker.store.owner("worker", key or bearer) == name
        require(mine or broker.store.known(name), 403, f"Agent '{name}' is not registered")
        require(mine, 401, "Invalid credentials for agent")
        broker.store.saw(name, "", reading.capabilities(request.headers.get("x-worker-caps")))
    body = await request.body(jobs.MAX_BODY)
    return await CALLS[call](broker, request, name, body, *task_id)


def owns(broker: jobs.Broker, role: str, token: str) -> bool:
    """Whether a token is of a role."""
    return reading.shared(role, token) or broker.store.owner(role, token) is not None


async def submit(broker: jobs.Broker, _request: Request, _name: str, body: bytes) -> Any:
    """POST /api/tasks."""
    values = reading.json_object(body, 422)
    kind = reading.text({"type": None} | values, "type", 422)
    attempts = 5 if values.get("max_attempts") is None else values["max_attempts"]
    payload = objects(values, "payload")
    hint = reading.optional_text(payload, "agent_hint", 422)
    require(not broker.commands or kind in broker.commands, 422, _form("body", "type"))
    if not TYPE.fullmatch(kind) or type(attempts) is not int or not 1 <= attempts <= 100:
        reading.invalid(422, "value_error", "type or max_attempts")
    if hint is not None and not reading.NAME.fullmatch(hint):
        reading.invalid(422, "value_error", "agent_hint")
    broker.bound(None, 1, 1)
    job = dict.fromkeys(jobs.KEYS) | {
        "id": str(uuid.uuid4()), "created_at": time.time(), "status": "queued", "command": kind,
        "payload": bounded("payload", kept(payload)), "agent": hint, "attempts": 0, "max_deliveries": attempts,
        "lease_epoch": 0, "lease_seconds": 300, "needs": [], "dialect": "tasks", "priority": 0,
        "retry_seconds": int(os.environ.get("TASKS_RETRY_SECONDS", "120")), "not_before": None, "heartbeat_at": None,
    }  # fmt: skip
    return {"success": True, "message": "Task queued", "task": task(broker.store.write(job))}


async def browse(broker: jobs.Broker, request: Request, _name: str, _body: bytes) -> Any:
    """GET /api/tasks."""
    word, name, kind = (
        request.query.get("status"),
        matching(request, "agent", reading.NAME),
        matching(request, "type", TYPE),
    )
    limit, before = number(request, "limit", 1, 200, 50), number(request, "cursor", 1, 2**62, 2**62)
    page: list[Job] = []
    if word is not None and word not in STATES:
        wrong("status")
    for n, job in reversed([*enumerate(broker.store.jobs.values(), 1)]):
        shown = task(job)
        if n >= before or name not in (None, job["worker_id"] or job["agent"]) or kind not in (None, job["command"]):
            continue
        if word in (None, shown["status"]):
            if len(page) == limit:
                request.answer_headers["x-next-cursor"] = str(n + 1)
                break
            page.append(shown)
    return page


async def look(broker: jobs.Broker, _request: Request, _name: str, _body: bytes, task_id: str) -> Any:
    """GET /api/tasks/{id}."""
    return task(find(broker, task_id))


async def requeue(broker: jobs.Broker, _request: Request, _name: str, _body: bytes, task_id: str) -> Any:
    """POST /api/tasks/{id}/requeue."""
    job = find(broker, task_id)
    require(job["outcome"] == "dead", 409, f"Task is not a dead letter ({task(job)['status']})")
    job = broker.store.write(job, **jobs.QUEUED, outcome=None, error=None, finished_at=None, attempts=0)
    return {"success": True, "message": "Task requeued", "task": task(job)}


async def survey(broker: jobs.Broker, _request: Request, _name: str, _body: bytes) -> Any:
    """GET /api/health/sequence-worker."""
    pending = [job for job in broker.store.jobs.values() if job["status"] == "queued"]
    ready = [job["created_at"] for job in pending if not job["not_before"]]
    workers = [
        {"agent_id": name, "online": time.time() - agent["last_seen"] < 50, "last_seen": iso(agent["last_seen"])}
        for name, agent in broker.store.agents.items()
    ]
    return {
        "status": "ok", "queue_depth": len(pending), "delayed": len(pending) - len(ready),
        "processing": len(broker.running()),
        "dead_letters": sum(job["outcome"] == "dead" for job in broker.store.jobs.values()),
        "oldest_age_seconds": int(time.time() - min(ready)) if ready else None, "workers": workers,
    }  # fmt: skip


async def pull(broker: jobs.Broker, request: Request, name: str, _body: bytes) -> Any:
    """GET /api/agents/tasks/pull."""
    lease_seconds, wait = number(request, "lease_seconds", 30, 3600, 300), request.query.get("wait", "0")
    if not re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,9})?", wait) or float(wait) > 25:
        wrong("wait")
    deadline = time.monotonic() + float(wait)
    caller = jobs.Caller(name, frozenset(reading.capabilities(request.headers.get("x-worker-caps")) or ()))
    while (job := broker.next(caller, lease_seconds)) is None:
        if not await broker.changed(deadline, request):
            return {"success": True, "message": "Queue is empty", "task": None}
    shown = task(job)
    pulled = {key: shown[key] for key in ("id", "task_type", "lead_id", "payload", "max_attempts")}
    pulled["type"] = pulled.pop("task_type")
    pulled |= {"lease_token": f"lease {job['lease_epoch']}", "lease_until": shown["lease_until"]}
    order = ("id", "type", "lead_id", "payload", "lease_token", "lease_until", "max_attempts")
    return {"success": True, "message": None, "task": {key: pulled[key] for key in order}}


async def heartbeat(broker: jobs.Broker, request: Request, name: str, body: bytes, task_id: str) -> Any:
    """POST /api/agents/tasks/{id}/heartbeat."""
    lease_seconds = number(request, "lease_seconds", 30, 3600, 300)
    job = leased(broker, name, token(reading.json_object(body, 422)), task_id)
    broker.store.write(job, lease_until=time.time() + lease_seconds, heartbeat_at=time.time())
    return {"success": True, "message": "Heartbeat accepted"}


async def complete(broker: jobs.Broker, _request: Request, name: str, body: bytes, task_id: str) -> Any:
    """POST /api/agents/tasks/{id}/complete."""
    values = reading.json_object(body, 422)
    lease, result = token(values), bounded("result", kept(objects(values, "result")))
    error = bounded("error", (reading.optional_text(values, "error", 422) or "").strip() or "task_execution_failed")
    success = values.get("success")
    if type(success) is not bool:
        reading.invalid(422, "bool_type", "success")
    job = find(broker, task_id)
    if job["status"] == "done":
        require(lease == f"lease {job['lease_epoch']}", 409, "Task already finalized as completed")
        return {"success": True, "message": f"Task {'completed successfully' if success else 'already completed'}"}
    require(job["status"] != "failed", 409, f"Task already finalized as {task(job)['status']}")
    job = leased(broker, name, lease, task_id)
    if success:
        broker.store.write(job, status="done", outcome="done", result=result, finished_at=time.time(), lease_until=None)
        return {"success": True, "message": "Task completed successfully"}
    if job["retry_seconds"]:
        retry(broker, job, error)
    else:
        ended = {"status": "failed", "outcome": "failed", "error": error}
        broker.store.write(job, **ended, finished_at=time.time(), lease_until=None)
    return {"success": True, "message": "Task failure processed"}


def retry(broker: jobs.Broker, job: Job, error: str) -> str:
    """Put a failed job off until its next try, or bury it; returns its status."""
    if job["attempts"] < job["max_deliveries"]:
        delay = job["retry_seconds"] * 2 ** (job["attempts"] - 1) * random.uniform(0.9, 1.1)
        broker.store.write(job, **jobs.QUEUED, error=error, not_before=time.time() + delay)
        return "queued"
    dead = {"status": "failed", "outcome": "dead", "error": error}
    broker.store.write(job, **dead, finished_at=time.time(), lease_until=None)
    return "failed"


def find(broker: jobs.Broker, task_id: str) -> Any:
    """The job."""
    require(task_id in broker.store.jobs, 404, "Task not found")
    return broker.store.jobs[task_id]


def leased(broker: jobs.Broker, name: str, lease: str, task_id: str) -> Any:
    """The job, if the agent holds its current lease."""
    job = find(broker, task_id)
    require(job["status"] == "running", 409, f"Task not in processing state ({task(job)['status']})")
    require(job["worker_id"] == name, 403, "Task is owned by a different agent")
    require(lease == f"lease {job['lease_epoch']}", 401, "Invalid lease token")
    return job


def token(values: Job) -> str:
    """The lease token that a report must have."""
    return reading.text({"lease_token": None} | values, "lease_token", 422)


def objects(values: Job, name: str) -> Any:
    """An object among the values, an empty one when it is missing."""
    value = values.get(name) or {}
    if not isinstance(value, dict):
        reading.invalid(422, "dict_type", name)
    return value


def kept(value: Job) -> str:
    """An object as the text of a job."""
    reading.shallow(value, 422)
    text = value.get("text")
    if len(value) == 1 and isinstance(text, str) and shown(text) == value:
        return text
    return json.dumps(value, ensure_ascii=False) if value else ""


def shown(text: str) -> Job:
    """The text of a job as an object."""
    try:
        value = reading.json_object(text.encode(), 400) if text else {}
        reading.shallow(value, 400)
        json.dumps(value, ensure_ascii=False).encode()
    except (RefusedError, UnicodeEncodeError):
        return {"text": text}
    return value


def bounded(name: str, text: str) -> str:
    """A text that is not too long, and is one."""
    reading.text({name: text}, name, 422)
    require(len(text.encode()) <= jobs.MAX_TEXT, 413, f"{name} too large")
    return text


def task(job: Job) -> Job:
    """What is shown of a job."""
    payload = shown(job["payload"])
    return {
        "id": job["id"], "task_type": job["command"], "lead_id": payload.get("lead_id"),
        "status": next(word for word, state in STATES.items() if state == (job["status"], job["outcome"])),
        "assigned_to": job["worker_id"], "attempts": job["attempts"], "max_attempts": job["max_deliveries"],
        "lease_until": iso(job["lease_until"]),
        "last_heartbeat_at": iso(job["heartbeat_at"]) if job["status"] != "queued" else None,
        "next_retry_at": iso(job["not_before"]), "created_at": iso(job["created_at"]),
        "completed_at": iso(job["finished_at"]), "error_message": job["error"], "payload": payload,
        "result": None if job["result"] is None else shown(job["result"]), "dialect": job["dialect"],
    }  # fmt: skip


def iso(moment: float | None) -> str | None:
    """A time, as it is shown."""
    return None if moment is None else datetime.fromtimestamp(moment, UTC).isoformat()


def matching(request: Request, name: str, pattern: re.Pattern[str]) -> str | None:
    """A text in the query."""
    text = request.query.get(name)
    return text if text is None or pattern.fullmatch(text) else wrong(name)


def number(request: Request, name: str, least: int, most: int, default: int) -> int:
    """A number in the query."""
    text = request.query.get(name)
    if text is not None and not (re.fullmatch("[0-9]{1,19}", text) and least <= int(text) <= most):
        wrong(name)
    return default if text is None else int(text)


def wrong(name: str) -> NoReturn:
    """Refuse a query."""
    raise RefusedError(422, _form("query", name))


def _form(place: str, name: str) -> list[Job]:
    return [{"type": "value_error", "loc": [place, name], "msg": f"{name} is not well formed", "input": None}]


CALLS: dict[str, Callable[..., Any]] = {
    "GET /api/health/sequence-worker": survey,
    "GET /api/tasks": browse,
    "POST /api/tasks": submit,
    "GET /api/tasks/{id}": look,
    "POST /api/tasks/{id}/requeue": requeue,
    "GET /api/agents/tasks/pull": pull,
    "POST /api/agents/tasks/{id}/heartbeat": heartbeat,
    "POST /api/agents/tasks/{id}/complete": complete,
}
