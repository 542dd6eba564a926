"""What the queue promises, as plainly as can be: the judge of the real one. It shares no code with it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Collection

    from broker_app.queue.commands import Report, Submit
    from broker_app.queue.job import Job, Lease, Worker

# What must be the same of a job here and there.
SEEN = (
    *("status", "outcome", "lease_epoch", "attempts", "worker", "lease_until", "not_before", "started_at"),
    *("finished_at", "result", "error", "progress", "progress_note"),
)


class RefusalError(Exception):
    """The queue must refuse this, with the error of that name."""


@dataclass
class ModelJob:
    """A job. `n` is its place in the line, and its name here."""

    n: int
    order: Submit
    submitter: str | None
    agent: str | None
    status: str = "queued"
    outcome: str | None = None
    lease_epoch: int = 0
    attempts: int = 0
    worker: str | None = None
    lease_until: float | None = None
    not_before: float | None = None
    started_at: float | None = None
    finished_at: float | None = None
    result: str | None = None
    error: str | None = None
    progress: int | None = None
    progress_note: str | None = None
    told: list[tuple[int, int | None, str | None, int | None, str | None]] = field(default_factory=list)

    @property
    def finished(self) -> bool:
        return self.status in ("done", "failed")

    @property
    def ready(self) -> bool:
        return self.status == "queued" and self.not_before is None

    def seen(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in SEEN} | {"agent": self.agent}


def seen(job: Job) -> dict[str, Any]:
    """The real job, likewise."""
    return {name: getattr(job, name) for name in SEEN} | {"agent": job.route.agent}


class Model:
    """A queue. Its calls are the real one's, with a job's number in place of its id."""

    def __init__(self, limit: int, retention: float) -> None:
        self.now = 0.0
        self.paused = False
        self.jobs: dict[int, ModelJob] = {}
        self._limit = limit
        self._retention = retention
        self._submitted = 0

    def submit_all(self, orders: tuple[Submit, ...], submitter: str | None) -> list[ModelJob]:
        keys = {(job.submitter, job.order.idempotency_key): job for job in self.jobs.values()}
        kept: list[ModelJob] = []
        new: list[ModelJob] = []
        for order in orders:
            job = keys.get((submitter, order.idempotency_key)) if order.idempotency_key else None
            if job is None:
                later = order.not_before is not None and order.not_before > self.now
                job = ModelJob(self._submitted + len(new), order, submitter, order.route.agent)
                job.not_before = order.not_before if later else None
                keys[submitter, order.idempotency_key] = job
                new.append(job)
            elif _words(job.order) != _words(order):
                raise RefusalError("KeyReusedError")
            kept.append(job)
        unfinished = sum(not job.finished for job in self.jobs.values())
        if new and unfinished + len(new) > self._limit:
            raise RefusalError("QueueFullError")
        self._submitted += len(new)
        self.jobs |= {job.n: job for job in new}
        return kept

    def first(self, worker: Worker) -> ModelJob | None:
        """The job that the worker must get: of those it may run the highest priority's oldest."""
        may = [job for job in self.jobs.values() if job.ready and self._open(job, worker)]
        return min(may, key=lambda job: (-job.order.priority, job.n), default=None)

    def claim(self, worker: Worker, lease_seconds: int | None = None) -> ModelJob | None:
        job = self.first(worker)
        if job is not None:
            job.status, job.worker, job.started_at = "running", worker.name, self.now
            job.lease_until = self.now + (lease_seconds or job.order.lease_seconds)
            job.lease_epoch += 1
            job.attempts += 1
            job.progress = job.progress_note = job.error = None
        return job

    def renew(self, n: int, lease: Lease, lease_seconds: int | None = None) -> ModelJob:
        job = self._held(n, lease)
        job.lease_until = self.now + (lease_seconds or job.order.lease_seconds)
        return job

    def report(self, n: int, lease: Lease, report: Report) -> ModelJob:
        job = self._held(n, lease)
        if report.percent is not None:
            job.progress = report.percent
        if report.note is not None:
            job.progress_note = report.note
        known = report.offset is not None and any(
            epoch == job.lease_epoch and offset == report.offset for epoch, offset, *_ in job.told
        )
        if report.text and not known:
            job.told.append((job.lease_epoch, report.offset, report.text, None, None))
        if report.percent is not None or report.note is not None:
            job.told.append((job.lease_epoch, None, None, report.percent, report.note))
        return job

    def release(self, n: int, lease: Lease) -> ModelJob:
        job = self._held(n, lease)
        job.attempts -= 1
        return self._queue(job)

    def finish(self, n: int, lease: Lease, result: str) -> ModelJob:
        job = self._reported(n, lease)
        return job if job.finished else self._end(job, "done", result=result)

    def fail(self, n: int, lease: Lease, error: str) -> ModelJob:
        job = self._reported(n, lease)
        if job.finished:
            return job
        if not job.order.retry_seconds:
            return self._end(job, "failed", error=error)
        if job.attempts >= job.order.max_deliveries:
            return self._end(job, "dead", error=error)
        self._queue(job)
        job.not_before = self.now + job.order.retry_seconds * 2 ** (job.attempts - 1)
        job.error = error
        return job

    def cancel(self, n: int, reason: str) -> ModelJob:
        job = self._known(n)
        return job if job.finished else self._end(job, "cancelled", error=reason)

    def requeue(self, n: int) -> ModelJob:
        job = self._known(n)
        if job.outcome != "dead":
            raise RefusalError("NotDeadError")
        job.outcome = job.finished_at = job.error = None
        job.attempts = 0
        return self._queue(job)

    def hold(self, worker: str, leases: Collection[tuple[int, int]]) -> list[ModelJob]:
        running = [job for job in self.jobs.values() if job.status == "running" and job.worker == worker]
        return [self._lose(job) for job in running if (job.n, job.lease_epoch) not in leases]

    def losers(self) -> set[str | None]:
        """Whose leases have ended."""
        return {job.worker for job in self._due() if job.status == "running"}

    def reclaim(self) -> None:
        for job in self._due():
            if job.status == "running":
                self._lose(job)
            else:
                job.not_before = None

    def disown(self, agent: str, reason: str, *, requeue: bool) -> list[ModelJob]:
        jobs = [job for job in self.jobs.values() if job.status == "queued" and job.agent == agent]
        for job in jobs:
            if requeue:
                job.agent = None
            else:
                self._end(job, "cancelled", error=reason)
        return jobs

    def forget(self) -> None:
        oldest = self.now - self._retention
        self.jobs = {n: job for n, job in self.jobs.items() if job.finished_at is None or not job.finished_at < oldest}

    def pause(self, _reason: str) -> None:
        self.paused = True

    def resume(self) -> None:
        self.paused = False

    def _open(self, job: ModelJob, worker: Worker) -> bool:
        able = job.order.route.needs <= worker.capabilities and job.agent in (None, worker.name)
        return able and not (self.paused or worker.cordoned)

    def _due(self) -> list[ModelJob]:
        times = {job.n: job.lease_until or job.not_before for job in self.jobs.values() if not job.finished}
        return [self.jobs[n] for n, time in times.items() if time is not None and time <= self.now]

    def _known(self, n: int) -> ModelJob:
        if n not in self.jobs:
            raise RefusalError("JobNotFoundError")
        return self.jobs[n]

    def _held(self, n: int, lease: Lease) -> ModelJob:
        job = self._known(n)
        if job.status != "running":
            raise RefusalError("NotRunningError")
        if lease.epoch not in (None, job.lease_epoch) or lease.worker not in (None, job.worker):
            raise RefusalError("LeaseLostError")
        return job

    def _reported(self, n: int, lease: Lease) -> ModelJob:
        """As `_held`; but a report on a job that has ended is heard, if it is not of an older lease."""
        job = self._known(n)
        if lease.epoch not in (None, job.lease_epoch):
            raise RefusalError("LeaseLostError")
        return job if job.finished else self._held(n, lease)

    def _lose(self, job: ModelJob) -> ModelJob:
        if job.attempts < job.order.max_deliveries:
            return self._queue(job)
        holder = f"worker {job.worker}" if job.worker else "its worker"
        return self._end(
            job, "dead", error=f"lease lost by {holder} on delivery {job.attempts} of {job.order.max_deliveries}"
        )

    def _queue(self, job: ModelJob) -> ModelJob:
        job.status = "queued"
        job.worker = job.started_at = job.lease_until = job.not_before = None
        return job

    def _end(self, job: ModelJob, outcome: str, *, result: str | None = None, error: str | None = None) -> ModelJob:
        job.status, job.outcome = "done" if outcome == "done" else "failed", outcome
        job.finished_at, job.result, job.error = self.now, result, error
        job.lease_until = job.not_before = None
        return job


def _words(order: Submit) -> Submit:
    """What a repetition must say again; the rest comes from the settings."""
    return replace(order, lease_seconds=0, retry_seconds=0)
