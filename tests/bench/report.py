"""The bench's limits, and its table."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING

from rich.table import Table

from tests.support.ansible import MOST_MODULE_RUNS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

COLD, SECOND, SCRIPT = "cold", "second", "script"


@dataclass(frozen=True)
class Sample:
    """One run's figures; CPU of hosts is their mean, module runs those of the host with most."""

    hosts: int
    round: int
    kind: str
    wall: float
    controller: float
    per_host: float
    elsewhere: float
    load: float
    modules: int
    changed: int


class Figures:
    """All samples of a bench."""

    def __init__(self, samples: Iterable[Sample]) -> None:
        self.samples = list(samples)

    def of(self, hosts: int, kind: str) -> list[Sample]:
        """Return the samples of one kind of run, by round."""
        return [sample for sample in self.samples if (sample.hosts, sample.kind) == (hosts, kind)]

    def wall(self, hosts: int, kind: str) -> float:
        """Return the median of their seconds."""
        return median(sample.wall for sample in self.of(hosts, kind))

    def times_script(self, hosts: int, kind: str) -> float:
        """Return the median of their ratios to the script of the same round."""
        pairs = zip(self.of(hosts, kind), self.of(hosts, SCRIPT), strict=True)
        return median(sample.wall / script.wall for sample, script in pairs)

    def modules(self, kind: str) -> float:
        """Return the most module runs that any host had."""
        return max(sample.modules for sample in self.samples if sample.kind == kind)


@dataclass(frozen=True)
class Limit:
    """A figure, and the most that it may be."""

    what: str
    most: float
    unit: str
    hosts: tuple[int, ...]
    figure: Callable[[Figures], float]

    def verdict(self, figures: Figures) -> tuple[bool, str]:
        """Say whether it holds, and the line that tells."""
        value = self.figure(figures)
        holds = value <= self.most
        word = "holds" if holds else "BROKEN"
        return holds, f"{word:<7} {self.what:<46} {value:6.1f}{self.unit}   at most {self.most:g}{self.unit}"


LIMITS = (
    Limit("cold converge of 3 hosts, to the script", 4, " times", (3,), lambda all_: all_.times_script(3, COLD)),
    Limit("cold converge of 3 hosts", 60, " s", (3,), lambda all_: all_.wall(3, COLD)),
    Limit("second converge of 3 hosts", 40, " s", (3,), lambda all_: all_.wall(3, SECOND)),
    Limit(
        "second converge of 10 hosts, to that of 3",
        3.3,
        " times",
        (3, 10),
        lambda all_: all_.wall(10, SECOND) / all_.wall(3, SECOND),
    ),
    Limit("module runs per host in a second converge", MOST_MODULE_RUNS, "", (), lambda all_: all_.modules(SECOND)),
)


def table(figures: Figures) -> Table:
    """Return a row of medians for each kind of run."""
    shown = Table("hosts", "run", box=None, pad_edge=False)
    for column in ("rounds", "wall s", "to script", "controller CPU s", "CPU s per host", "module runs", "changed"):
        shown.add_column(column, justify="right")
    for hosts, kind in dict.fromkeys((sample.hosts, sample.kind) for sample in figures.samples):
        samples = figures.of(hosts, kind)
        middle = {field: median(getattr(sample, field) for sample in samples) for field in ("controller", "per_host")}
        shown.add_row(
            str(hosts),
            kind,
            str(len(samples)),
            f"{figures.wall(hosts, kind):.1f}",
            f"{figures.times_script(hosts, kind):.2f}",
            f"{middle['controller']:.1f}",
            f"{middle['per_host']:.1f}",
            str(max(sample.modules for sample in samples) or "-"),
            "-" if kind == SCRIPT else str(max(sample.changed for sample in samples)),
        )
    return shown
