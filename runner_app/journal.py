"""The runner's memory: one directory per claimed attempt, made before anything runs for it."""

import logging
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path

from runner_app import records
from runner_app.job import Job

_CLAIM = "claim.json"

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Claim:
    """An attempt that is ours to bring to an end. ``backend`` names who runs it."""

    job: Job
    backend: str
    directory: Path

    @property
    def name(self) -> str:
        """The attempt's name, also its directory's."""
        return self.job.name


class Journal:
    """The directory of claims; what it returned from is on disk."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def record(self, job: Job, backend: str) -> Claim:
        """Note a claim durably.

        Raises:
            FileExistsError: This very attempt is noted already.
            OSError: The disk did not take it.
        """
        directory = self._root / job.name
        directory.mkdir(mode=0o700)
        records.write(directory / _CLAIM, {"backend": backend, "job": asdict(job)})
        records.sync_directory(self._root)
        return Claim(job, backend, directory)

    def claims(self) -> list[Claim]:
        """Return the open claims. A directory without a claim is one whose making was cut short: it is removed."""
        found = []
        for directory in sorted(self._root.iterdir()):
            try:
                record = records.read(directory / _CLAIM)
                if record is None:
                    shutil.rmtree(directory)
                    continue
                found.append(Claim(Job.parse(record["job"]), str(record["backend"]), directory))
            except (OSError, ValueError, KeyError) as error:
                _log.error("%s is left alone, it cannot be read: %s", directory, error)
        return found

    def leases(self) -> list[tuple[str, int]]:
        """Return the id and epoch of every open claim, also of one that cannot be read."""
        return [Job.lease_of(directory.name) for directory in self._root.iterdir() if self.holds(directory.name)]

    def holds(self, name: str) -> bool:
        """Whether an attempt's claim is open."""
        return (self._root / name / _CLAIM).exists()

    def forget(self, claim: Claim) -> None:
        """Close a claim. Its own file goes first: what is left after a crash, or is held up, ``claims`` removes."""
        (claim.directory / _CLAIM).unlink()
        records.sync_directory(claim.directory)
        shutil.rmtree(claim.directory, ignore_errors=True)
