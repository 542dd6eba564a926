"""The tasks dialect's responses."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from broker_app.dialects import Answer
from broker_app.dialects.jobs_answers import malformed, refused_by_queue
from broker_app.dialects.objects import shown
from broker_app.errors import (
    JobNotFoundError,
    LeaseLostError,
    MalformedError,
    NotDeadError,
    NotRunningError,
    StrangerError,
    UnauthorisedError,
)
from broker_app.queue.commands import Fail
from broker_app.queue.job import Outcome, Status

if TYPE_CHECKING:
    from collections.abc import Callable

    from broker_app.agents import Agent
    from broker_app.dialects import Call
    from broker_app.queue.commands import Command
    from broker_app.queue.job import Job
    from broker_app.queue.store import Counts, Page

LEASE_TOKEN = re.compile(r"epoch-([0-9]{1,15})")
STATES: dict[str, tuple[Status, Outcome | None]] = {
    "pending": (Status.QUEUED, None),
    "processing": (Status.RUNNING, None),
    "completed": (Status.DONE, Outcome.DONE),
    "failed": (Status.FAILED, Outcome.FAILED),
    "cancelled": (Status.FAILED, Outcome.CANCELLED),
    "dead_letter": (Status.FAILED, Outcome.DEAD),
}
_WORDS = {state: word for word, state in STATES.items()}


def task_object(job: Job) -> dict[str, Any]:
    """A job as JSON: the seed's keys, then ours."""
    payload = shown(job.payload)
    return {
        "id": job.id,
        "task_type": job.command,
        "lead_id": payload.get("lead_id"),
        "status": _word(job),
        "assigned_to": job.worker,
        "attempts": job.attempts,
        "max_attempts": job.max_deliveries,
        "lease_until": _time(job.lease_until),
        "last_heartbeat_at": _time(job.heartbeat_at),
        "next_retry_at": _time(job.not_before),
        "created_at": _time(job.created_at),
        "completed_at": _time(job.finished_at),
        "error_message": job.error,
        "payload": payload,
        "result": None if job.result is None else shown(job.result),
        "dialect": job.dialect,
    }


def submitted(_command: Command, job: Job) -> Answer:
    """`{"success", "message", "task"}`."""
    return _acknowledged("Task queued", task=task_object(job))


def requeued(_command: Command, job: Job) -> Answer:
    """`{"success", "message", "task"}`."""
    return _acknowledged("Task requeued", task=task_object(job))


def found(_command: Command, job: Job) -> Answer:
    """The task, bare."""
    return Answer(200, task_object(job))


def page(_command: Command, jobs: Page) -> Answer:
    """The tasks, bare as in the seed, so that the next page's cursor is a header."""
    headers = {} if jobs.before is None else {"x-next-cursor": str(jobs.before)}
    return Answer(200, [task_object(job) for job in jobs.jobs], headers)


def pulled(_command: Command, job: Job | None) -> Answer:
    """`{"success", "message", "task"}`, the task with its lease, or null."""
    if job is None:
        return _acknowledged("Queue is empty", task=None)
    payload = shown(job.payload)
    task = {
        "id": job.id,
        "type": job.command,
        "lead_id": payload.get("lead_id"),
        "payload": payload,
        "lease_token": f"epoch-{job.lease_epoch}",
        "lease_until": _time(job.lease_until),
        "max_attempts": job.max_deliveries,
    }
    return _acknowledged(None, task=task)


def renewed(_command: Command, _job: Job) -> Answer:
    """`{"success", "message"}`."""
    return _acknowledged("Heartbeat accepted")


def completed(command: Command, job: Job) -> Answer:
    """`{"success", "message"}`, or 409 for a result that came after the task's end."""
    if isinstance(command, Fail):
        return _acknowledged("Task already completed" if job.status is Status.DONE else "Task failure processed")
    if job.status is Status.FAILED:
        return _finalized(job)
    return _acknowledged("Task completed successfully")


def surveyed(_command: Command, found: tuple[Counts, list[tuple[Agent, bool]], float]) -> Answer:
    """How much there is to do, and who does it."""
    counts, agents, now = found
    workers = [
        {"agent_id": agent.name, "online": online, "last_seen": _time(agent.last_seen)} for agent, online in agents
    ]
    return Answer(
        200,
        {
            "status": "ok",
            "queue_depth": counts.ready + counts.delayed,
            "delayed": counts.delayed,
            "processing": counts.running,
            "dead_letters": counts.dead,
            "oldest_age_seconds": None if counts.oldest is None else max(0, int(now - counts.oldest)),
            "workers": workers,
        },
    )


def refused(error: Exception, _call: Call, _command: Command | None) -> Answer:
    """The answer to an error, in the seed's form `{"detail": ...}`. Raises any that it does not know."""
    for kind, answer in _REFUSALS:
        if isinstance(error, kind):
            return answer(error)
    return refused_by_queue(error)


def _lost(error: LeaseLostError) -> Answer:
    if error.job.finished:
        return _finalized(error.job)
    if error.job.status is not Status.RUNNING:
        return _not_processing(error.job)
    if error.worker != error.job.worker:
        return _refusal(403, "Task is owned by a different agent")
    return _refusal(401, "Invalid lease token")


def _not_processing(job: Job) -> Answer:
    return _refusal(409, f"Task not in processing state ({_word(job)})")


def _finalized(job: Job) -> Answer:
    return _refusal(409, f"Task already finalized as {_word(job)}")


def _refusal(status: int, detail: str) -> Answer:
    return Answer(status, {"detail": detail})


def _acknowledged(message: str | None, **more: Any) -> Answer:
    return Answer(200, {"success": True, "message": message, **more})


def _word(job: Job) -> str:
    return _WORDS[job.status, job.outcome]


def _time(seconds: float | None) -> str | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")


_REFUSALS: tuple[tuple[type[Exception], Callable[[Any], Answer]], ...] = (
    (MalformedError, lambda error: Answer(error.status, {"detail": malformed(error)})),
    (UnauthorisedError, lambda error: _refusal(401, str(error) or "Invalid or missing API key")),
    (StrangerError, lambda error: _refusal(403, str(error))),
    (JobNotFoundError, lambda _: _refusal(404, "Task not found")),
    (NotDeadError, lambda error: _refusal(409, f"Task is not a dead letter ({_word(error.job)})")),
    (NotRunningError, lambda error: _not_processing(error.job)),
    (LeaseLostError, _lost),
)
