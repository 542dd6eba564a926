"""Pages of jobs, newest first, that cost the same however many other jobs there are."""

from __future__ import annotations

from typing import TYPE_CHECKING

from broker_app.queue.job import Job, Status
from broker_app.queue.rows import job_of
from broker_app.queue.store import Page

if TYPE_CHECKING:
    import sqlite3

    from broker_app.queue.commands import Browse

_LOOKS = 5000
_PAGE_CHARACTERS = 2**20
_END = 2**63 - 1
# The index that leads to a filter's jobs, newest first, and the filter.
_FILTERS = {
    "state": ("jobs_of_state", "coalesce(outcome, status) = :state"),
    "failed": ("jobs_failed", "status = 'failed'"),
    "agent": ("jobs_of_agent", "coalesce(worker, agent) = :agent"),
    "command": ("jobs_of_command", "command = :command"),
}


def browse(connection: sqlite3.Connection, query: Browse) -> Page:
    """One page of what is asked for."""
    filters = _filters(query)
    values = {**filters, "limit": query.limit + 1, "before": query.before or _END, "looks": _LOOKS}
    # Of what one filter leaves, any number may be none of the others': a page looks at so many, and no more.
    row = connection.execute(_last_look(*filters), values).fetchone() if len(filters) > 1 else None
    end = row["n"] if row else None
    page = _page(connection.execute(_browse(*filters), {**values, "end": end or 0}), query.limit)
    return Page(page.jobs, page.before or end)


def _filters(query: Browse) -> dict[str, str]:
    """What is asked for by filter, the one to be led by first: most jobs are done, and few are in another state."""
    state = {"state": query.outcome or query.status}
    if query.status is Status.FAILED and query.outcome is None:
        state = {"failed": query.status}
    others = {"agent": query.agent, "command": query.command}
    filters = {**others, **state} if query.status is Status.DONE else {**state, **others}
    return {name: value for name, value in filters.items() if value is not None}


def _browse(*filters: str) -> str:
    return " ".join(("SELECT * FROM jobs", _where(*filters), "AND n >= :end ORDER BY n DESC LIMIT :limit"))


def _last_look(*filters: str) -> str:
    return " ".join(("SELECT n FROM jobs", _where(filters[0]), "ORDER BY n DESC LIMIT 1 OFFSET :looks"))


def _where(*filters: str) -> str:
    """The jobs of the filters, by the index of the first."""
    lead = f"INDEXED BY {_FILTERS[filters[0]][0]}" if filters else ""
    return " ".join((lead, "WHERE", " AND ".join(["n < :before", *(_FILTERS[name][1] for name in filters)])))


def _page(rows: sqlite3.Cursor, limit: int) -> Page:
    """As many rows as the limits allow, and a position if there are more."""
    jobs: list[Job] = []
    size = n = 0
    for row in rows:
        if len(jobs) == limit or size >= _PAGE_CHARACTERS:
            return Page(tuple(jobs), n)
        job, n = job_of(row), row["n"]
        jobs.append(job)
        size += len(job.payload) + len(job.result or "") + len(job.error or "")
    return Page(tuple(jobs), None)
