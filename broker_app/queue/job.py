"""A job and its legal transitions, as pure functions of the job, the caller's lease and the time.

    queued ──deliver──▶ running ──finish──▶ done
      ▲                  │  │└───fail─────▶ failed (outcome "failed")
      └──release, expire─┘  └────expire───▶ failed (outcome "dead", after the last delivery)

Times are seconds since the epoch, as floats.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import StrEnum

from broker_app.errors import LeaseLostError, NotRunningError


class Status(StrEnum):
    """Where a job stands, in the seed contract's four words."""

    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"


class Outcome(StrEnum):
    """How a job ended; tells apart what `Status` merges."""

    DONE = "done"
    FAILED = "failed"
    DEAD = "dead"


@dataclass(frozen=True, slots=True)
class Worker:
    """Who asks for work: its name (None when the caller gave none) and what it can do."""

    name: str | None = None
    capabilities: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Route:
    """Who may run a job: one named agent, or whoever has every needed capability, or both."""

    agent: str | None = None
    needs: frozenset[str] = frozenset()

    def open_to(self, worker: Worker) -> bool:
        """Whether the worker may run jobs of this route."""
        return self.agent in (None, worker.name) and self.needs <= worker.capabilities


@dataclass(frozen=True, slots=True)
class Lease:
    """What a caller claims to hold. None means that the caller did not say, and is not checked."""

    worker: str | None = None
    epoch: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One unit of work.

    Attributes:
        requires: The capability requirement as its submitter wrote it; `route` is its meaning.
        lease_epoch: Number of the current or last lease; every delivery gets a higher one.
        attempts: Deliveries charged against `max_deliveries`.
    """

    id: str
    command: str
    payload: str = ""
    requires: str | None = None
    route: Route = field(default_factory=Route)
    created_at: float
    lease_seconds: int
    max_deliveries: int
    status: Status = Status.QUEUED
    outcome: Outcome | None = None
    started_at: float | None = None
    finished_at: float | None = None
    lease_until: float | None = None
    lease_epoch: int = 0
    attempts: int = 0
    worker: str | None = None
    result: str | None = None
    error: str | None = None

    @property
    def finished(self) -> bool:
        """Whether nothing can happen to the job any more."""
        return self.status in (Status.DONE, Status.FAILED)


def deliver(job: Job, worker: str | None, now: float) -> Job:
    """Lease a queued job to a worker."""
    return replace(
        job,
        status=Status.RUNNING,
        worker=worker,
        started_at=now,
        lease_until=now + job.lease_seconds,
        lease_epoch=job.lease_epoch + 1,
        attempts=job.attempts + 1,
    )


def renew(job: Job, lease: Lease, now: float) -> Job:
    """Extend the lease of a running job.

    Raises:
        NotRunningError: The job is not running.
        LeaseLostError: The caller does not hold the current lease.
    """
    _require_running(job, lease)
    return replace(job, lease_until=now + job.lease_seconds)


def release(job: Job, lease: Lease) -> Job:
    """Give a running job back, without charging its delivery.

    Raises:
        NotRunningError: The job is not running.
        LeaseLostError: The caller does not hold the current lease.
    """
    _require_running(job, lease)
    return replace(_requeued(job), attempts=job.attempts - 1)


def finish(job: Job, lease: Lease, result: str, now: float) -> Job:
    """End a running job with its result. A job that has ended already is returned as it is.

    Raises:
        NotRunningError: The job is queued.
        LeaseLostError: The caller does not hold the current lease.
    """
    _require_epoch(job, lease)
    if job.finished:
        return job
    _require_running(job, lease)
    return _ended(job, Status.DONE, Outcome.DONE, now, result=result)


def fail(job: Job, lease: Lease, error: str, now: float) -> Job:
    """End a job with an error. A job that has ended already is returned as it is.

    A job that was never delivered can be failed too: the seed contract says so.

    Raises:
        NotRunningError: The job is queued again after a delivery.
        LeaseLostError: The caller does not hold the current lease.
    """
    _require_epoch(job, lease)
    if job.finished:
        return job
    if job.lease_epoch > 0:
        _require_running(job, lease)
    return _ended(job, Status.FAILED, Outcome.FAILED, now, error=error)


def expire(job: Job, now: float) -> Job:
    """Take a lost lease back: the job is queued again, or dead after its last delivery."""
    if job.attempts < job.max_deliveries:
        return _requeued(job)
    holder = f"worker {job.worker}" if job.worker else "its worker"
    error = f"lease lost by {holder} on delivery {job.attempts} of {job.max_deliveries}"
    return _ended(job, Status.FAILED, Outcome.DEAD, now, error=error)


def _requeued(job: Job) -> Job:
    return replace(job, status=Status.QUEUED, worker=None, started_at=None, lease_until=None)


def _ended(
    job: Job, status: Status, outcome: Outcome, now: float, *, result: str | None = None, error: str | None = None
) -> Job:
    return replace(job, status=status, outcome=outcome, finished_at=now, lease_until=None, result=result, error=error)


def _require_epoch(job: Job, lease: Lease) -> None:
    if lease.epoch not in (None, job.lease_epoch):
        raise LeaseLostError(f"stale lease epoch {lease.epoch}; the current one is {job.lease_epoch}", job)


def _require_running(job: Job, lease: Lease) -> None:
    if job.status != Status.RUNNING:
        raise NotRunningError(job)
    _require_epoch(job, lease)
    if lease.worker not in (None, job.worker):
        raise LeaseLostError("the job is held by another worker", job)
