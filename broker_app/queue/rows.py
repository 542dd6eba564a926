"""A job as a row of the database, and the other way round."""

from __future__ import annotations

import sqlite3
from operator import attrgetter
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
_STATUSES: dict[str, Status] = {status.value: status for status in Status}
_OUTCOMES: dict[str | None, Outcome | None] = {None: None} | {outcome.value: outcome for outcome in Outcome}
_NO_FIELDS = ("n", "reported")
INSERT = " ".join(("INSERT INTO jobs (", ", ".join(_COLUMNS), ") VALUES (", ", ".join("?" * len(_COLUMNS)), ")"))

_kept = attrgetter(*_KEPT)
_changing = attrgetter("route.agent", *_CHANGING[1:])


def job_of(row: sqlite3.Row) -> Job:
    """The job in a row of all columns.

    Raises:
        sqlite3.DatabaseError: The row is none that was written.
    """
    # A column is found by its name in a row only by looking at each.
    values = dict(zip(row.keys(), row, strict=True))
    for column in _NO_FIELDS:
        del values[column]
    route = route_of(values.pop("agent"), values.pop("needs"))
    try:
        status, outcome = _STATUSES[values.pop("status")], _OUTCOMES[values.pop("outcome")]
    except KeyError as error:
        raise sqlite3.DatabaseError(f"row {row['n']} of jobs makes no sense: {error}") from error
    return Job(**values, route=route, status=status, outcome=outcome)


def inserted(job: Job) -> tuple[Any, ...]:
    """What `INSERT` takes."""
    return (*_kept(job), needs_of(job.route), *_changing(job))


def update(before: Job, after: Job) -> tuple[str, tuple[Any, ...]]:
    """What brings a job's row up to date, and its values.

    It names only what differs: SQLite writes anew each index that has one of the columns named, changed or not.
    """
    pairs = zip(_CHANGING, _changing(before), _changing(after), strict=True)
    changed = {column: value for column, old, value in pairs if value != old}
    columns = ", ".join(f"{column} = ?" for column in changed)
    return " ".join(("UPDATE jobs SET", columns, "WHERE id = ?")), (*changed.values(), after.id)


def route_of(agent: str | None, needs: str) -> Route:
    """The route in two columns."""
    return Route(agent, frozenset(needs.split(",")) if needs else frozenset())


def needs_of(route: Route) -> str:
    """What a route needs, as one column."""
    return ",".join(sorted(route.needs))
