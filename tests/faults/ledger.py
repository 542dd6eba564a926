"""What was promised and what was done, written down by those who know it.

The submitting side notes each job that the broker acknowledged, and syncs before it counts it. The jobs themselves note
when they start, every 0.1 s while they run, and when they end, and sync the first line and the last. From both follows:

lost
    A job that was acknowledged and is not there, or failed, or is said to be done and whose last run noted no end. One
    that somebody cancelled may have failed by that.
doubled
    A job two of whose runs overlap in time; or one that was run again although its host did not die while it ran.
stuck
    A job that is not at its end when everything had the time of a lease to get there.
"""

from __future__ import annotations

import os
import threading
from collections import defaultdict
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

# A run is named by the moment it began. `sync FILE` is fsync(2).
_SCRIPT = """
now() {{ read -r up rest < /proc/uptime; echo "$up"; }}
note() {{ echo "$1 $OPENCLAW_JOB_ID $run $(now)" >> {file}; }}
run=$(now)-$RANDOM
note start; sync {file}
{body}
note end; sync {file}
"""
_FILE = "ledger"
# The status of a job that has ended because somebody asked for it.
CANCELLED = "cancelled"
# A job that has ended counts as run until its end is recorded: by a program that a busy machine may keep waiting.
_RECORD_SECONDS = 5.0


def script(seconds: float) -> str:
    """A job that keeps the ledger for that long, and says so."""
    ticks = round(seconds * 10)
    body = f"for tick in $(seq {ticks}); do sleep 0.1; note tick; echo $tick of {ticks}; done; echo 100 > $JOB_PROGRESS"
    return _SCRIPT.format(file=_FILE, body=body)


def script_until(go: str) -> str:
    """A job that keeps the ledger until a file of that name is in its workspace."""
    return _SCRIPT.format(file=_FILE, body=f"until [ -e {go} ]; do sleep 0.1; note tick; done")


class Span(NamedTuple):
    """From when to when something happened, in seconds since the machine's boot."""

    begin: float
    end: float


@dataclass
class Run:
    """One run of a job: the times (seconds since the machine's boot) of its first and its last line."""

    first: float
    last: float
    ended: bool = False

    def met(self, death: Span) -> bool:
        """Whether its host's death may have come while it went on, or before its end was recorded."""
        return self.first <= death.end and death.begin <= self.last + _RECORD_SECONDS


@dataclass
class Book:
    """The jobs' side: every run of every job."""

    runs: dict[str, dict[str, Run]] = field(default_factory=lambda: defaultdict(dict))

    @classmethod
    def read(cls, workspaces: Iterable[Path]) -> Book:
        """Read the ledgers in workspaces. A last line that a crash cut short is none."""
        book = cls()
        for workspace in workspaces:
            file = workspace / _FILE
            for line in file.read_text(errors="replace").splitlines() if file.exists() else ():
                words = line.split()
                if len(words) == 4:
                    book.add(*words)
        return book

    def add(self, word: str, job: str, name: str, time: str) -> None:
        """Take one line."""
        run = self.runs[job].setdefault(name, Run(float(time), float(time)))
        run.last = max(run.last, float(time))
        run.ended = run.ended or word == "end"

    def of(self, job: str) -> list[Run]:
        """The runs of a job, the first first."""
        return sorted(self.runs.get(job, {}).values(), key=lambda run: run.first)

    def overlapping(self, job: str) -> bool:
        """Whether one run went on when the next had begun."""
        return any(before.last > after.first for before, after in pairwise(self.of(job)))

    def needless(self, job: str, deaths: Iterable[Span]) -> bool:
        """Whether a run was followed by another although nothing died while it went on."""
        died = tuple(deaths)
        return any(not any(run.met(death) for death in died) for run in self.of(job)[:-1])

    def ended(self, job: str) -> bool:
        """Whether the last run noted its end."""
        return any(run.ended for run in self.of(job)[-1:])


class Acknowledged:
    """The submitters' side: the ids that the broker acknowledged."""

    def __init__(self, file: Path) -> None:
        self._file = file.open("a", encoding="ascii")
        self._lock = threading.Lock()
        self.ids: list[str] = []

    def note(self, job: str) -> None:
        """Write an id down; it counts once it is on disk."""
        with self._lock:
            self._file.write(f"{job}\n")
            self._file.flush()
            os.fsync(self._file.fileno())
            self.ids.append(job)

    def close(self) -> None:
        """Close the file."""
        self._file.close()


@dataclass
class Audit:
    """The verdict on a list of jobs."""

    lost: list[str] = field(default_factory=list)
    doubled: list[str] = field(default_factory=list)
    stuck: list[str] = field(default_factory=list)


def audit(statuses: dict[str, str | None], book: Book, deaths: Mapping[str, Iterable[Span]]) -> Audit:
    """Hold the broker's word and the jobs' ledgers against what was promised.

    Args:
        statuses: What the broker said of each acknowledged job, or `CANCELLED`; None where it did not know it.
        book: What the jobs wrote, read after that.
        deaths: When the host of each job died.
    """
    found = Audit()
    for job, status in statuses.items():
        if status in {"queued", "running"}:
            found.stuck.append(job)
        elif status != CANCELLED and (status != "done" or not book.ended(job)):
            found.lost.append(job)
        if book.overlapping(job) or book.needless(job, deaths.get(job, ())):
            found.doubled.append(job)
    return found
