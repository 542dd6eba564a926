"""A job and its legal transitions, as pure functions of the job, the caller's lease and the time.

    queued ──deliver──▶ running ──finish──▶ done
      ▲                 │ │ │└─fail───────▶ failed (outcome "failed")
      │                 │ │ └──expire─────▶ failed (outcome "dead", after the last delivery)
      ├─release, expire─┘ └────cancel─────▶ failed (outcome "cancelled"; a queued one too)
      └─fail (where failures are tried again, until the last delivery: then dead); requeue (of a dead one)

A job that is tried again, or was submitted for later, is queued with a time before which nobody gets it (`not_before`).
Times are seconds since the epoch, as floats, by the broker's clock. Set ahead, it ends leases early: the jobs are
delivered again and their epochs refuse the late reports. Set back, it ends them late, by as much, but those that are
renewed count from then on. The oldest job is the one that came first, whatever the clock said.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import StrEnum

from broker_app.errors import LeaseLostError, NotDeadError, NotRunningError

_MOST_DOUBLINGS = 8


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
    CANCELLED = "cancelled"
    DEAD = "dead"


@dataclass(frozen=True, slots=True)
class Worker:
    """Who asks for work: its name (None when the caller gave none), what it can do, and whether it gets nothing new."""

    name: str | None = None
    capabilities: frozenset[str] = frozenset()
    cordoned: bool = False


@dataclass(frozen=True, slots=True)
class Route:
    """Who may run a job: one named agent, or whoever has every needed capability, or both."""

    agent: str | None = None
    needs: frozenset[str] = frozenset()

    def open_to(self, worker: Worker) -> bool:
        """Whether the worker may run jobs of this route."""
        return self.agent in (None, worker.name) and self.needs <= worker.capabilities and not worker.cordoned


@dataclass(frozen=True, slots=True)
class Lease:
    """What a caller claims to hold. None means that the caller did not say, and is not checked."""

    worker: str | None = None
    epoch: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One unit of work.

    Attributes:
        dialect: In which it was submitted.
        requires: The capability requirement as its submitter wrote it; `route` is its meaning.
        retry_seconds: How long the first reported failure puts it off, each further one twice as long;
            0 where a reported failure is final.
        priority: The highest comes first; among equals the oldest.
        submitter: Whose token it was submitted with, None for a shared one; each has its own idempotency keys.
        idempotency_key: Under which a repeated submission is known as this one.
        fingerprint: What the submission under that key said, as a digest.
        not_before: When it is ready, for the first time or to be tried again; `fall_due` then takes this away.
        heartbeat_at: When its lease was granted or renewed last.
        lease_epoch: Number of the current or last lease; every delivery gets a higher one.
        attempts: Deliveries charged against `max_deliveries`.
        progress: How far its worker says it is, in percent; with a note of the worker's.
    """

    id: str
    dialect: str
    command: str
    payload: str = ""
    requires: str | None = None
    route: Route = field(default_factory=Route)
    created_at: float
    lease_seconds: int
    max_deliveries: int
    retry_seconds: int = 0
    priority: int = 0
    submitter: str | None = None
    idempotency_key: str | None = None
    fingerprint: str | None = None
    not_before: float | None = None
    status: Status = Status.QUEUED
    outcome: Outcome | None = None
    started_at: float | None = None
    finished_at: float | None = None
    lease_until: float | None = None
    heartbeat_at: float | None = None
    lease_epoch: int = 0
    attempts: int = 0
    worker: str | None = None
    progress: int | None = None
    progress_note: str | None = None
    result: str | None = None
    error: str | None = None

    @property
    def finished(self) -> bool:
        """Whether nothing can happen to the job any more."""
        return self.status in (Status.DONE, Status.FAILED)

    @property
    def ready(self) -> bool:
        """Whether it can be delivered now."""
        return self.status is Status.QUEUED and self.not_before is None


def deliver(job: Job, worker: str | None, now: float, lease_seconds: int | None = None) -> Job:
    """Lease a ready job to a worker, for the job's own time unless another is given."""
    return replace(
        job,
        status=Status.RUNNING,
        worker=worker,
        started_at=now,
        lease_until=now + (lease_seconds or job.lease_seconds),
        heartbeat_at=now,
        lease_epoch=job.lease_epoch + 1,
        attempts=job.attempts + 1,
        progress=None,
        progress_note=None,
        error=None,
    )


