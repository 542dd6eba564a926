"""What a dialect can ask of the queue."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from broker_app.queue.job import Outcome, Route, Status


@dataclass(frozen=True, slots=True)
class Submit:
    """Queue a job; `requires` is kept as written, `route` is what it and the named agent mean.

    `retry_seconds` is the first back-off after a reported failure, 0 where that is final.
    """

    command: str
    payload: str
    requires: str | None
    route: Route
    max_deliveries: int
    lease_seconds: int
    dialect: str
    retry_seconds: int = 0


@dataclass(frozen=True, slots=True)
class Claim:
    """Lease the oldest job that the caller may run, waiting up to `wait` seconds for one.

    The lease is as long as the job's submission says, unless `lease_seconds` is given.
    """

    wait: float = 0.0
    lease_seconds: int | None = None


@dataclass(frozen=True, slots=True)
class Renew:
    """Extend a lease, by as long as the job's submission says unless `lease_seconds` is given."""

    job_id: str
    epoch: int | None
    lease_seconds: int | None = None


@dataclass(frozen=True, slots=True)
class Release:
    """Give a job back, undone."""

    job_id: str
    epoch: int | None
    reason: str


@dataclass(frozen=True, slots=True)
class Hold:
    """Say which leases (job id, epoch) the caller holds: it has none but these."""

    leases: frozenset[tuple[str, int]]


@dataclass(frozen=True, slots=True)
class Finish:
    """Report a result."""

    job_id: str
    epoch: int | None
    result: str


@dataclass(frozen=True, slots=True)
class Fail:
    """Report a failure."""

    job_id: str
    epoch: int | None
    error: str


@dataclass(frozen=True, slots=True)
class Requeue:
    """Queue a dead job again."""

    job_id: str


@dataclass(frozen=True, slots=True)
class Look:
    """Read one job, waiting up to `wait` seconds for its end."""

    job_id: str
    wait: float = 0.0


@dataclass(frozen=True, slots=True)
class Browse:
    """Read jobs, newest first, from before the position."""

    status: Status | None
    agent: str | None
    limit: int
    before: int | None
    outcome: Outcome | None = None
    command: str | None = None


@dataclass(frozen=True, slots=True)
class Survey:
    """Read how much there is to do, and who does it."""


@dataclass(frozen=True, slots=True)
class ListAgents:
    """Read what is known of every agent."""


Command = Submit | Claim | Renew | Release | Hold | Finish | Fail | Requeue | Look | Browse | Survey | ListAgents
