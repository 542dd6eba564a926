"""docs/dialects.md says what there is."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from broker_app.app import DIALECTS
from broker_app.dialects import hub_envelopes, jobs_answers, tasks_answers
from broker_app.dialects.jobs import MAX_BATCH, MAX_PAYLOAD_BYTES, MAX_PRIORITY, MAX_WAIT_SECONDS
from broker_app.dialects.tasks import LEASE_SECONDS, MAX_LEASE_SECONDS, MIN_LEASE_SECONDS
from broker_app.queue.job import Job, Lease, cancel, deliver, expire, fail, finish
from broker_app.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Callable

    from broker_app.dialects import Dialect

TEXT = (Path(__file__).parents[3] / "docs/dialects.md").read_text(encoding="utf-8")
QUEUED = Job(id="j", dialect="jobs", command="ping", created_at=1, lease_seconds=7, max_deliveries=1)
RUNNING = deliver(QUEUED, "w", 2)
STATES = {
    "queued": QUEUED,
    "running": RUNNING,
    "done": finish(RUNNING, Lease(), "r", 3),
    "failed": fail(RUNNING, Lease(), "e", 3),
    "cancelled": cancel(RUNNING, "why", 3),
    "dead": expire(RUNNING, 9),
}
DEFAULTS: dict[str, Callable[[Settings], int]] = {
    "LEASE_SECONDS": lambda settings: settings.lease_seconds,
    "MAX_REQUEST_BODY_BYTES": lambda settings: settings.max_body_bytes,
    "MAX_RESULT_BYTES": lambda settings: settings.max_result_bytes,
}
SHOWN: dict[str, Callable[[Job], str]] = {
    "jobs": lambda job: str(jobs_answers.job_object(job)["status"]),
    "tasks": lambda job: str(tasks_answers.task_object(job)["status"]),
    "hub": hub_envelopes.word,
}


def table(heading: str) -> dict[str, dict[str, str]]:
    """The first table below a heading: by its first column, each row's cells by their column."""
    lines = TEXT.partition(f"\n## {heading}\n")[2].splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith("|"))
    rows = []
    for line in lines[start:]:
        if not line.startswith("|"):
            break
        rows.append([cell.strip() for cell in line.strip("|").split("|")])
    columns, _, *body = rows
    assert all(len(row) == len(columns) for row in body)
    assert len({row[0] for row in body}) == len(body)
    return {row[0].strip("`"): dict(zip(columns, row, strict=True)) for row in body}


def test_every_dialect_is_in_it() -> None:
    names = {dialect.name for dialect in DIALECTS}
    assert names <= set(table("Words")["queued"])
    assert set(SHOWN) == names


@pytest.mark.parametrize("dialect", SHOWN)
def test_words(dialect: str) -> None:
    words = table("Words")
    for state, job in STATES.items():
        word = re.match("`([a-z_]+)`", words[state][dialect])
        assert word is not None
        assert SHOWN[dialect](job) == word[1]


@pytest.mark.parametrize("dialect", DIALECTS, ids=lambda dialect: dialect.name)
def test_calls_and_their_roles(dialect: Dialect) -> None:
    written = {
        call: set(row["roles"].split(", "))
        for call, row in table("Calls").items()
        if row["dialect"] == dialect.name and not call.startswith("WEBSOCKET")
    }
    assert written == {f"{call.method} {call.path}": set(call.roles) for call in dialect.calls}


def test_defaults_and_limits() -> None:
    rows = table("Leases, tries and limits")
    settings = Settings.from_environment({})
    for name, row, unit in (
        ("LEASE_SECONDS", "lease_seconds", 1),
        ("MAX_REQUEST_BODY_BYTES", "a body", 1024),
        ("MAX_RESULT_BYTES", "a result or error", 1024),
    ):
        cell = rows[row]["jobs"]
        number = re.search(r"\d+", cell)
        assert number is not None
        assert f"`{name}`" in cell
        assert int(number[0]) * unit == DEFAULTS[name](settings)
    assert rows["lease_seconds"]["tasks"].startswith(f"{LEASE_SECONDS};")
    assert f"{MIN_LEASE_SECONDS} to {MAX_LEASE_SECONDS}" in rows["lease_seconds"]["tasks"]
    assert rows["retry_seconds"]["tasks"] == f"`TASKS_RETRY_SECONDS` ({settings.tasks_retry_seconds})"
    assert rows["a payload"]["jobs"] == f"{MAX_PAYLOAD_BYTES // 1024} KiB"
    assert f"up to {MAX_WAIT_SECONDS} s" in rows["a long poll"]["jobs"]
    assert f"-{MAX_PRIORITY} to {MAX_PRIORITY} " in rows["priority"]["jobs"]
    assert rows["at once"]["jobs"].startswith(f"{MAX_BATCH} jobs")
    days = settings.retention_seconds // 86400
    assert rows["kept after the end"]["jobs"] == f"{days} days (`JOB_RETENTION_SECONDS`)"
