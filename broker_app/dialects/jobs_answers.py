"""The jobs dialect's responses."""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING, Any, TypeGuard

from broker_app.agents import Agent, Role
from broker_app.dialects import Answer
from broker_app.errors import (
    AgentNotFoundError,
    BatchTooLargeError,
    DatabaseError,
    JobNotFoundError,
    KeyReusedError,
    LeaseLostError,
    MalformedError,
    NotDeadError,
    NotRunningError,
    QueueFullError,
    RegistryFullError,
    StorageFullError,
    TokenError,
    TooManySubmissionsError,
    UnauthorisedError,
    WrongIdentityError,
)
from broker_app.queue.commands import Fail, Finish
from broker_app.queue.job import Outcome, Status

if TYPE_CHECKING:
    from broker_app.dialects import Call
    from broker_app.queue.commands import Command
    from broker_app.queue.job import Job
    from broker_app.queue.store import Counts, Event, Page, Pause

_BAD_TOKEN = {
    frozenset({Role.BOT}): "bad bot token",
    frozenset({Role.WORKER}): "bad worker token",
    frozenset({Role.ADMIN}): "bad admin token",
}
_RETRY_SECONDS = "2"
# The first match counts: a kind stands before the kinds that it belongs to.
_STATUSES = {
    WrongIdentityError: 403,
    JobNotFoundError: 404,
    AgentNotFoundError: 404,
    TokenError: 409,
    LeaseLostError: 409,
    NotRunningError: 409,
    NotDeadError: 409,
    BatchTooLargeError: 413,
    KeyReusedError: 422,
    QueueFullError: 429,
    RegistryFullError: 429,
    TooManySubmissionsError: 429,
    StorageFullError: 507,
    DatabaseError: 503,
}


def job_object(job: Job) -> dict[str, Any]:
    """A job as JSON: the seed's twelve keys, then ours. Times are whole epoch seconds."""
    return {
        "id": job.id,
        "created_at": _whole(job.created_at),
        "started_at": _whole(job.started_at),
        "finished_at": _whole(job.finished_at),
        "lease_until": _whole(job.lease_until),
        "status": job.status,
        "command": job.command,
        "payload": job.payload,
        "result": job.result,
        "error": job.error,
        "worker_id": job.worker,
        "requires": job.requires,
        "agent": job.route.agent,
        "dialect": job.dialect,
        "attempts": job.attempts,
        "max_deliveries": job.max_deliveries,
        "lease_epoch": job.lease_epoch,
        "lease_seconds": job.lease_seconds,
        "outcome": job.outcome,
        "duration_ms": _duration(job),
        "priority": job.priority,
        "not_before": _whole(job.not_before),
        "idempotency_key": job.idempotency_key,
        "progress": job.progress,
        "progress_note": job.progress_note,
    }


def event_object(event: Event) -> dict[str, Any]:
    """An event as JSON: a piece of what the job printed, or how far it is. Times are epoch seconds."""
    if event.text is not None:
        return {"id": event.n, "at": event.at, "type": "log", "offset": event.offset, "text": event.text}
    return {"id": event.n, "at": event.at, "type": "progress", "progress": event.percent, "note": event.note}


def agent_object(agent: Agent, online: bool, running: list[str]) -> dict[str, Any]:
    """An agent as JSON, in jobs and hub. Times are whole epoch seconds."""
    return {
        "id": agent.name,
        "status": "online" if online else "offline",
        "last_seen": _whole(agent.last_seen),
        "runner_version": agent.runner_version,
        "capabilities": list(agent.capabilities),
        "running": running,
        "type": agent.type,
        "metadata": agent.metadata,
        "health": None if agent.health is None else {**agent.health, "at": _whole(agent.health_at)},
        "cordoned": agent.cordoned,
    }


def submitted(_command: Command, job: Job) -> Answer:
    """`{"id", "status"}`."""
    return Answer(200, {"id": job.id, "status": job.status})


def submitted_all(_command: Command, jobs: tuple[Job, ...]) -> Answer:
    """`{"jobs": [{"id", "status"}]}`, in the request's order."""
    return Answer(200, {"jobs": [{"id": job.id, "status": job.status} for job in jobs]})


def cancelled(_command: Command, job: Job) -> Answer:
    """`{"ok", "status", "outcome"}`, with a note when the job had ended before."""
    body = {"ok": True, "status": job.status, "outcome": job.outcome}
    return Answer(200, body if job.outcome is Outcome.CANCELLED else {**body, "note": "already ended; cancel ignored"})


def requeued(_command: Command, job: Job) -> Answer:
    """`{"ok", "status"}`."""
    return Answer(200, {"ok": True, "status": job.status})


def reported(_command: Command, _job: Job) -> Answer:
    """`{"ok"}`."""
    return Answer(200, {"ok": True})


def followed(_command: Command, seen: tuple[Job, tuple[Event, ...], int]) -> Answer:
    """`{"status", "outcome", "events", "after"}`; the next call's `after` is the answer's."""
    job, events, after = seen
    shown = [event_object(event) for event in events]
    return Answer(200, {"status": job.status, "outcome": job.outcome, "events": shown, "after": after})


