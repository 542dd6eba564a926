"""Random faults over a fleet under load: `make soak`, and a slice of it in CI.

Prints jobs, kills, partitions, lost, doubled, and the longest time a job was held by nobody after its runner
reconnected; see ledger.py for the words. That time is measured from what both sides log, for each job that
the broker took back: it begins with the first success that the job's runner logs after the end of the last fault before
("the broker answers again", "the broker knows what is held"), and ends when the broker logs that the runner does not
hold the job, or that its lease was lost. Any other job was in its runner's journal, or came there.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import httpx

from lab.machines import Direction
from tests.faults.ledger import Acknowledged, Audit, Book, audit, script
from tests.faults.stand import deployed, inside, kill, until

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.faults.stand import Agent, Stand

MOST_UNHELD_SECONDS = 2.0
_LEASE_SECONDS = 30
_SUBMITTERS = 2
_PAUSE = (0.2, 1.2)  # between two submissions of one submitter
_JOB = (0.2, 3.0)
_CALM = (0.5, 2.5)  # between two faults
_FAULT = (0.5, 5.0)  # shorter than what a lease has left: a lost one would be another story
_SETTLE_SECONDS = 180.0
_SUCCESSES = ("the broker answers again", "the broker knows what is held")


@dataclass
class Report:
    """What a soak found."""

    jobs: int = 0
    kills: int = 0
    partitions: int = 0
    hangs: int = 0
    restarts: int = 0
    audit: Audit = field(default_factory=Audit)
    unheld: float = 0.0

    @property
    def is_good(self) -> bool:
        """Whether everything was as promised."""
        found = self.audit
        return not (found.lost or found.doubled or found.stuck) and self.unheld <= MOST_UNHELD_SECONDS

    def __str__(self) -> str:
        found = self.audit
        return (
            f"jobs {self.jobs} · kills {self.kills} · partitions {self.partitions} · hangs {self.hangs} · "
            f"restarts {self.restarts} · lost {len(found.lost)} · doubled {len(found.doubled)} · "
            f"stuck {len(found.stuck)} · longest held by nobody after a reconnect {self.unheld:.2f} s"
        )


class Soak:
    """One run."""

    def __init__(self, stand: Stand, seed: int, folder: Path) -> None:
        self._stand = stand
        stand.lease(_LEASE_SECONDS)
        self._dice = random.Random(seed)
        self._acknowledged = Acknowledged(folder / "acknowledged")
        self._stop = threading.Event()
        self._report = Report()
        self._begun = time.time()
        self._crashed: set[str] = set()
        self._ends: list[tuple[float, str]] = []  # of faults: when, and on which node ("" is the broker's)
        self._faults: dict[str, Callable[[], str]] = {
            "kill the runner": self._kill_runner,
            "kill the broker": self._kill_broker,
            "crash the host": self._crash,
            "partition": self._cut,
            "hang": self._hang,
            "restart the broker": self._restart,
        }

    def run(self, seconds: float) -> Report:
        """Break and mend for that long, let everything come to its end, and look."""
        submitters = [threading.Thread(target=self._submit, args=(number,)) for number in range(_SUBMITTERS)]
        for submitter in submitters:
            submitter.start()
        try:
            end = time.monotonic() + seconds
            while time.monotonic() < end:
                time.sleep(self._dice.uniform(*_CALM))
                name = self._dice.choice(sorted(self._faults))
                print(f"{time.time() - self._begun:7.1f} s  {name}", flush=True)
                node = self._faults[name]()
                self._ends.append((time.time(), node))
        finally:
            self._stop.set()
            for submitter in submitters:
                submitter.join()
            self._stand.all_well()
        return self._look()

    def _submit(self, number: int) -> None:
        dice = random.Random(number)
        agents = sorted(self._stand.agents)
        while not self._stop.wait(dice.uniform(*_PAUSE)):
            with suppress(httpx.TransportError, httpx.HTTPStatusError):
                job = self._stand.submit(dice.choice(agents), script(dice.uniform(*_JOB)))
                self._acknowledged.note(job)

    def _look(self) -> Report:
        ids = self._acknowledged.ids
        deadline = time.monotonic() + _SETTLE_SECONDS
        while time.monotonic() < deadline and any(self._unfinished()):
            time.sleep(0.5)
        answers = {job: self._stand.bot.get(f"/jobs/{job}") for job in ids}
        statuses = {job: answer.json()["status"] if answer.is_success else None for job, answer in answers.items()}
        book = Book.read(agent.workspace for agent in self._stand.agents.values())
        self._report.jobs = len(ids)
        self._report.audit = audit(statuses, book, self._excused())
        self._report.unheld = self._longest_unheld()
        self._acknowledged.close()
        return self._report

    def _unfinished(self) -> list[bool]:
        pages = [self._stand.bot.get("/jobs", params={"status": status}) for status in ("queued", "running")]
        return [bool(page.json()["jobs"]) for page in pages]

    def _excused(self) -> frozenset[str]:
        """Jobs of nodes that crashed, and jobs whose lease ran out."""
        jobs = {job: self._stand.job(job)["agent"] for job in self._acknowledged.ids}
        crashed = {job for job, agent in jobs.items() if self._stand.agents[agent].machine.name in self._crashed}
        return frozenset(crashed | {job for _, job in self._taken_back("lease lost: job ")})

    def _taken_back(self, words: str) -> list[tuple[float, str]]:
        """When the broker said so, and of which job."""
        log = self._stand.log(self._stand.broker_host, "-u openclaw-broker", self._begun)
        return [(line.time, line.text.partition("job ")[2][:36]) for line in log if words in line.text]

    def _longest_unheld(self) -> float:
        heard = {agent: self._successes(agent) for agent in self._stand.agents.values()}
        longest = 0.0
        for when, job in [*self._taken_back("not held by "), *self._taken_back("lease lost: job ")]:
            agent = self._stand.agents[self._stand.job(job)["agent"]]
            fault = max(
                (end for end, machine in self._ends if machine in {agent.machine.name, ""} and end < when), default=0
            )
            first = min((time for time in heard[agent] if time > fault), default=when)
            longest = max(longest, when - first)
        return longest

    def _successes(self, agent: Agent) -> list[float]:
        uid = str(agent.home.stat().st_uid)
        log = self._stand.log(agent.machine, "_SYSTEMD_USER_UNIT=openclaw-runner.service", self._begun)
        return [line.time for line in log if line.uid == uid and line.text.endswith(_SUCCESSES)]

    def _agent(self) -> Agent:
        return self._stand.agents[self._dice.choice(sorted(self._stand.agents))]

    def _kill_runner(self) -> str:
        agent = self._agent()
        kill(until(lambda: agent.runner, "a runner"))
        self._report.kills += 1
        return agent.machine.name

    def _kill_broker(self) -> str:
        kill(until(lambda: self._stand.broker, "a broker"))
        self._report.kills += 1
        return ""

    def _crash(self) -> str:
        machine = self._agent().machine
        machine.crash()
        self._report.kills += 1
        machine.start()
        machine.wait()
        self._crashed.add(machine.name)
        return machine.name

    def _cut(self) -> str:
        machine = self._agent().machine
        machine.cut(self._dice.choice(list(Direction)))
        time.sleep(self._dice.uniform(*_FAULT))
        machine.heal()
        self._report.partitions += 1
        return machine.name

    def _hang(self) -> str:
        agent = self._agent()
        agent.machine.hang(inside(until(lambda: agent.runner, "a runner")))
        time.sleep(self._dice.uniform(*_FAULT))
        agent.machine.resume()
        self._report.hangs += 1
        return agent.machine.name

    def _restart(self) -> str:
        self._stand.broker_host.ssh("sudo systemctl restart openclaw-broker")
        self._report.restarts += 1
        return ""


def main() -> int:
    """Deploy a fleet, soak it, print the report."""
    parser = argparse.ArgumentParser(prog="make soak", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    with deployed("soak") as stand, tempfile.TemporaryDirectory(prefix="soak-") as folder:
        report = Soak(stand, options.seed, Path(folder)).run(options.seconds)
    print(f"seed {options.seed}: {report}")
    return 0 if report.is_good else 1


if __name__ == "__main__":
    sys.exit(main())
