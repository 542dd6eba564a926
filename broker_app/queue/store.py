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


class Store(Protocol):
    """Keeps jobs. Every method that meets trouble below raises `DatabaseError`."""

    def listen(self, listener: Listener) -> None:
        """Have every changed job announced on the event loop, once the change is committed."""

    async def add(self, job: Job, *, limit: int) -> None:
        """Keep a new job, durably.

        Raises:
            QueueFullError: `limit` jobs are unfinished already (0 means no limit).
        """

    async def claim(self, worker: Worker, transition: Transition) -> Job | None:
        """Apply the transition to the oldest ready job that the worker may run; None if there is none.

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
