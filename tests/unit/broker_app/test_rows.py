"""Jobs as rows."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace
from typing import TYPE_CHECKING

from broker_app.queue.job import Job, Lease, Outcome, Route, Status, deliver, finish
from broker_app.queue.rows import INSERT, inserted, job_of, update
from broker_app.schema import connect

if TYPE_CHECKING:
    from pathlib import Path

JOB = Job(id="a", dialect="jobs", command="ping", created_at=1.0, lease_seconds=60, max_deliveries=5)
FULL = replace(
    JOB,
    payload="p",
    requires="r",
    route=Route("agent", frozenset({"x", "y"})),
    retry_seconds=3,
    priority=-4,
    submitter="s",
    idempotency_key="k",
    fingerprint="f",
    not_before=5.5,
    status=Status.FAILED,
    outcome=Outcome.DEAD,
    started_at=6.5,
    finished_at=7.5,
    lease_until=8.5,
    heartbeat_at=9.5,
    lease_epoch=10,
    attempts=11,
    worker="w",
    progress=12,
    progress_note="n",
    result="res",
    error="err",
)


def test_a_job_comes_back_as_it_was_kept(tmp_path: Path) -> None:
    with closing(connect(tmp_path / "db")) as connection:
        for job in (JOB, replace(FULL, id="b")):
            connection.execute(INSERT, inserted(job))
        kept = [job_of(row) for row in connection.execute("SELECT * FROM jobs ORDER BY id")]
    assert kept == [JOB, replace(FULL, id="b")]
    assert [(type(job.status), type(job.outcome)) for job in kept] == [(Status, type(None)), (Status, Outcome)]


def test_every_change_is_written(tmp_path: Path) -> None:
    after = replace(
        FULL, **{name: getattr(JOB, name) for name in ("payload", "requires", "retry_seconds", "priority", "submitter")}
    )
    after = replace(after, idempotency_key=None, fingerprint=None, route=Route("agent"))
    with closing(connect(tmp_path / "db")) as connection:
        connection.execute(INSERT, inserted(JOB))
        connection.execute(*update(JOB, after))
        assert job_of(connection.execute("SELECT * FROM jobs").fetchone()) == after


def test_an_update_names_only_what_differs() -> None:
    running = deliver(JOB, "w", 2.0)
    statement, values = update(running, finish(running, Lease(), "done", 3.0))
    assert (
        statement
        == "UPDATE jobs SET status = ?, outcome = ?, finished_at = ?, lease_until = ?, result = ? WHERE id = ?"
    )
    assert values == ("done", "done", 3.0, None, "done", "a")
