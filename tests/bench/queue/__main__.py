"""The queue bench of `make bench`: our broker beside beanstalkd, and beside what the disk, SQLite and HTTP give.

Each round has a short slice of everything, so that all see the same machine; half of the rounds go backwards. The disk
is the one that the cache is on. Everything is served on the loopback, with what the role configures.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from lab import folders
from tests.bench.queue import figures as sums
from tests.bench.queue import limits, servers
from tests.bench.queue.figures import Figures
from tests.bench.queue.goals import GOALS, unit
from tests.bench.queue.load import Result, Slice
from tests.support.lab import PROJECT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.bench.queue.servers import Broker, Server

_BACKLOG = 100_000
_FINISHED = 1_000_000
_MANY = 16
_IDLE_RUNNERS = 50
_POLL_SECONDS = 25.0  # of one long poll: a window of it has one of each runner's
_PATIENCE = 30.0
_MEMORY_FILE_SYSTEMS = {"tmpfs", "ramfs"}
out = Console(highlight=False, soft_wrap=True, width=None if sys.stdout.isatty() else 160)


class Bench:
    """Slices, and what they showed so far."""

    def __init__(self, disk: Path, results: Path, seconds: float) -> None:
        self.disk = disk
        self.results = results
        self.seconds = seconds
        self.figures = Figures()

    def load(self, kind: str, server: Server, *, clients: int = 1, seconds: float = 0.0, measure: str = "") -> Result:
        """Load a server for a slice; with the name of a measure, its rate is that measure's next figure."""
        asked = self.asked(kind, server, clients, seconds or self.seconds)
        load = os.getloadavg()[0]
        with _generator(asked) as generator:
            text, _ = generator.communicate(timeout=asked.seconds + _PATIENCE)
        if generator.returncode:
            raise OSError(f"the load {kind} failed")
        result = Result(**json.loads(text))
        self._keep(kind=kind, measure=measure, clients=clients, machine_load=load, **asdict(result))
        if measure:
            self.figures.add(measure, result.done / result.seconds)
        return result

    def asked(self, kind: str, server: Server, clients: int, seconds: float) -> Slice:
        """A slice on a server."""
        bot, workers = getattr(server, "bot", ""), getattr(server, "workers", ())
        return Slice(kind, server.port, clients, seconds, bot, workers[:clients], str(self.disk / "scratch"))

    def add(self, measure: str, figure: float) -> None:
        """Keep a figure that no load gave."""
        self._keep(measure=measure, machine_load=os.getloadavg()[0], figure=figure)
        self.figures.add(measure, figure)

    def in_turn(self, number: int, *slices: Callable[[], object]) -> None:
        """Do slices one after the other, every other round backwards."""
        for each in slices if number % 2 else slices[::-1]:
            each()

    def _keep(self, **facts: object) -> None:
        with (self.results / "slices.jsonl").open("a") as stream:
            stream.write(json.dumps({"at": time.time(), **facts}) + "\n")


