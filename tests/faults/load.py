"""What a fleet has to do while it is broken: jobs in every dialect and with every option, cancelled and followed."""

from __future__ import annotations

import random
import threading
import time
import uuid
from collections import Counter
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Self

import httpx

from tests.faults.dialects import submit
from tests.faults.ledger import Acknowledged, script
from tests.faults.stand import until

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.faults.stand import Stand

_SUBMITTERS = 2
_PAUSE = (0.1, 0.6)  # between two submissions of one submitter
_MOST_QUEUED = 20  # else what waits at the end grows with the soak
_JOB = (0.2, 3.0)
_MOST_DELAY = 3.0
_BATCH = (2, 4)
_ANSWER_SECONDS = 60.0
_CANCEL_PAUSE = (1.0, 4.0)
_NEWEST = 5  # of so many one is cancelled, or followed


class Load:
    """Works from several threads, as long as the context lasts.

    Attributes:
        acknowledged: What the broker promised to do.
        agents: Of each acknowledged job.
        cancelled: The jobs that somebody tried to cancel.
        kinds: How many jobs were submitted in which way.
        heard: How many pieces of news of running jobs came.
        disorderly: Streams in which a piece came twice, or after a later one.
    """

    def __init__(self, stand: Stand, file: Path) -> None:
        self._stand = stand
        self._stop = threading.Event()
        self._pool = ThreadPoolExecutor(_SUBMITTERS + 2)
        self._working: list[Future[None]] = []
        self.acknowledged = Acknowledged(file)
        self.agents: dict[str, str] = {}
        self.cancelled: set[str] = set()
        self.kinds: Counter[str] = Counter()
        self.heard = 0
        self.disorderly: list[str] = []

    def __enter__(self) -> Self:
        self._working = [
            *(self._pool.submit(self._submit, random.Random(number)) for number in range(_SUBMITTERS)),
            self._pool.submit(self._cancel, random.Random(_SUBMITTERS)),
            self._pool.submit(self._follow, random.Random(_SUBMITTERS + 1)),
        ]
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._pool.shutdown()
        self.acknowledged.close()
        for work in self._working:
            work.result()

    def count(self, **which: Any) -> int:
        """How many jobs there are of some; more than a page counts as a page."""
        return len(self._stand.bot.get("/jobs", params=which).raise_for_status().json()["jobs"])

    def _submit(self, dice: random.Random) -> None:
        ways: list[Callable[[random.Random, str], list[str]]] = [self._one, self._one, self._batch, self._in_a_seeds]
        while not self._stop.wait(dice.uniform(*_PAUSE)):
            with suppress(httpx.TransportError, httpx.HTTPStatusError):
                if self.count(status="queued") >= _MOST_QUEUED:
                    continue
                agent = dice.choice(sorted(self._stand.agents))
                for job in dice.choice(ways)(dice, agent):
                    self.agents[job] = agent
                    self.acknowledged.note(job)

    def _one(self, dice: random.Random, agent: str) -> list[str]:
        self.kinds["jobs"] += 1
        return [str(self._acknowledged("/jobs", self._order(dice, agent))["id"])]

    def _batch(self, dice: random.Random, agent: str) -> list[str]:
        self.kinds["batch"] += 1
        orders = [self._order(dice, agent) for _ in range(dice.randint(*_BATCH))]
        return [str(job["id"]) for job in self._acknowledged("/jobs/batch", {"jobs": orders})["jobs"]]

    def _in_a_seeds(self, dice: random.Random, agent: str) -> list[str]:
        dialect = dice.choice(("tasks", "hub"))
        self.kinds[dialect] += 1
        return [submit(self._stand, dialect, agent, script(dice.uniform(*_JOB)))]

    def _order(self, dice: random.Random, agent: str) -> dict[str, Any]:
        some: dict[str, Any] = {}
        if dice.random() < 0.3:
            some["not_before"] = time.time() + dice.uniform(0, _MOST_DELAY)
        if dice.random() < 0.2:
            some["max_deliveries"] = 1
        return {
            **self._stand.order(agent, script(dice.uniform(*_JOB))),
            **some,
            "priority": dice.randint(-2, 2),
            "idempotency_key": str(uuid.UUID(int=dice.getrandbits(128))),
        }

    def _acknowledged(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """Send it until it is acknowledged: by its keys the broker knows what it has already."""

        def answer() -> dict[str, Any] | None:
            with suppress(httpx.TransportError):
                return dict(self._stand.bot.post(path, json=body).raise_for_status().json())
            time.sleep(0.1)
            return None

        return dict(until(answer, f"an answer to POST {path}", _ANSWER_SECONDS))

    def _newest(self, dice: random.Random) -> str | None:
        newest = self.acknowledged.ids[-_NEWEST:]
        return dice.choice(newest) if newest else None

    def _cancel(self, dice: random.Random) -> None:
        while not self._stop.wait(dice.uniform(*_CANCEL_PAUSE)):
            if job := self._newest(dice):
                self.cancelled.add(job)
                with suppress(httpx.TransportError, httpx.HTTPStatusError):
                    self._stand.bot.post(f"/jobs/{job}/cancel", json={"reason": "the soak"}).raise_for_status()

    def _follow(self, dice: random.Random) -> None:
        while not self._stop.wait(0.1):
            if job := self._newest(dice):
                with suppress(httpx.TransportError, httpx.HTTPStatusError):
                    self._hear(job)

    def _hear(self, job: str) -> None:
        last = 0
        accept = {"Accept": "text/event-stream"}
        with self._stand.bot.stream("GET", f"/jobs/{job}/events", headers=accept, timeout=5) as stream:
            for line in stream.raise_for_status().iter_lines():
                if line.startswith("id: "):
                    number = int(line.removeprefix("id: "))
                    if number <= last:
                        self.disorderly.append(job)
                    last = number
                    self.heard += 1
