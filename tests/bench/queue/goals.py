"""What the queue is held to: issue by issue the same words, each a bound on a figure of the bench."""

from __future__ import annotations

from tests.bench.queue.figures import Goal

_CLAIM = "claim p50, empty table"

GOALS = (
    Goal(
        "enqueue, 16 clients, to beanstalkd -f 0",
        "enqueue, 16 clients",
        2,
        to="beanstalkd put, 16 clients",
        least=True,
        best=3,
    ),
    Goal(
        "enqueue, 1 client, to SQLite's single commits",
        "enqueue, 1 client",
        0.7,
        to="SQLite, 1 row per commit",
        least=True,
    ),
    Goal(
        "batches of 100, to executemany",
        "batches of 100, 1 client",
        0.5,
        to="SQLite, 100 rows per commit",
        least=True,
    ),
    Goal(
        "claim+complete, 16 workers, to beanstalkd -f 0",
        "claim+complete, 16 workers",
        1,
        to="beanstalkd reserve+delete, 16 workers",
        least=True,
        best=1.5,
    ),
    Goal("claim p99 at 16 workers, to its p50", "claim p99, 16 workers", 5, to="claim p50, 16 workers"),
    Goal("idle enqueue→claim, beyond 2 fdatasync", "idle enqueue→claim, beyond 2 fdatasync", 1, unit=" ms"),
    Goal("claim with 100k queued, to an empty table", "claim p50, 100k queued", 1.2, to=_CLAIM),
    Goal("claim with 1M finished", "claim p50, 1M finished", 1.2, to=_CLAIM),
    Goal("claim behind 100k of a foreign capability", "claim p50, 100k foreign", 2, to=_CLAIM),
    Goal(
        "enqueue with the cap on, to without",
        "CPU of an enqueue, 100k queued, cap",
        1.05,
        to="CPU of an enqueue, 100k queued, no cap",
    ),
    Goal("50 idle long-polling runners, of a core", "50 idle runners", 0.3, unit=" %"),
    Goal("broker's memory", "broker's memory", 45, unit=" MiB"),
    Goal("runner's memory", "runner's memory", 45, unit=" MiB"),
    Goal("restart to serving with 1M jobs", "restart with 1M jobs", 0.5, unit=" s"),
)
_UNITS = {
    "broker's memory": "MiB",
    "runner's memory": "MiB",
    "50 idle runners": "%",
    "restart with 1M jobs": "s",
    "fdatasync of 4 KiB": "ms",
}


def unit(measure: str) -> str:
    """The unit of a measure's figures."""
    if measure in _UNITS:
        return _UNITS[measure]
    if measure.startswith("fdatasyncs"):
        return ""
    if measure.startswith("CPU"):
        return "µs"
    return "ms" if measure.startswith(("claim p", "idle")) else "per s"