def renew(job: Job, lease: Lease, now: float, lease_seconds: int | None = None) -> Job:
    """Extend the lease of a running job, by the job's own time unless another is given.

    Raises:
        NotRunningError: The job is not running.
        LeaseLostError: The caller does not hold the current lease.
    """
    _require_running(job, lease)
    return replace(job, lease_until=now + (lease_seconds or job.lease_seconds), heartbeat_at=now)


def report(job: Job, lease: Lease, percent: int | None, note: str | None) -> Job:
    """Say how far a running job is; None leaves what was said before.

    Raises:
        NotRunningError: The job is not running.
        LeaseLostError: The caller does not hold the current lease.
    """
    _require_running(job, lease)
    if percent is None and note is None:
        return job
    return replace(
        job,
        progress=job.progress if percent is None else percent,
        progress_note=job.progress_note if note is None else note,
    )


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


def fail(job: Job, lease: Lease, error: str, now: float, stretch: float = 1.0, *, undelivered: bool = False) -> Job:
    """End a job with an error, or put it off until its next try. A job that has ended is returned as it is.

    Args:
        job: The job.
        lease: What the caller holds.
        error: What the worker said.
        now: The time.
        stretch: What the back-off is multiplied with, so that jobs which failed together do not come back together.
        undelivered: Whether a job that was never delivered can be failed too, for good.

    Raises:
        NotRunningError: The job is queued.
        LeaseLostError: The caller does not hold the current lease.
    """
    _require_epoch(job, lease)
    if job.finished:
        return job
    if job.lease_epoch > 0 or not undelivered:
        _require_running(job, lease)
    if not (job.retry_seconds and job.attempts):
        return _ended(job, Status.FAILED, Outcome.FAILED, now, error=error)
    if job.attempts >= job.max_deliveries:
        return _ended(job, Status.FAILED, Outcome.DEAD, now, error=error)
    delay = job.retry_seconds * 2 ** min(job.attempts - 1, _MOST_DOUBLINGS) * stretch
    return replace(_requeued(job), not_before=now + delay, error=error)


def cancel(job: Job, reason: str, now: float) -> Job:
    """End a job that nobody wants any more. A job that has ended already is returned as it is."""
    if job.finished:
        return job
    return _ended(job, Status.FAILED, Outcome.CANCELLED, now, error=reason)


def open_up(job: Job) -> Job:
    """Leave a job that names an agent to whoever has what it needs."""
    return replace(job, route=replace(job.route, agent=None))


def requeue(job: Job) -> Job:
    """Queue a dead job again, with all its deliveries before it. Its epochs go on.

    Raises:
        NotDeadError: It is not dead.
    """
    if job.outcome is not Outcome.DEAD:
        raise NotDeadError(job)
    return replace(_requeued(job), outcome=None, finished_at=None, attempts=0, error=None)


def fall_due(job: Job, now: float) -> Job:
    """What time does to a job: a lease that has ended is lost, and one that was put off is ready."""
    return expire(job, now) if job.status is Status.RUNNING else replace(job, not_before=None)


def expire(job: Job, now: float) -> Job:
    """Take a lost lease back: the job is queued again, or dead after its last delivery."""
    if job.attempts < job.max_deliveries:
        return _requeued(job)
    holder = f"worker {job.worker}" if job.worker else "its worker"
    error = f"lease lost by {holder} on delivery {job.attempts} of {job.max_deliveries}"
    return _ended(job, Status.FAILED, Outcome.DEAD, now, error=error)


def _requeued(job: Job) -> Job:
    return replace(
        job, status=Status.QUEUED, worker=None, started_at=None, lease_until=None, heartbeat_at=None, not_before=None
    )


def _ended(
    job: Job, status: Status, outcome: Outcome, now: float, *, result: str | None = None, error: str | None = None
) -> Job:
    return replace(
        job,
        status=status,
        outcome=outcome,
        finished_at=now,
        lease_until=None,
        not_before=None,
        result=result,
        error=error,
    )


def _require_epoch(job: Job, lease: Lease) -> None:
    if lease.epoch not in (None, job.lease_epoch):
        raise LeaseLostError(
            f"stale lease epoch {lease.epoch}; the current one is {job.lease_epoch}", job, lease.worker
        )


def _require_running(job: Job, lease: Lease) -> None:
    if job.status != Status.RUNNING:
        raise NotRunningError(job)
    _require_epoch(job, lease)
    if lease.worker not in (None, job.worker):
        raise LeaseLostError("the job is held by another worker", job, lease.worker)
