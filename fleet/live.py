"""A job as it goes: what it prints on standard output, what becomes of it on standard error."""

from __future__ import annotations

import math
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import typer

from fleet import jobs, status
from fleet.broker import next_wait, not_ended
from fleet.console import err
from fleet.errors import BrokerError, UnansweredError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fleet.broker import Broker

_INTERRUPTED = 130


def wait(client: Broker, job_id: str, seconds: float) -> None:
    """Wait for a job's end and print what it printed.

    Raises:
        typer.Exit: it failed.
    """
    with _going_on(job_id):
        _say_if_paused(client)
        job = client.finished(job_id, seconds)
    _print_output(job)
    if job["status"] == "failed":
        raise typer.Exit(1)


def follow(client: Broker, job_id: str, seconds: float | None = None) -> None:
    """Print what a job prints and reports, as it comes, until its end, or for so many seconds.

    Raises:
        typer.Exit: it failed.
        BrokerError: it has not ended in that time.
    """
    with _going_on(job_id):
        _say_if_paused(client)
        has_log = _follow(client, job_id, seconds)
        job = client.job(job_id)
    if job["status"] == "failed":
        say(jobs.failure(job))
        raise typer.Exit(1)
    # What is no program's output has not been in the log.
    if not (has_log and jobs.is_of_program(job)):
        _print_output(job)
    say(jobs.ending(job))


def _follow(client: Broker, job_id: str, seconds: float | None) -> bool:
    """Print what comes; say whether any of it was a log."""
    deadline = math.inf if seconds is None else time.monotonic() + seconds
    shown = _Shown()
    after = hold = 0
    while True:
        seen = client.reports(job_id, after, wait=hold)
        shown.take(seen)
        after = seen["after"]
        if seen["outcome"] and not seen["events"]:
            return shown.has_log
        hold = next_wait(deadline)
        if not hold:
            raise not_ended(job_id, seconds or 0)


class _Shown:
    """What has been printed of a job."""

    def __init__(self) -> None:
        self.has_log = False
        self._at_line_start = True
        self._told: dict[str, str] = {}

    def take(self, seen: dict[str, Any]) -> None:
        """Print what the broker said of it."""
        if not seen["outcome"]:
            self._tell("state", seen["status"])
        for event in seen["events"]:
            if event["type"] == "log":
                self._log(event["text"])
            else:
                self._tell("progress", jobs.report(event["progress"], event["note"]))
        if seen["outcome"]:
            self._end_line()

    def _log(self, text: str) -> None:
        typer.echo(text, nl=False)
        self.has_log = True
        self._at_line_start = text.endswith("\n")

    def _tell(self, what: str, words: str) -> None:
        """Say something of a job, once, on a line of its own."""
        if words and words != self._told.get(what):
            self._end_line()
            say(words)
            self._told[what] = words

    def _end_line(self) -> None:
        if not self._at_line_start:
            typer.echo()
            self._at_line_start = True


@contextmanager
def _going_on(job_id: str) -> Iterator[None]:
    """Say what becomes of a job where nobody waits for it any more."""
    ways = f"job {job_id} goes on: fleet follow shows it, fleet cancel ends it"
    try:
        yield
    except KeyboardInterrupt:
        err.print(f"\nfleet: {ways}", markup=False)
        raise typer.Exit(_INTERRUPTED) from None
    except UnansweredError as error:
        raise BrokerError(f"{error}; {ways}") from error


def _say_if_paused(client: Broker) -> None:
    if paused := client.paused():
        say(status.pause_line(paused))


def _print_output(job: dict[str, Any]) -> None:
    printed, said = jobs.output(job)
    typer.echo(printed, nl=not printed.endswith("\n") and bool(printed))
    if said:
        typer.echo(said.rstrip("\n"), err=True)


def say(words: str) -> None:
    """Print what is no job's own output."""
    err.print(words, markup=False)
