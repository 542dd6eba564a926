"""Random faults over a fleet under load: `make soak`, and a slice of it in CI.

Prints jobs, kills, partitions, lost and doubled (see ledger.py), and the longest time that a job was held by nobody
while its runner was connected (see vigil.py).
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import threading
import time
from collections import Counter, defaultdict
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import httpx

from lab.machines import Direction
from tests.faults.ledger import Acknowledged, Audit, Book, Span, audit, script
from tests.faults.stand import deployed, inside, kill, until
from tests.faults.vigil import Spells, Vigil

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.faults.stand import Agent, Stand

_MOST_UNHELD_SECONDS = 2.0
_LEASE_SECONDS = 60  # that none runs out: a job whose host lives is run once
_SUBMITTERS = 2
_PAUSE = (0.1, 0.6)  # between two submissions of one submitter
_MOST_QUEUED = 20  # else what waits at the end grows with the soak
_JOB = (0.2, 3.0)
_CALM = (0.5, 2.5)  # between two faults
_FAULT = (0.5, 5.0)
_SETTLE_SECONDS = 180.0


@dataclass
class Report:
    """What a soak did and found."""

    jobs: int
    faults: Counter[str]
    audit: Audit
    spells: Spells

    @property
    def kills(self) -> int:
        """How often a runner, the broker or a host was killed."""
        return sum(count for fault, count in self.faults.items() if fault.startswith("kill"))

    @property
    def partitions(self) -> int:
        """How often a host was cut off."""
        return self.faults["cut a host off"]

    def is_good(self, most_unheld: float = _MOST_UNHELD_SECONDS) -> bool:
        """Whether everything was as promised, and seen."""
        found, spells = self.audit, self.spells
        wrong = found.lost or found.doubled or found.stuck
        return not wrong and max(spells.longest, spells.unseen) <= most_unheld

    def __str__(self) -> str:
        found, spells = self.audit, self.spells
        return (
            f"jobs {self.jobs} · kills {self.kills} · partitions {self.partitions} · lost {len(found.lost)} · "
            f"doubled {len(found.doubled)} · longest time held by nobody {spells.longest:.2f} s\n"
            f"stuck {len(found.stuck)} · longest time between two looks {spells.unseen:.2f} s · "
            + " · ".join(f"{fault} {count}" for fault, count in sorted(self.faults.items()))
        )


class Soak:
    """One run."""

    def __init__(self, stand: Stand, seed: int, folder: Path) -> None:
        self._stand = stand
        self._dice = random.Random(seed)
        self._acknowledged = Acknowledged(folder / "acknowledged")
        self._agents: dict[str, str] = {}  # of each job
        self._stop = threading.Event()
        self._vigil = Vigil(stand)
        self._deaths: defaultdict[str, list[Span]] = defaultdict(list)  # of each agent
        self._faults: dict[str, Callable[[], None]] = {
            "kill a runner": self._kill_runner,
            "kill the broker": self._kill_broker,
            "kill a host": self._kill_host,
            "cut a host off": self._cut,
            "hang a runner": self._hang,
            "restart the broker": self._restart,
        }

    def run(self, seconds: float) -> Report:
        """Break and mend for that long and in each way at least once, let everything come to its end, and look."""
        self._stand.lease(_LEASE_SECONDS)
        submitters = [threading.Thread(target=self._submit, args=(number,)) for number in range(_SUBMITTERS)]
        with self._vigil:
            for submitter in submitters:
                submitter.start()
            try:
                done = self._break(seconds)
            finally:
                self._stop.set()
                for submitter in submitters:
                    submitter.join()
                self._stand.all_well()
                self._acknowledged.close()
            self._settle()
        return Report(len(self._acknowledged.ids), done, self._audit(), self._vigil.spells)

    def _break(self, seconds: float) -> Counter[str]:
        done: Counter[str] = Counter()
        begun = time.monotonic()
        for fault in self._in_any_order():
            time.sleep(self._dice.uniform(*_CALM))
            passed = time.monotonic() - begun
            if passed >= seconds and len(done) == len(self._faults):
                break
            print(f"{passed:7.1f} s  {fault}", flush=True)
            self._faults[fault]()
            done[fault] += 1
        return done

    def _in_any_order(self) -> Iterator[str]:
        """Each fault as often as any other, also in a short time."""
        while True:
            yield from self._dice.sample(sorted(self._faults), len(self._faults))

    def _submit(self, number: int) -> None:
        dice = random.Random(number)
        agents = sorted(self._stand.agents)
        while not self._stop.wait(dice.uniform(*_PAUSE)):
            with suppress(httpx.TransportError, httpx.HTTPStatusError):
                if self._count("queued") >= _MOST_QUEUED:
                    continue
                agent = dice.choice(agents)
                job = self._stand.submit(agent, script(dice.uniform(*_JOB)))
                self._agents[job] = agent
                self._acknowledged.note(job)

    def _settle(self) -> None:
        deadline = time.monotonic() + _SETTLE_SECONDS
        while time.monotonic() < deadline and self._count("queued") + self._count("running"):
            time.sleep(0.5)

    def _count(self, status: str) -> int:
        """How many jobs stand so; more than a page counts as a page."""
        return len(self._stand.bot.get("/jobs", params={"status": status}).raise_for_status().json()["jobs"])

    def _audit(self) -> Audit:
        answers = {job: self._stand.bot.get(f"/jobs/{job}") for job in self._agents}
        statuses = {job: answer.json()["status"] if answer.is_success else None for job, answer in answers.items()}
        book = Book.read(agent.workspace for agent in self._stand.agents.values())
        found = audit(statuses, book, {job: self._deaths[agent] for job, agent in self._agents.items()})
        for verdict, jobs in asdict(found).items():
            for job in jobs:
                print(f"{verdict}: {answers[job].text} {book.of(job)}")
        return found

    def _agent(self) -> Agent:
        return self._stand.agents[self._dice.choice(sorted(self._stand.agents))]

    def _beside(self, agent: Agent) -> list[str]:
        """The agents on the same host."""
        return [other.name for other in self._stand.agents.values() if other.machine.name == agent.machine.name]

    def _kill_runner(self) -> None:
        agent = self._agent()
        kill(until(lambda: agent.runner, "a runner"))

    def _kill_broker(self) -> None:
        with self._vigil.without_broker():
            kill(until(lambda: self._stand.broker, "a broker"))

    def _restart(self) -> None:
        with self._vigil.without_broker():
            self._stand.broker_host.ssh("sudo systemctl restart openclaw-broker")

    def _kill_host(self) -> None:
        agent = self._agent()
        begun = _now()
        agent.machine.crash()
        death = Span(begun, _now())
        for name in self._beside(agent):
            self._deaths[name].append(death)
        agent.machine.start()
        agent.machine.wait()

    def _cut(self) -> None:
        agent = self._agent()
        with self._vigil.apart(*self._beside(agent)):
            agent.machine.cut(self._dice.choice(list(Direction)))
            time.sleep(self._dice.uniform(*_FAULT))
            agent.machine.heal()

    def _hang(self) -> None:
        agent = self._agent()
        with self._vigil.apart(agent.name):
            agent.machine.hang(inside(until(lambda: agent.runner, "a runner")))
            time.sleep(self._dice.uniform(*_FAULT))
            agent.machine.resume()


def _now() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def main() -> int:
    """Deploy a fleet, soak it, print the report."""
    parser = argparse.ArgumentParser(prog="make soak", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    with deployed("soak") as stand, tempfile.TemporaryDirectory(prefix="soak-") as folder:
        report = Soak(stand, options.seed, Path(folder)).run(options.seconds)
    print(report)
    return 0 if report.is_good() else 1


if __name__ == "__main__":
    sys.exit(main())
