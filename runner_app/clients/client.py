"""What the runner asks of a client, whatever dialect it speaks, and what a client answers where it has no success."""

import asyncio
from collections.abc import Awaitable, Iterable
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

from runner_app.job import Job

WAIT_SECONDS = 25  # as long as a broker holds a call open


class Tell(Protocol):
    """What tells of a running job."""

    def __call__(self, *, ended: bool) -> Awaitable[None]:
        """Tell what it has said since the last time; ``ended`` is whether it says no more. Raises nothing."""


class BrokerError(Exception):
    """No success from the broker.

    BrokerError
    ├── UnavailableError    no answer, or one that says "later": try again
    │   └── UnauthorizedError   the token is not accepted (now)
    ├── LeaseLostError      the attempt is not ours any more
    └── RefusedError        the call itself is wrong; again would not help
    """


class UnavailableError(BrokerError):
    """Try again; ``retry_after`` is what the broker asked for, in seconds."""

    def __init__(self, message: str, retry_after: float = 0) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class UnauthorizedError(UnavailableError):
    """The token was refused. An operator can mend that while the job goes on."""


class LeaseLostError(BrokerError):
    """The broker gave the job to someone else, finished it or forgot it."""


class RefusedError(BrokerError):
    """A call the broker will never take; ``status`` is its HTTP status."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


class Client(Protocol):
    """A worker's side of one dialect. Each call raises ``BrokerError`` where it does not succeed.

    ``doubt`` is set when the broker may think that we hold more than we do, and ``held`` would tell it.
    """

    doubt: asyncio.Event

    async def __aenter__(self) -> Self: ...

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    async def next_job(self, wait: float) -> Job | None:
        """Claim a job, waiting up to ``wait`` seconds (at most ``WAIT_SECONDS``) for one.

        Where this raises or is broken off, a job may have been claimed all the same: call ``held`` before the next.

        Raises:
            BrokerError: See there.
            ValueError: The answer is not a job; the text names the key.
        """

    async def held(self, leases: Iterable[tuple[str, int]]) -> None:
        """Say which leases (job id, epoch) we hold, where the dialect can: the broker takes back the rest.

        No claim may be on its way meanwhile.
        """

    async def heartbeat(self, job: Job) -> None:
        """Renew the lease. An answer that comes too late to be safe counts as none."""

    async def revoked(self, job: Job) -> str:
        """Return, and say why, when the broker lets us know between two heartbeats that a running job is not ours.

        It never returns where a dialect cannot know; then the next heartbeat is refused.
        """

    def live(self, job: Job, directory: Path, *, adopted: bool) -> Tell | None:
        """Return what tells of a running job, whose output lies in that directory; None where nobody listens."""

    async def result(self, job: Job, text: str) -> None:
        """Report success."""

    async def fail(self, job: Job, text: str) -> None:
        """Report failure."""

    async def release(self, job: Job, reason: str) -> None:
        """Give the job back, to be delivered again."""

    async def enough(self) -> None:
        """Have no more jobs sent to us, so that what is given back from now on stays with the broker."""

    def let_go(self) -> None:
        """Note that a job is let go without telling the broker."""
