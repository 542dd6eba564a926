"""Random faults over a fleet under load: `make soak`, and a slice of it in CI.

Each agent's runner speaks another dialect, and the load (see load.py) uses all that the queue can. Prints jobs, kills,
partitions, lost and doubled (see ledger.py), and the longest time that a job was held by nobody while its runner was
connected (see vigil.py).
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from collections import Counter, defaultdict
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lab.machines import Direction
from tests.faults.dialects import speaking
from tests.faults.ledger import CANCELLED, Audit, Book, Span, audit
from tests.faults.load import Load
from tests.faults.stand import deployed, inside, kill, until
from tests.faults.vigil import Spells, Vigil

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import httpx

    from tests.faults.stand import Agent, Stand

_MOST_UNHELD_SECONDS = 2.0
_LEASE_SECONDS = 60  # that none runs out: a job whose host lives is run once
_CALM = (0.5, 2.5)  # between two faults
_FAULT = (0.5, 5.0)
_SETTLE_SECONDS = 180.0


@dataclass
class Report:
    """What a soak did and found."""

    jobs: int
    kinds: Counter[str]
    cancelled: int
    requeued: int
    heard: int
    faults: Counter[str]
    audit: Audit
    disorderly: list[str]
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
        wrong = found.lost or found.doubled or found.stuck or self.disorderly
        return not wrong and max(spells.longest, spells.unseen) <= most_unheld

    def __str__(self) -> str:
        found, spells = self.audit, self.spells
        return (
            f"jobs {self.jobs} · kills {self.kills} · partitions {self.partitions} · lost {len(found.lost)} · "
            f"doubled {len(found.doubled)} · longest time held by nobody {spells.longest:.2f} s\n"
            f"stuck {len(found.stuck)} · longest time between two looks {spells.unseen:.2f} s · "
            f"{_listed(self.faults)}\n"
            f"submitted: {_listed(self.kinds)} · cancelled {self.cancelled} · requeued {self.requeued} · "
            f"news heard {self.heard}, in disorder {len(self.disorderly)}"
        )


def _listed(counts: Counter[str]) -> str:
    return " · ".join(f"{what} {count}" for what, count in sorted(counts.items()))


class Soak:
    """One run."""

    def __init__(self, stand: Stand, seed: int, folder: Path) -> None:
        self._stand = stand
        self._dice = random.Random(seed)
        self._load = Load(stand, folder / "acknowledged")
        self._requeued: set[str] = set()
        self._vigil = Vigil(stand)
        self._deaths: defaultdict[str, list[Span]] = defaultdict(list)  # of each agent
        self._faults: dict[str, Callable[[], None]] = {
            "kill a runner": self._kill_runner,
            "kill the broker": self._kill_broker,
            "kill a host": self._kill_host,
            "cut a host off": self._cut,
            "hang a runner": self._hang,
            "restart the broker": self._restart,
            "pause the queue": self._pause,
        }

    def run(self, seconds: float) -> Report:
        """Break and mend for that long and in each way at least once, let everything come to its end, and look."""
        self._stand.lease(_LEASE_SECONDS)
        load = self._load
        with self._vigil:
            try:
                with load:
                    done = self._break(seconds)
            finally:
                self._stand.all_well()
            self._settle()
        return Report(
            jobs=len(load.acknowledged.ids),
            kinds=load.kinds,
            cancelled=len(load.cancelled),
            requeued=len(self._requeued),
            heard=load.heard,
            faults=done,
            audit=self._audit(),
            disorderly=load.disorderly,
            spells=self._vigil.spells,
        )

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

    def _settle(self) -> None:
        """Let all come to an end; what was dead after the one delivery it was allowed gets another."""
        deadline = time.monotonic() + _SETTLE_SECONDS
        count = self._load.count
        while time.monotonic() < deadline and (self._requeue() or count(status="queued") or count(status="running")):
            time.sleep(0.5)

    def _requeue(self) -> int:
        bot = self._stand.bot
        dead = bot.get("/jobs", params={"outcome": "dead"}).raise_for_status().json()["jobs"]
        for job in dead:
            bot.post(f"/jobs/{job['id']}/requeue").raise_for_status()
            self._requeued.add(job["id"])
        return len(dead)

    def _audit(self) -> Audit:
        load = self._load
        answers = {job: self._stand.bot.get(f"/jobs/{job}") for job in load.agents}
        statuses = {job: self._status(answer) for job, answer in answers.items()}
        book = Book.read(agent.workspace for agent in self._stand.agents.values())
        found = audit(statuses, book, {job: self._deaths[agent] for job, agent in load.agents.items()})
        for verdict, jobs in asdict(found).items():
            for job in jobs:
                print(f"{verdict}: {answers[job].text} {book.of(job)}")
        return found

    def _status(self, answer: httpx.Response) -> str | None:
        if not answer.is_success:
            return None
        job = answer.json()
        if job["outcome"] == "cancelled" and job["id"] in self._load.cancelled:
            return CANCELLED
        return str(job["status"])

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

    def _pause(self) -> None:
        with self._stand.fleet.token("admin", "soak") as token:
            admin = {"Authorization": f"Bearer {token}"}
            self._stand.bot.post("/queue/pause", json={"reason": "the soak"}, headers=admin).raise_for_status()
            time.sleep(self._dice.uniform(*_FAULT))
            self._stand.bot.post("/queue/resume", headers=admin).raise_for_status()


def _now() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def main() -> int:
    """Deploy a fleet, soak it, print the report."""
    parser = argparse.ArgumentParser(prog="make soak", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    with (
        tempfile.TemporaryDirectory(prefix="soak-") as folder,
        deployed("soak") as stand,
        speaking(stand, _LEASE_SECONDS),
    ):
        report = Soak(stand, options.seed, Path(folder)).run(options.seconds)
    print(report)
    return 0 if report.is_good() else 1


if __name__ == "__main__":
    sys.exit(main())
