"""What a dialect can ask of the queue."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from broker_app.queue.job import Outcome, Route, Status


@dataclass(frozen=True, slots=True)
class Submit:
    """Queue a job; `requires` is kept as written, `route` is what it and the named agent mean.

    `retry_seconds` is the first back-off after a reported failure, 0 where that is final. `not_before` is a time, and
    a past one means now. Under an `idempotency_key` of the caller's that is in use nothing is queued: the job of that
    key is the answer, if it was submitted with the same words.
    """

    command: str
    payload: str
    requires: str | None
    route: Route
    max_deliveries: int
    lease_seconds: int
    dialect: str
    retry_seconds: int = 0
    priority: int = 0
    not_before: float | None = None
    idempotency_key: str | None = None


@dataclass(frozen=True, slots=True)
class SubmitAll:
    """Queue all of these jobs, or none."""

    orders: tuple[Submit, ...]


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
    """Report a failure; `undelivered` where the report may be about a job that nobody was given yet."""

    job_id: str
    epoch: int | None
    error: str
    undelivered: bool = False


@dataclass(frozen=True, slots=True)
class Report:
    """Say how far a job is, and what it printed: `text` begins after the first `offset` characters of this lease's."""

    job_id: str
    epoch: int | None
    text: str = ""
    offset: int | None = None
    percent: int | None = None
    note: str | None = None


@dataclass(frozen=True, slots=True)
class Cancel:
    """End a job that nobody wants any more, queued or running."""

    job_id: str
    reason: str


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
class Follow:
    """Read what a job reported after an event, waiting up to `wait` seconds for more, its end or another status.

    Another than `status`, the one that the caller knows; where it is None, than when the wait begins.
    """

    job_id: str
    after: int
    limit: int
    wait: float = 0.0
    status: Status | None = None


@dataclass(frozen=True, slots=True)
class Browse:
    """Read jobs, newest first, from before the position; an `outcome` says more than the status."""

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
class Pause:
    """Deliver no job until the queue is resumed."""

    reason: str


@dataclass(frozen=True, slots=True)
class Resume:
    """Deliver jobs again."""


@dataclass(frozen=True, slots=True)
class ShowQueue:
    """Read how many jobs there are, and whether the queue is paused."""


@dataclass(frozen=True, slots=True)
class ListAgents:
    """Read what is known of every agent, or of those that are online (or not) or of a type."""

    online: bool | None = None
    type: str | None = None


@dataclass(frozen=True, slots=True)
class ShowAgent:
    """Read what is known of one agent."""

    name: str


@dataclass(frozen=True, slots=True)
class Register:
    """Know an agent, and mint a token for it; `base` is where its WebSocket will connect to."""

    name: str
    type: str | None
    capabilities: tuple[str, ...]
    metadata: Mapping[str, Any]
    base: str


@dataclass(frozen=True, slots=True)
class Remove:
    """Forget an agent and end its tokens; its queued jobs are cancelled, or left to others if `requeue`."""

    name: str
    requeue: bool


@dataclass(frozen=True, slots=True)
class Cordon:
    """Let an agent have no new work, or have it again."""

    name: str
    cordoned: bool


@dataclass(frozen=True, slots=True)
class Assign:
    """Submit a job for an agent that there is."""

    agent: str
    order: Submit


@dataclass(frozen=True, slots=True)
class Post:
    """Keep a message of the caller's for an agent until it has it."""

    recipient: str
    message_id: str
    envelope: str


@dataclass(frozen=True, slots=True)
class ReadLog:
    """Read the last lines that an agent logged, of those after a number."""

    name: str
    after: int
    limit: int


AgentCommand = ReadLog | ListAgents | ShowAgent | Register | Remove | Cordon | Assign | Post
QueueCommand = Pause | Resume | ShowQueue | Survey
HolderCommand = Renew | Release | Finish | Fail | Report
WorkCommand = Claim | Hold | HolderCommand
JobCommand = Submit | SubmitAll | Cancel | Requeue | Look | Follow | Browse
Command = AgentCommand | QueueCommand | WorkCommand | JobCommand
