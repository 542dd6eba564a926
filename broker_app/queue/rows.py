"""A job as a row of the database, and the other way round."""

from __future__ import annotations

import sqlite3
from typing import Any

from broker_app.queue.job import Job, Outcome, Route, Status

_KEPT = (
    *("id", "dialect", "command", "payload", "requires", "created_at", "lease_seconds", "max_deliveries"),
    *("retry_seconds", "priority", "submitter", "idempotency_key", "fingerprint"),
)
_CHANGING = (
    *("agent", "status", "outcome", "started_at", "finished_at", "lease_until", "heartbeat_at", "lease_epoch"),
    *("attempts", "worker", "progress", "progress_note", "result", "error", "not_before"),
)
_COLUMNS = (*_KEPT, "needs", *_CHANGING)
INSERT = " ".join(("INSERT INTO jobs (", ", ".join(_COLUMNS), ") VALUES (", ", ".join("?" * len(_COLUMNS)), ")"))
UPDATE = " ".join(("UPDATE jobs SET", ", ".join(f"{column} = ?" for column in _CHANGING), "WHERE id = ?"))


def job_of(row: sqlite3.Row) -> Job:
    """The job in a row of all columns.

    Raises:
        sqlite3.DatabaseError: The row is none that was written.
    """
    try:
        return Job(
            id=row["id"],
            dialect=row["dialect"],
            command=row["command"],
            payload=row["payload"],
            requires=row["requires"],
            route=route_of(row["agent"], row["needs"]),
            created_at=row["created_at"],
            lease_seconds=row["lease_seconds"],
            max_deliveries=row["max_deliveries"],
            retry_seconds=row["retry_seconds"],
            priority=row["priority"],
            submitter=row["submitter"],
            idempotency_key=row["idempotency_key"],
            fingerprint=row["fingerprint"],
            not_before=row["not_before"],
            status=Status(row["status"]),
            outcome=row["outcome"] and Outcome(row["outcome"]),
            started_at=row["started_at"],
            finished_at=row["finished_at"],
            lease_until=row["lease_until"],
            heartbeat_at=row["heartbeat_at"],
            lease_epoch=row["lease_epoch"],
            attempts=row["attempts"],
            worker=row["worker"],
            progress=row["progress"],
            progress_note=row["progress_note"],
            result=row["result"],
            error=row["error"],
        )
    except ValueError as error:
        raise sqlite3.DatabaseError(f"row {row['n']} of jobs makes no sense: {error}") from error


def inserted(job: Job) -> tuple[Any, ...]:
    """What `INSERT` takes."""
    return (*(getattr(job, column) for column in _KEPT), needs_of(job.route), *_changing(job))


def updated(job: Job) -> tuple[Any, ...]:
    """What `UPDATE` takes."""
    return (*_changing(job), job.id)


def route_of(agent: str | None, needs: str) -> Route:
    """The route in two columns."""
    return Route(agent, frozenset(needs.split(",")) if needs else frozenset())


def needs_of(route: Route) -> str:
    """What a route needs, as one column."""
    return ",".join(sorted(route.needs))


def _changing(job: Job) -> tuple[Any, ...]:
    return (job.route.agent, *(getattr(job, column) for column in _CHANGING[1:]))
