"""`make bench`: site.yml on fresh and on converged hosts, beside a shell script that does the same work.

Every run of a round starts from fresh hosts, and the rounds alternate between both, so that they see the same machine.
Packages come from the lab's cache and releases are built, for both: the first run, which sees to that, is not counted.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from fleet import inventory
from fleet.errors import FleetError
from lab import folders
from lab.errors import LabError
from tests.bench import report
from tests.bench.measure import CommandError
from tests.bench.site import PURPOSE, Site
from tests.support.fleet import CONVERGED, TestFleet
from tests.support.lab import PROJECT, TestLab, missing

if TYPE_CHECKING:
    from pathlib import Path

    from tests.bench.site import Converged

# What judges site.yml's hosts in CI judges the script's here, save what is about a scenario's own variables, and about
# the tailnet that these hosts are not in.
_CHECKS = {
    "roles": tuple(f"roles/{role}/molecule/default/tests/test_default.py" for role in ("broker", "runner")),
    "hosts": ("tests/acceptance/test_hosts.py", "tests/acceptance/test_audit.py"),
}
out = Console(highlight=False, soft_wrap=True, width=None if sys.stdout.isatty() else 140)


class Bench:
    """Runs, and what they showed so far."""

    def __init__(self, results: Path) -> None:
        self.results = results
        self.samples: list[report.Sample] = []

    def warm_up(self) -> None:
        """Have images, packages and releases in the caches."""
        site = Site(3, self.results)
        site.fresh()
        site.site_yml("warm-up")

    def rounds(self, size: int, count: int) -> None:
        """Converge some hosts in both ways, `count` times."""
        site = Site(size, self.results)
        for number in range(1, count + 1):
            site.fresh()
            self._keep(site, number, report.COLD, site.site_yml(f"{size}-{number}-cold"))
            site.wait_online()
            if number == 1:
                bundle = site.bundle()
            site.forget_connections()
            second = self._keep(site, number, report.SECOND, site.site_yml(f"{size}-{number}-second"))
            if second.changed:
                raise CommandError(f"the second run changed {second.changed} things; see {self.results}")
            site.fresh()
            self._keep(site, number, report.SCRIPT, site.script(bundle, f"{size}-{number}-script"))
            site.wait_online()

    def _keep(self, site: Site, number: int, kind: str, run: Converged) -> report.Sample:
        usage = run.usage
        sample = report.Sample(
            hosts=len(site.nodes),
            round=number,
            kind=kind,
            wall=usage.wall,
            controller=usage.controller,
            per_host=sum(usage.hosts.values()) / len(usage.hosts),
            elsewhere=usage.elsewhere,
            load=usage.load,
            modules=max(run.modules.values(), default=0),
            changed=run.changed,
        )
        self.samples.append(sample)
        raw = [asdict(each) for each in self.samples]
        (self.results / "samples.json").write_text(json.dumps(raw, indent=2))
        with (self.results / "runs.jsonl").open("a") as stream:
            stream.write(json.dumps({"hosts": sample.hosts, "round": number, "kind": kind, **asdict(run)}) + "\n")
        out.print(
            f"{sample.hosts:>2} hosts  round {number}  {kind:<7} {sample.wall:6.1f} s   load before {sample.load:.1f}, "
            f"CPU of others {sample.elsewhere:.1f} s"
        )
        return sample


def check(results: Path) -> list[tuple[bool, str]]:
    """Have the tests that judge site.yml's hosts judge those that are there; return verdicts and their lines."""
    verdicts: list[tuple[bool, str]] = []
    fleet = TestFleet(PURPOSE)
    listed = fleet.lab.lab.inventory
    environment = {**fleet.environment, **inventory.environment(), "LAB_INVENTORY": str(listed)}
    for name, tests in _CHECKS.items():
        log = results / f"check-{name}.log"
        with log.open("w") as output:
            done = subprocess.run(
                [
                    sys.executable,
                    "-m",
                    "pytest",
                    "-p",
                    "no:cacheprovider",
                    "-m",
                    "not tailnet",
                    f"--ansible-inventory={listed}",
                    *tests,
                ],
                cwd=PROJECT,
                env={**environment, CONVERGED: PURPOSE},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                check=False,
            )
        holds, ended = done.returncode == 0, log.read_text().splitlines()[-1].strip("= ")
        word = "holds" if holds else "BROKEN"
        verdicts.append((holds, f"{word:<7} tests of {name} on the script's hosts: {ended}; see {log}"))
        out.print(verdicts[-1][1])
    return verdicts


def main(
    rounds: Annotated[int, typer.Option(min=1, help="Rounds with 3 hosts.")] = 3,
    large_rounds: Annotated[int, typer.Option(min=0, help="Rounds with 10 hosts.")] = 1,
) -> None:
    """Measure, print the table and the verdict; status 1 where a limit is broken."""
    if lacking := missing():
        raise LabError(lacking)
    started = time.monotonic()
    results = folders.cache() / "bench" / time.strftime("%Y%m%d-%H%M%S")
    results.mkdir(parents=True)
    bench = Bench(results)
    lab = TestLab(PURPOSE)
    lab.run("down")
    try:
        bench.warm_up()
        bench.rounds(3, rounds)
        checks = check(results)
        if large_rounds:
            bench.rounds(10, large_rounds)
    finally:
        lab.run("down")
    figures = report.Figures(bench.samples)
    out.print("", report.table(figures), "", sep="\n")
    verdicts = [limit.verdict(figures) for limit in report.LIMITS if large_rounds or 10 not in limit.hosts]
    verdicts += checks
    for _, line in verdicts:
        out.print(line)
    out.print(f"\nraw output: {results}   {(time.monotonic() - started) / 60:.1f} minutes")
    if not all(holds for holds, _ in verdicts):
        sys.exit(1)


if __name__ == "__main__":
    try:
        typer.run(main)
    except (CommandError, LabError, FleetError, OSError, subprocess.SubprocessError) as error:
        typer.echo(f"bench: {error}", err=True)
        sys.exit(1)