def queue(_command: Command, seen: tuple[Counts, Pause | None]) -> Answer:
    """`{"ready", "delayed", "running", "dead", "oldest", "paused"}`; times are whole epoch seconds."""
    counts, pause = seen
    paused = None if pause is None else {"since": _whole(pause.since), "reason": pause.reason}
    return Answer(200, {**dataclasses.asdict(counts), "oldest": _whole(counts.oldest), "paused": paused})


def done(_command: Command, _nothing: None) -> Answer:
    """`{"ok"}`."""
    return Answer(200, {"ok": True})


def claimed(_command: Command, job: Job | None) -> Answer:
    """`{"job": object or null}`."""
    return Answer(200, {"job": job and job_object(job)})


def found(_command: Command, job: Job) -> Answer:
    """The job object, bare."""
    return Answer(200, job_object(job))


def renewed(_command: Command, job: Job) -> Answer:
    """`{"ok", "lease_until", "lease_epoch"}`."""
    return Answer(200, {"ok": True, "lease_until": _whole(job.lease_until), "lease_epoch": job.lease_epoch})


def released(_command: Command, job: Job) -> Answer:
    """`{"ok", "status"}`."""
    return Answer(200, {"ok": True, "status": job.status})


def taken_back(_command: Command, jobs: tuple[Job, ...]) -> Answer:
    """`{"released": [id, ...]}`."""
    return Answer(200, {"released": [job.id for job in jobs]})


def finished(_command: Command, job: Job) -> Answer:
    """`{"ok", "status"}`, with a note when the job had failed before."""
    if job.status is Status.FAILED:
        return _ignored(job, "already failed; result ignored")
    return Answer(200, {"ok": True, "status": job.status})


def failed(_command: Command, job: Job) -> Answer:
    """`{"ok", "status"}`, with a note when the job was done before."""
    if job.status is Status.DONE:
        return _ignored(job, "already done; fail ignored")
    return Answer(200, {"ok": True, "status": job.status})


def page(_command: Command, jobs: Page) -> Answer:
    """`{"jobs", "cursor"}`."""
    cursor = None if jobs.before is None else str(jobs.before)
    return Answer(200, {"jobs": [job_object(job) for job in jobs.jobs], "cursor": cursor})


def agents(_command: Command, known: list[tuple[Agent, bool, list[str]]]) -> Answer:
    """`{"agents": [...]}`, of each agent, whether it is online, and the ids of its running jobs."""
    return Answer(200, {"agents": [agent_object(*entry) for entry in known]})


def refused(error: Exception, call: Call, command: Command | None) -> Answer:
    """The answer to an error, in the seed's form `{"detail": ...}`. Raises any that it does not know."""
    if isinstance(error, MalformedError):
        return Answer(error.status, {"detail": malformed(error)})
    if isinstance(error, UnauthorisedError):
        return Answer(401, {"detail": _BAD_TOKEN.get(call.roles, "bad token")})
    if isinstance(error, LeaseLostError | NotRunningError) and _is_unfenced_report(command):
        return _unfenced(error, command)
    return refused_by_queue(error)


def refused_by_queue(error: Exception) -> Answer:
    """The answer to an error that means the same in every dialect. Raises any that it does not know."""
    for kind, status in _STATUSES.items():
        if isinstance(error, kind):
            return Answer(status, {"detail": str(error)}, _retry_after(error))
    raise error


def malformed(error: MalformedError) -> str | list[dict[str, Any]]:
    """What is wrong with a request, for a `detail`."""
    if error.status == 422:
        where = [error.place, error.field] if error.field else [error.place]
        return [{"type": error.kind, "loc": where, "msg": str(error), "input": error.given}]
    if error.kind == "json_invalid":
        return "invalid JSON"
    return f"{error.field}: {error}" if error.field else str(error)


def _is_unfenced_report(command: Command | None) -> TypeGuard[Finish | Fail]:
    return isinstance(command, Finish | Fail) and command.epoch is None


def _retry_after(error: Exception) -> dict[str, str]:
    if isinstance(error, TooManySubmissionsError):
        return {"retry-after": str(math.ceil(error.retry_after))}
    if isinstance(error, QueueFullError | RegistryFullError | DatabaseError):
        return {"retry-after": _RETRY_SECONDS}
    return {}


def _unfenced(error: LeaseLostError | NotRunningError, command: Finish | Fail) -> Answer:
    """A report without an epoch gets the seed's words: 400 when nobody runs the job, else a note."""
    if isinstance(error, NotRunningError):
        return Answer(400, {"detail": str(error)})
    report = "result" if isinstance(command, Finish) else "fail"
    return _ignored(error.job, f"held by another worker; {report} ignored")


def _ignored(job: Job, note: str) -> Answer:
    return Answer(200, {"ok": True, "status": job.status, "note": note})


def _whole(seconds: float | None) -> int | None:
    return None if seconds is None else int(seconds)


def _duration(job: Job) -> int | None:
    if job.started_at is None or job.finished_at is None:
        return None
    return round((job.finished_at - job.started_at) * 1000)
