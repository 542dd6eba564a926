"""What the queue asks of the place where jobs are kept.

One contract for every implementation: each call is atomic; what a call returned or announced is on disk
if the call is durable; a call that raised has changed nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from broker_app.queue.job import Job, Worker

if TYPE_CHECKING:
    from broker_app.queue.commands import Browse

Transition = Callable[[Job], Job]
Listener = Callable[[Job], None]


@dataclass(frozen=True, slots=True)
class Page:
    """Some jobs, newest first, and the position before which the next page begins (None at the end).

    It may have fewer jobs than were asked for, even none, with others on the next page.
    """

    jobs: tuple[Job, ...]
    before: int | None


@dataclass(frozen=True, slots=True)
class Counts:
    """How many jobs are ready, put off, running and dead, and when the oldest ready one was submitted."""

    ready: int
    delayed: int
    running: int
    dead: int
    oldest: float | None


@dataclass(frozen=True, slots=True)
class Event:
    """Something that a job reported: a piece of what it printed, or how far it is; `n` numbers it once it is kept.

    `offset` is where in what was printed under one lease the text begins, in characters; kept once, it is not kept
    again.
    """

    at: float
    text: str | None = None
    offset: int | None = None
    percent: int | None = None
    note: str | None = None
    n: int = 0


@dataclass(frozen=True, slots=True)
class Pause:
    """Since when nothing is delivered, and why."""

    since: float
    reason: str


class Store(Protocol):
    """Keeps jobs. Every method that meets trouble below raises `DatabaseError`."""

    def listen(self, listener: Listener) -> None:
        """Have every changed job announced on the event loop, once the change is committed."""

    async def add(self, jobs: tuple[Job, ...], *, limit: int) -> tuple[Job, ...]:
        """Keep new jobs, all or none, durably; for one whose submitter used its key before, return the earlier job.

        Raises:
            QueueFullError: More than `limit` jobs would be unfinished (0 means no limit).
            KeyReusedError: The earlier job's submission said something else.
        """

    async def claim(self, worker: Worker, transition: Transition) -> Job | None:
        """Apply the transition to the ready job that comes first of those the worker may run; None if there is none.

        The highest priority comes first, and of that the oldest. During a pause there is none.

        Not durable: a claim lost with the machine is a redelivery, and its epoch fences it.
        """

    async def change(self, job_id: str, transition: Transition, *, durable: bool = True) -> Job:
        """Apply the transition to one job and return the job as it is then.

        Raises:
            JobNotFoundError: There is no such job.
            JobError: Whatever the transition raises.
        """

    async def losers(self, now: float) -> frozenset[str | None]:
        """The workers whose leases ended by `now` and are not taken back yet; None for those without a name."""

    async def take_due(self, now: float, transition: Transition) -> tuple[Job, ...]:
        """Apply the transition to the jobs whose lease ended or whose next try came by `now`, durably.

        Does a bounded number of them; the caller asks again while there are any.
        """

    async def take_back(
        self, worker: str, leases: frozenset[tuple[str, int]], transition: Transition
    ) -> tuple[Job, ...]:
        """Apply the transition to the worker's running jobs whose id and epoch are not in `leases`, durably."""

    async def disown(self, agent: str, transition: Transition) -> tuple[Job, ...]:
        """Apply the transition to queued jobs that name the agent, durably.

        Does a bounded number of them; the caller asks again until there are none.
        """

    async def next_due(self) -> float | None:
        """When the next lease ends or the next try comes, None when there is neither."""

    async def get(self, job_id: str) -> Job:
        """The job.

        Raises:
            JobNotFoundError: There is no such job.
        """

    async def browse(self, query: Browse) -> Page:
        """Jobs, newest first; where given of one status, outcome, command and agent (it ran them, or they name it)."""

    async def counts(self) -> Counts:
        """How many jobs there are."""

    async def running(self) -> dict[str, list[str]]:
        """Ids of the running jobs of each named worker."""

    async def report(self, job_id: str, transition: Transition, events: tuple[Event, ...]) -> Job:
        """Apply the transition to one job and keep events of it: those that are not kept already and have room.

        Not durable. Raises as `change`.
        """

    async def events(self, job_id: str, after: int, limit: int) -> tuple[Event, ...]:
        """The events of a job after the one of that number, the oldest first."""

    async def forget(self, before: float) -> int:
        """Remove jobs that ended before a time, with their events; returns how many.

        Does a bounded number of them; the caller asks again until there are none. Not durable.
        """

    async def pause(self, pause: Pause | None) -> None:
        """Deliver nothing until there is no pause, durably."""

    def paused(self) -> Pause | None:
        """The pause, if there is one."""