@contextmanager
def _generator(asked: Slice) -> Iterator[subprocess.Popen[str]]:
    argv = [sys.executable, "-m", "tests.bench.queue.load"]
    with subprocess.Popen(argv, cwd=PROJECT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as generator:
        assert generator.stdin
        generator.stdin.write(json.dumps(asdict(asked)))
        generator.stdin.close()
        generator.stdin = None
        try:
            yield generator
        finally:
            generator.terminate()


def throughput(bench: Bench, rounds: int) -> None:
    """How much goes through, beside the peer and the limits; then memory, and fdatasyncs of single slices."""
    with ExitStack() as stack:
        broker, quiet = (stack.enter_context(servers.Broker(bench.disk / name)) for name in ("busy", "quiet"))
        peer = _peer(bench, stack)
        asgi, sink = (
            stack.enter_context(servers.bare(kind, bench.results / f"{kind}.log")) for kind in ("asgi", "sink")
        )
        single, many = (limits.Table(bench.disk / f"{name}.db") for name in ("single", "many"))
        for number in range(1, rounds + 1):
            out.print(f"round {number} of {rounds}: throughput   load {os.getloadavg()[0]:.1f}")
            bench.in_turn(
                number,
                lambda: bench.load("enqueue", broker, measure="enqueue, 1 client"),
                lambda: bench.add("SQLite, 1 row per commit", single.rate(bench.seconds, 1)),
                lambda: bench.load("batches", broker, measure="batches of 100, 1 client"),
                lambda: bench.add("SQLite, 100 rows per commit", many.rate(bench.seconds, limits.BATCH)),
            )
            bench.in_turn(number, lambda: _submit_and_work(bench, broker), lambda: _peers_turn(bench, peer))
            bench.load("echo", asgi, clients=_MANY, seconds=0.5, measure="bare HTTP, 16 clients")
            bench.load("echo", sink, clients=_MANY, seconds=0.5, measure="the load itself, 16 clients")
            _idle_latency(bench, quiet)
        single.close()
        many.close()
        bench.add("broker's memory", broker.resident)
        _syncs(bench, broker)


def _peer(bench: Bench, stack: ExitStack) -> Server | None:
    if servers.BEANSTALKD.exists():
        return stack.enter_context(servers.beanstalkd(bench.disk / "peer"))
    for measure in ("beanstalkd put, 16 clients", "beanstalkd reserve+delete, 16 workers"):
        bench.figures.skip(measure, "no beanstalkd; scripts/setup bench gets it")
    return None


def _submit_and_work(bench: Bench, broker: Broker) -> None:
    bench.load("enqueue", broker, clients=_MANY, measure="enqueue, 16 clients")
    claims = bench.load("work", broker, clients=_MANY, measure="claim+complete, 16 workers").waits
    bench.add("claim p50, 16 workers", sums.percentile(claims, 50) * 1000)
    bench.add("claim p99, 16 workers", sums.percentile(claims, 99) * 1000)


def _peers_turn(bench: Bench, peer: Server | None) -> None:
    if peer:
        bench.load("put", peer, clients=_MANY, measure="beanstalkd put, 16 clients")
        bench.load("reserve", peer, clients=_MANY, measure="beanstalkd reserve+delete, 16 workers")


def _idle_latency(bench: Bench, broker: Broker) -> None:
    timed = bench.load("idle", broker, clients=1, seconds=40)
    wait, sync = median(timed.waits) * 1000, median(timed.syncs) * 1000
    bench.add("idle enqueue→claim", wait)
    bench.add("fdatasync of 4 KiB", sync)
    bench.add("idle enqueue→claim, beyond 2 fdatasync", wait - 2 * sync)


def _syncs(bench: Bench, broker: Broker) -> None:
    """Count fdatasyncs per operation, in slices that count for nothing else: whoever is traced is slow."""
    for kind, clients in (("enqueue", 1), ("enqueue", _MANY), ("work", 1), ("work", _MANY)):
        measure = f"fdatasyncs per {kind}, {clients} at once"
        summary = bench.results / f"strace-{kind}-{clients}.txt"
        argv = ["strace", "-f", "-c", "-U", "calls,name", "-e", "trace=fdatasync", "-o", str(summary)]
        try:
            tracer = subprocess.Popen([*argv, "-p", str(broker.pid)], stderr=subprocess.DEVNULL)
        except FileNotFoundError:
            bench.figures.skip(measure, "no strace")
            return
        time.sleep(0.5)
        done = bench.load(kind, broker, clients=clients).done
        tracer.send_signal(signal.SIGINT)
        tracer.wait()
        calls = re.search(r"^\s*(\d+) fdatasync$", summary.read_text() if summary.exists() else "", re.MULTILINE)
        bench.add(measure, int(calls[1]) / done if calls else 0.0)


def depth(bench: Bench, rounds: int) -> None:
    """What claims cost beside many other jobs, and the cap beside none; then what idle runners and a restart cost."""
    out.print(f"filling tables with {_FINISHED:,} jobs and with {_BACKLOG:,}")
    limits.fill(_folder(bench, "finished"), finished=_FINISHED)
    limits.fill(_folder(bench, "foreign"), foreign=_BACKLOG)
    for name in ("queued", "uncapped"):
        limits.fill(_folder(bench, name), queued=_BACKLOG)
    with ExitStack() as stack:
        empty, finished, foreign, queued = (
            stack.enter_context(servers.Broker(bench.disk / name))
            for name in ("empty", "finished", "foreign", "queued")
        )
        uncapped = stack.enter_context(servers.Broker(bench.disk / "uncapped", MAX_QUEUED_JOBS="0"))
        for number in range(1, rounds + 1):
            out.print(f"round {number} of {rounds}: depth   load {os.getloadavg()[0]:.1f}")
            bench.in_turn(
                number,
                lambda: _claims(bench, empty, "empty table"),
                lambda: _claims(bench, queued, "100k queued"),
                lambda: _claims(bench, finished, "1M finished"),
                lambda: _claims(bench, foreign, "100k foreign"),
            )
            _cap(bench, number, queued, uncapped)
        _idle_runners(bench, foreign)
        _runners_memory(bench, empty)
        for _ in range(5):
            finished.stop()
            bench.add("restart with 1M jobs", finished.start())


def _folder(bench: Bench, name: str) -> Path:
    folder = bench.disk / name
    folder.mkdir()
    return folder / "broker.db"


def _claims(bench: Bench, broker: Broker, table: str) -> None:
    bench.load("batches", broker, seconds=0.05)
    claims = bench.load("work", broker, seconds=bench.seconds / 2).waits
    bench.add(f"claim p50, {table}", sums.percentile(claims, 50) * 1000)


def _cap(bench: Bench, number: int, capped: Broker, uncapped: Broker) -> None:
    """In CPU, which the disk does not disturb, and in two slices of each, the second ones the other way round."""
    cost = dict.fromkeys((capped, uncapped), 0.0)
    for turn in (number, number + 1):
        for broker in (capped, uncapped) if turn % 2 else (uncapped, capped):
            before = broker.cpu
            done = bench.load("enqueue", broker, clients=_MANY, seconds=bench.seconds / 2).done
            cost[broker] += (broker.cpu - before) / done / 2
    bench.add("CPU of an enqueue, 100k queued, cap", cost[capped] * 1e6)
    bench.add("CPU of an enqueue, 100k queued, no cap", cost[uncapped] * 1e6)


def _idle_runners(bench: Bench, broker: Broker) -> None:
    """With nothing to do for any of them: what is queued there is foreign."""
    bench.load("work", broker, clients=_MANY, seconds=30)
    with _generator(bench.asked("poll", broker, _IDLE_RUNNERS, 1e9)):
        time.sleep(3)
        began, before = time.perf_counter(), broker.cpu
        time.sleep(_POLL_SECONDS)
        used = (broker.cpu - before) / (time.perf_counter() - began)
    bench.add("50 idle runners", used * 100)


def _runners_memory(bench: Bench, broker: Broker) -> None:
    with servers.Runner(bench.disk / "runner", broker) as runner:
        bench.load("batches", broker, seconds=0.01)
        time.sleep(5)
        bench.add("runner's memory", runner.resident)


def _file_system(path: Path) -> str:
    argv = ["findmnt", "--noheadings", "--output", "FSTYPE", "--target", str(path)]
    return subprocess.run(argv, capture_output=True, text=True, check=True).stdout.strip()


def main(
    rounds: Annotated[int, typer.Option(min=1, help="Rounds.")] = 7,
    seconds: Annotated[float, typer.Option(min=0.1, help="Of a slice.")] = 1.2,
) -> None:
    """Measure, print the tables; status 1 where a goal is missed."""
    started = time.monotonic()
    results = PROJECT / "tests/bench/results" / time.strftime("queue-%Y%m%d-%H%M%S")
    results.mkdir(parents=True)
    folders.cache().mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="bench-", dir=folders.cache()) as disk:
        system = _file_system(Path(disk))
        if system in _MEMORY_FILE_SYSTEMS:
            raise OSError(f"{disk} is in memory ({system}): set XDG_CACHE_HOME to a folder on a disk")
        bench = Bench(Path(disk), results, seconds)
        if os.getloadavg()[0] > 1:
            out.print(f"the machine is busy (load {os.getloadavg()[0]:.1f}): what follows is about that too")
        level = asyncio.run(limits.synchronous(Path(disk) / "pragma.db"))
        out.print(f"PRAGMA synchronous of the writing connection at a durable commit: {level}   disk: {system}")
        throughput(bench, rounds)
        depth(bench, rounds)
    judged = [sums.judge(goal, bench.figures) for goal in GOALS]
    with (results / "summary.txt").open("w") as stream:
        for console in (out, Console(file=stream, width=160)):
            console.print("", sums.medians(bench.figures, unit), "", sums.verdicts(judged), sep="\n")
            console.print(
                f"\n{time.strftime('%d %b %Y %H:%M')}   synchronous={level}   {system}   {rounds} rounds of {seconds} s"
                f"   {os.cpu_count()} CPUs, load at the end {os.getloadavg()[0]:.1f}"
                f"   {(time.monotonic() - started) / 60:.1f} minutes"
            )
    out.print(f"raw output: {results}")
    if any(verdict.met is False for verdict in judged):
        sys.exit(1)


if __name__ == "__main__":
    try:
        typer.run(main)
    except (OSError, subprocess.SubprocessError) as error:
        typer.echo(f"bench: {error}", err=True)
        sys.exit(1)
