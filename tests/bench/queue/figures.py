"""The queue bench's arithmetic: one figure per measure and round, ratios within a round, medians over rounds."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median, quantiles
from typing import TYPE_CHECKING

from rich.table import Table

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


class Figures:
    """What was measured: by measure, a figure of each round, in the rounds' order."""

    def __init__(self) -> None:
        self._rounds: dict[str, list[float]] = {}
        self.skipped: dict[str, str] = {}

    def add(self, measure: str, figure: float) -> None:
        """Keep the next round's figure of a measure."""
        self._rounds.setdefault(measure, []).append(figure)

    def skip(self, measure: str, why: str) -> None:
        """Say why a measure has no figures."""
        self.skipped[measure] = why

    @property
    def measures(self) -> tuple[str, ...]:
        """Every measure that has figures."""
        return tuple(self._rounds)

    def rounds(self, measure: str) -> list[float]:
        """A measure's figures, by round."""
        return self._rounds.get(measure, [])

    def ratios(self, measure: str, other: str) -> list[float]:
        """Of each round, a measure's figure to another's: a machine that is slow for a while is so for both."""
        return [ours / theirs for ours, theirs in zip(self.rounds(measure), self.rounds(other), strict=True)]


@dataclass(frozen=True)
class Goal:
    """A bound on the median of a measure, or of its ratio to another.

    Attributes:
        best: The stretch, if there is one.
        least: Whether the bound is the least that it may be, and not the most.
    """

    what: str
    measure: str
    bound: float
    unit: str = "x"
    to: str | None = None
    least: bool = False
    best: float | None = None

    def of_rounds(self, figures: Figures) -> list[float]:
        """What the goal is about, by round."""
        return figures.rounds(self.measure) if self.to is None else figures.ratios(self.measure, self.to)

    def reached(self, value: float, bound: float) -> bool:
        """Whether a value is within a bound."""
        return value >= bound if self.least else value <= bound


@dataclass(frozen=True)
class Verdict:
    """A goal, what came of it, and a word for that; `met` is None where it could not be measured."""

    goal: Goal
    rounds: tuple[float, ...]
    value: float
    met: bool | None
    word: str


def judge(goal: Goal, figures: Figures) -> Verdict:
    """Hold a goal against the figures."""
    missing = [name for name in (goal.measure, goal.to) if name and not figures.rounds(name)]
    if missing:
        why = next((figures.skipped[name] for name in missing if name in figures.skipped), "not measured")
        return Verdict(goal, (), 0.0, None, f"skipped: {why}")
    rounds = goal.of_rounds(figures)
    value = median(rounds)
    met = goal.reached(value, goal.bound)
    stretch = met and goal.best is not None and goal.reached(value, goal.best)
    return Verdict(goal, tuple(rounds), value, met, "met, stretch too" if stretch else "met" if met else "NOT MET")


def percentile(values: Sequence[float], percent: int) -> float:
    """The value below which so many percent of the values are."""
    return quantiles(values, n=100, method="inclusive")[percent - 1]


def medians(figures: Figures, unit: Callable[[str], str]) -> Table:
    """A row for each measure, with its median and its rounds."""
    shown = Table("measure", box=None, pad_edge=False)
    for column in ("unit", "median", "by round"):
        shown.add_column(column, justify="left" if column == "by round" else "right")
    for measure in figures.measures:
        rounds = figures.rounds(measure)
        shown.add_row(measure, unit(measure), short(median(rounds)), " ".join(map(short, rounds)))
    return shown


def verdicts(judged: Sequence[Verdict]) -> Table:
    """A row for each goal."""
    shown = Table("goal", box=None, pad_edge=False)
    for column in ("bound", "median", "", "by round"):
        shown.add_column(column, justify="right" if column in ("bound", "median") else "left")
    for verdict in judged:
        goal = verdict.goal
        bound = f"{'≥' if goal.least else '≤'} {goal.bound:g}{goal.unit}"
        bound += f" ({goal.best:g})" if goal.best is not None else ""
        value = "-" if verdict.met is None else f"{short(verdict.value)}{goal.unit}"
        shown.add_row(goal.what, bound, value, verdict.word, " ".join(map(short, verdict.rounds)))
    return shown


def short(value: float) -> str:
    """A number with about three digits that count."""
    if abs(value) >= 100:
        return f"{value:.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"
