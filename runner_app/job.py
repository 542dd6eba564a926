"""The runner's words: a job as the broker hands it out, and a command to run for one."""

import re
from dataclasses import dataclass
from typing import Any

_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
_FIELDS: dict[str, type | tuple[type, ...]] = {
    "id": str,
    "command": str,
    "payload": str,
    "lease_epoch": int,
    "lease_seconds": (int, float),
    "max_deliveries": int,
}


class JobFailedError(Exception):
    """A job failed on its own account; the text is reported as the job's error."""


@dataclass(frozen=True, slots=True)
class Job:
    """One delivery of a job. ``lease_seconds`` is how long a lease lives that nobody renews."""

    id: str
    command: str
    payload: str
    lease_epoch: int
    lease_seconds: float
    max_deliveries: int

    @property
    def name(self) -> str:
        """The attempt's name. A redelivery has another epoch, so no name is ever used twice."""
        return f"job-{self.id}-e{self.lease_epoch}"

    @staticmethod
    def lease_of(name: str) -> tuple[str, int]:
        """Return the job's id and the epoch that are in an attempt's name."""
        job_id, _, epoch = name.removeprefix("job-").rpartition("-e")
        return job_id, int(epoch)

    @classmethod
    def parse(cls, raw: Any) -> "Job":
        """Read a job object of the broker, or one kept in the journal.

        Raises:
            ValueError: A key is missing or unusable; the text names it.
        """
        if not isinstance(raw, dict):
            message = "the job is not an object"
            raise ValueError(message)
        for key, kind in _FIELDS.items():
            if not isinstance(raw.get(key), kind):
                message = f"the job's {key} is missing or of the wrong type"
                raise ValueError(message)
        if not _ID.fullmatch(raw["id"]):
            message = "the job's id cannot be part of a file's name"
            raise ValueError(message)
        if raw["lease_seconds"] <= 0:
            message = "the job's lease_seconds is not positive"
            raise ValueError(message)
        return cls(**{key: raw[key] for key in _FIELDS})


@dataclass(frozen=True, slots=True)
class Command:
    """A program to run for a job.

    Attributes:
        argv: The program and its arguments.
        cwd: Where it starts, absolute.
        timeout_ms: How long it may take.
        stdin: What it can read; None for nothing.
        walled: Whether it is kept to the workspace, and from gaining rights.
    """

    argv: tuple[str, ...]
    cwd: str
    timeout_ms: int
    stdin: str | None = None
    walled: bool = True
