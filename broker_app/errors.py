"""What can go wrong, as one tree.

BrokerError
├── SettingsError               a variable of the environment is wrong
├── DatabaseError               the database file cannot be opened or used
│   ├── StorageFullError        no room for a write; nothing of it was kept
│   ├── StorageFailedError      a write or read failed; nothing of it was kept
│   └── DamagedError            the file holds what no broker wrote
├── TokenError                  a token cannot be minted or revoked
├── RegistryError               the registry of agents refuses what was asked of it
│   ├── AgentNotFoundError
│   ├── RegistryFullError
│   └── MailboxFullError        an agent has as many messages waiting as may
├── RefusedError                the caller may not do this
│   ├── UnauthorisedError       no valid token of a role the call accepts
│   ├── WrongIdentityError      a token bound to one name was used under another
│   └── StrangerError           no agent of that name has a token
├── MalformedError              the request cannot be understood
└── JobError                    the queue refuses what was asked of it
    ├── JobNotFoundError
    ├── NotRunningError         the job is not running
    ├── NotDeadError            the job is no dead letter
    ├── LeaseLostError          the lease named by the caller is not the current one
    ├── KeyReusedError          an idempotency key stands for another submission
    ├── BatchTooLargeError      more jobs at once than a limit can ever admit
    ├── QueueFullError
    └── TooManySubmissionsError
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from broker_app.queue.job import Job


class BrokerError(Exception):
    """Base of every error that this package raises on purpose."""


class SettingsError(BrokerError):
    """A setting is missing or wrong; the message names the variable."""


class DatabaseError(BrokerError):
    """The database cannot be used; the message names the file and the remedy."""


class StorageFullError(DatabaseError):
    """There is no room for the write. Nothing of it was kept."""


class StorageFailedError(DatabaseError):
    """The database failed. Nothing of the write was kept."""


class DamagedError(DatabaseError):
    """The file holds what no broker wrote."""

    def __init__(self, path: Path, found: object) -> None:
        super().__init__(
            f"{path} is damaged, or no database of this broker ({found}): check BROKER_DB, and restore the file as"
            ' docs/operations.md says under "When the database is damaged"'
        )


class TokenError(BrokerError):
    """A token cannot be minted or revoked."""


class RegistryError(BrokerError):
    """The registry of agents refuses what was asked of it."""


class AgentNotFoundError(RegistryError):
    """There is no such agent."""

    def __init__(self) -> None:
        super().__init__("agent not found")


class RegistryFullError(RegistryError):
    """There are as many agents as there may be."""

    def __init__(self) -> None:
        super().__init__("agent limit reached")


class MailboxFullError(RegistryError):
    """As many messages wait for an agent as may."""

    def __init__(self) -> None:
        super().__init__("the agent has too many messages waiting")


class RefusedError(BrokerError):
    """The caller may not do this."""


class UnauthorisedError(RefusedError):
    """No valid token of a role that the call accepts."""


class WrongIdentityError(RefusedError):
    """A token that is bound to one name was used under another."""


class StrangerError(RefusedError):
    """No agent of that name has a token."""

    def __init__(self, name: str) -> None:
        super().__init__(f"Agent '{name}' is not registered")


class MalformedError(BrokerError):
    """The request cannot be understood.

    Attributes:
        status: The HTTP status that tells it best (400, 413 or 422).
        field: The field, where it is about one.
        place: Where the field is: in the body or in the query.
        kind: A machine-readable word for what is wrong.
        given: What the request had there.
    """

    def __init__(
        self,
        message: str,
        *,
        status: int = 400,
        field: str = "",
        place: str = "body",
        kind: str = "value_error",
        given: object = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.field = field
        self.place = place
        self.kind = kind
        self.given = given


class JobError(BrokerError):
    """The queue refuses what was asked of it."""


class JobNotFoundError(JobError):
    """There is no such job."""

    def __init__(self) -> None:
        super().__init__("job not found")


class NotRunningError(JobError):
    """The call needs a running job, and this one is not."""

    def __init__(self, job: Job) -> None:
        super().__init__(f"job not in running state: {job.status}")
        self.job = job


class NotDeadError(JobError):
    """The call needs a dead letter, and this job is none."""

    def __init__(self, job: Job) -> None:
        super().__init__(f"job is not dead: {job.outcome or job.status}")
        self.job = job


class LeaseLostError(JobError):
    """The lease that the caller named is not the job's current one.

    Attributes:
        job: The job as it is.
        worker: The caller's name, if it has one.
    """

    def __init__(self, message: str, job: Job, worker: str | None) -> None:
        super().__init__(message)
        self.job = job
        self.worker = worker


class KeyReusedError(JobError):
    """The idempotency key stands for a submission that said something else."""

    def __init__(self, key: str, job_id: str) -> None:
        super().__init__(f"idempotency_key {key!r} was used for another submission: job {job_id}")


class BatchTooLargeError(JobError):
    """More jobs were submitted at once than a limit can ever admit."""

    def __init__(self, most: int) -> None:
        super().__init__(f"batch too large: at most {most} jobs are admitted at once")


class QueueFullError(JobError):
    """The queue holds as many unfinished jobs as it may."""

    def __init__(self) -> None:
        super().__init__("job queue limit reached")


class TooManySubmissionsError(JobError):
    """More jobs were submitted within a minute than allowed.

    Attributes:
        retry_after: Seconds after which one more is accepted.
    """

    def __init__(self, retry_after: float) -> None:
        super().__init__("rate limit exceeded")
        self.retry_after = retry_after
