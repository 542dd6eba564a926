"""How long a job was held by nobody: the broker thinks that a worker runs it, and the worker's journal lacks it.

That is looked at ten times a second, from outside of both: the broker is asked what runs, the journal is read, and the
broker is asked again, so that a job which was claimed or ended meanwhile does not count. Time counts while the worker
is connected: no fault keeps it apart, and both kernels show an open connection between its runner and the broker. So
the time in which a lost answer comes late counts too, by whatever it comes. A runner that speaks tasks does not count:
this dialect has no call by which it could say what it holds, and a claim whose answer was lost waits for its lease.
"""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import httpx

from lab.errors import LabError
from tests.faults.stand import until

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from lab.machines import Machine
    from tests.faults.stand import Stand

_PAUSE_SECONDS = 0.1
_WORTH_TELLING_SECONDS = 1.0
_ESTABLISHED = "01"


class Delivery(NamedTuple):
    """A job as it was handed out once."""

    job: str
    epoch: int


@dataclass
class Spells:
    """The spells in which deliveries were held by nobody.

    Between two looks nothing is known: a spell counts from the last look that did not see it until the end of the first
    that sees it no more.

    Attributes:
        longest: The longest spell.
        unseen: The longest time between two looks, which no shorter spell need have met.
    """

    seen: float
    longest: float = 0.0
    unseen: float = 0.0
    since: dict[Delivery, float] = field(default_factory=dict)

    def looked(self, unheld: Iterable[Delivery], begun: float, now: float) -> None:
        """Take what a look from then until now found."""
        since = {delivery: self.since.get(delivery, self.seen) for delivery in unheld}
        for delivery, first in self.since.items() - since.items():
            if now - first > _WORTH_TELLING_SECONDS:
                print(f"{delivery.job} was held by nobody for {now - first:.2f} s", flush=True)
        self.longest = max([self.longest, *(now - first for first in (self.since | since).values())])
        self.unseen = max(self.unseen, now - self.seen)
        self.since, self.seen = since, begun

    def interrupted(self, now: float) -> None:
        """Begin anew after a time that does not count."""
        self.since, self.seen = {}, now


class Vigil:
    """Looks in a thread of its own, as long as the context lasts."""

    def __init__(self, stand: Stand) -> None:
        self._stand = stand
        self.spells = Spells(time.monotonic())
        self._bot = httpx.Client(base_url=stand.fleet.url, headers=stand.bot.headers, timeout=1, trust_env=False)
        self._apart: set[str] = set()
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._pool = ThreadPoolExecutor(1)

    def __enter__(self) -> Self:
        self.spells.interrupted(time.monotonic())
        self._watch = self._pool.submit(self._look_on)
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._pool.shutdown()
        self._bot.close()
        self._watch.result()

    @contextmanager
    def without_broker(self) -> Iterator[None]:
        """The broker is made to die, or to stop, and answers again when the context ends."""
        with self._lock:
            yield
            until(self._stand.answers, "the broker answers")
            self.spells.interrupted(time.monotonic())

    @contextmanager
    def apart(self, *agents: str) -> Iterator[None]:
        """These agents' runners are kept from the broker."""
        self._apart.update(agents)
        yield
        self._apart.difference_update(agents)

    def _look_on(self) -> None:
        while not self._stop.wait(_PAUSE_SECONDS):
            with self._lock, suppress(httpx.HTTPError):
                begun = time.monotonic()
                self.spells.looked(self._unheld(), begun, time.monotonic())

    def _unheld(self) -> list[Delivery]:
        running = self._ask("/jobs?status=running&limit=200")["jobs"]
        missing = [job for job in running if not self._has(job)]
        return [_delivery(job) for job in missing if self._connected(job["worker_id"]) and self._runs_on(job)]

    def _ask(self, path: str) -> dict[str, Any]:
        return dict(self._bot.get(path).raise_for_status().json())

    def _has(self, job: dict[str, Any]) -> bool:
        """Whether the worker has it in its journal; nobody can say that of a host that is off."""
        with suppress(LabError, OSError):
            agent = self._stand.agents[job["worker_id"]]
            return (agent.attempt(job["id"], job["lease_epoch"]) / "claim.json").exists()
        return False

    def _runs_on(self, job: dict[str, Any]) -> bool:
        now = self._ask(f"/jobs/{job['id']}")
        return now["status"] == "running" and _delivery(now) == _delivery(job)

    def _connected(self, worker: str) -> bool:
        agent = self._stand.agents[worker]
        if agent.dialect == "tasks" or worker in self._apart:
            return False
        with suppress(LabError, OSError):
            here = _connections(agent.machine, str(agent.home.stat().st_uid))
            there = _connections(self._stand.broker_host)
            return any((remote, local) in there for local, remote in here)
        return False


def _delivery(job: dict[str, Any]) -> Delivery:
    return Delivery(job["id"], job["lease_epoch"])


def _connections(machine: Machine, uid: str | None = None) -> set[tuple[str, str]]:
    """The open connections that a host's kernel knows of, of one user or of all: (this end, the other end)."""
    lines = Path(f"/proc/{machine.process(1)}/net/tcp").read_text().splitlines()[1:]
    rows = [line.split() for line in lines]
    return {(row[1], row[2]) for row in rows if row[3] == _ESTABLISHED and uid in (None, row[7])}
