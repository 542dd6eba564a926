"""The commands about jobs that were given, and about the queue that they stand in."""

from __future__ import annotations

import json
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import httpx
import typer
from rich import box
from rich.table import Table
from rich.text import Text

from fleet import broker, inventory, jobs, live, status, times
from fleet.agents import AsJson  # noqa: TC001 -- typer looks at it
from fleet.console import out
from fleet.errors import BrokerError, FleetError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from fleet.broker import Broker

# So much of what a job is about is shown on the narrowest terminal too.
_TASK_WIDTH = 16
_AT_TIMES = ("priority", "progress")

JobId = Annotated[str, typer.Argument(metavar="JOB", help="The job's id, as fleet jobs shows it.")]


def show_jobs(
    context: typer.Context,
    *,
    state: Annotated[str | None, typer.Option("--status", help=f"Only those {', '.join(jobs.STATES)}.")] = None,
    dead: Annotated[bool, typer.Option("--dead", help="The same as --status dead.")] = False,
    agent: Annotated[
        str | None, typer.Option(help="Only those that this agent runs or ran, or that are for it.")
    ] = None,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, metavar="N", help="How many at the most.")] = 20,
    as_json: AsJson = False,
) -> None:
    """List jobs, the newest first."""
    if state and (dead or state not in jobs.STATES):
        raise typer.BadParameter(f"use one of {', '.join(jobs.STATES)}, or --dead", param_hint="--status")
    with _connected(context) as client:
        found = list(client.jobs(limit=limit, agent=agent, **_asked_for("dead" if dead else state)))
        if as_json:
            typer.echo(json.dumps(found, indent=2))
        elif found:
            out.print(_table(found, client.now()))
        else:
            typer.echo("no such jobs")


def cancel(
    context: typer.Context,
    job_id: JobId,
    reason: Annotated[str | None, typer.Option(help="Why, for whoever looks at the job.")] = None,
) -> None:
    """End a job that nobody wants any more, also while it runs; status 1 where it had ended before."""
    jobs.parse_id(job_id)
    with _connected(context) as client:
        with _known(job_id):
            ended = client.cancel(job_id, reason)
        if ended["outcome"] != "cancelled":
            raise FleetError(f"job {job_id} had ended before: {ended['outcome']}")
        typer.echo("cancelled")


def requeue(
    context: typer.Context,
    job_ids: Annotated[list[str] | None, typer.Argument(metavar="[JOB]...", help="Dead jobs.")] = None,
    all_dead: Annotated[bool, typer.Option("--all-dead", help="Every dead job that there is.")] = False,
) -> None:
    """Queue dead jobs again, with all their deliveries before them."""
    if all_dead == bool(job_ids):
        raise typer.BadParameter("give the ids of dead jobs, or --all-dead")
    wanted = [jobs.parse_id(job_id) for job_id in job_ids or ()]
    with _connected(context) as client:
        if all_dead:
            wanted = [job["id"] for job in client.jobs(outcome="dead")]
        else:
            _check_dead(client, wanted)
        with out.status("requeue"):
            queued = sum(_requeued(client, job_id) for job_id in wanted)
        typer.echo(f"{queued} queued again")


def follow(context: typer.Context, job_id: JobId) -> None:
    """Print what a job prints and reports, as it comes, until its end; status 1 where it failed."""
    jobs.parse_id(job_id)
    with _connected(context) as client, _known(job_id):
        live.follow(client, job_id)


def show_queue(context: typer.Context, as_json: AsJson = False) -> None:
    """Show how many jobs there are to do, and whether the queue is paused."""
    with _connected(context) as client:
        seen = client.queue()
        if as_json:
            typer.echo(json.dumps(seen, indent=2))
        else:
            out.print("\n".join(_lines(seen, client.now())), markup=False)


def pause(
    context: typer.Context,
    reason: Annotated[str | None, typer.Argument(help="Why, for whoever wonders.")] = None,
) -> None:
    """Have no job begun until fleet resume. What is running goes on, and jobs can be submitted."""
    with _connected(context) as client:
        client.pause(reason)
        typer.echo("paused")


def resume(context: typer.Context) -> None:
    """Have jobs begun again."""
    with _connected(context) as client:
        client.resume()
        typer.echo("resumed")


@contextmanager
def _connected(context: typer.Context) -> Iterator[Broker]:
    with broker.connect(inventory.load(context.obj.inventories)) as client:
        yield client


@contextmanager
def _known(job_id: str) -> Iterator[None]:
    """Say it in a person's words where the broker knows no such job."""
    try:
        yield
    except BrokerError as error:
        if (error.status, error.detail) == (httpx.codes.NOT_FOUND, "job not found"):
            raise jobs.no_job(job_id) from error
        raise


def _check_dead(client: Broker, job_ids: Iterable[str]) -> None:
    """Refuse before anything is queued what could not be."""
    for job_id in job_ids:
        with _known(job_id):
            state = jobs.state(client.job(job_id))
        if state != "dead":
            raise FleetError(f"nothing was queued again: job {job_id} is not dead but {state}")


def _requeued(client: Broker, job_id: str) -> bool:
    """Queue a job again that was dead just now; say whether it is there still."""
    try:
        client.requeue(job_id)
    except BrokerError as error:
        # It is dead no more: a call without an answer was heard, or somebody else was quicker.
        if error.status == httpx.codes.CONFLICT:
            return True
        if error.status == httpx.codes.NOT_FOUND:
            return False
        raise
    return True


def _asked_for(state: str | None) -> dict[str, str]:
    if state is None:
        return {}
    return {"status" if state in {"queued", "running"} else "outcome": state}


def _table(found: Iterable[dict[str, Any]], now: float) -> Table:
    """Return a line for each job: its id whole, since it is to be typed; no column that says nothing of any."""
    rows = [_row(job, now) for job in found]
    names = [name for name in rows[0] if name not in _AT_TIMES or any(row[name] not in {"", "0"} for row in rows)]
    shown = Table(
        box=box.SIMPLE_HEAD,
        show_edge=False,
        pad_edge=False,
        padding=(0, 1, 0, 0),
        header_style="bold",
        border_style="dim",
    )
    for name in names:
        shown.add_column(name, justify="right" if name in {"priority", "age"} else "left", no_wrap=name != "task")
    for row in rows:
        shown.add_row(*(Text(row[name], no_wrap=True, overflow="ellipsis") for name in names))
    widths = [max(len(name), *(len(row[name]) for row in rows)) for name in names]
    narrowest = sum(widths[:-1]) + 2 * len(widths[:-1]) + min(widths[-1], _TASK_WIDTH)
    if narrowest > out.width:
        shown.width = narrowest
    return shown


def _row(job: dict[str, Any], now: float) -> dict[str, str]:
    return {
        "job": job["id"],
        "agent": jobs.holder(job),
        "state": jobs.state(job),
        "priority": str(job["priority"]),
        "age": times.span(now - job["created_at"]),
        "progress": jobs.progress(job, now),
        "task": jobs.asked(job),
    }


def _lines(seen: dict[str, Any], now: float) -> Iterator[str]:
    oldest = f"   the oldest was submitted {times.span(now - seen['oldest'])} ago" if seen["oldest"] is not None else ""
    yield f"ready    {seen['ready']:>8}{oldest}"
    yield f"delayed  {seen['delayed']:>8}"
    yield f"running  {seen['running']:>8}"
    yield f"dead     {seen['dead']:>8}{'   fleet jobs --dead lists them' if seen['dead'] else ''}"
    if seen["paused"]:
        yield status.pause_line(seen["paused"])
