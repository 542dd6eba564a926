"""The command line: `fleet [--lab] [-i INVENTORY] COMMAND`."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path  # noqa: TC003 -- typer looks at it
from typing import Annotated, NoReturn

import paramiko
import typer
from invoke.exceptions import ThreadException
from rich.markup import escape

from fleet import agents, broker, deploy, inventory, jobs, nodes, protection, queue, stack, status, submit
from fleet.console import err, out
from fleet.errors import FleetError

# What these do not know as an option of their own is another program's.
_TAKES_OPTIONS = {"ignore_unknown_options": True}
app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
app.command("status")(agents.show_status)
app.command("list")(agents.show_list)
app.command()(submit.task)
app.command("exec", context_settings=_TAKES_OPTIONS)(submit.execute)
app.command()(submit.batch)
app.command("jobs")(queue.show_jobs)
app.command()(queue.follow)
app.command()(queue.cancel)
app.command()(queue.requeue)
app.command("queue")(queue.show_queue)
app.command()(queue.pause)
app.command()(queue.resume)
app.command()(agents.logs)
app.command(context_settings=_TAKES_OPTIONS)(agents.shell)

_SMOKE_TASK = {"command": "uname -sr"}
_SMOKE_SECONDS = 60
# These commands are the lab's own program's.
_OF_THE_LAB = ("up", "down")


@dataclass(frozen=True)
class Options:
    """What every command may be given: whose fleet it is about."""

    lab: bool
    inventories: list[Path]


@app.callback()
def _main(
    context: typer.Context,
    lab: Annotated[bool, typer.Option("--lab", help="The fleet on this machine's lab.")] = False,
    inventories: Annotated[
        list[Path] | None, typer.Option("--inventory", "-i", exists=True, help="A further inventory; may be repeated.")
    ] = None,
) -> None:
    """Deploy a fleet of agents, and see and use what runs on it."""
    context.obj = Options(lab, inventories or [])
    if lab and inventories:
        raise FleetError("the lab brings its own nodes: leave out --inventory, or --lab")
    if lab and context.invoked_subcommand not in _OF_THE_LAB:
        _enter_lab()
    if inventories:
        # Named nodes are meant then, and not those of a stack that happens to be selected.
        os.environ.setdefault("OPENCLAW_OUTPUTS", os.devnull)


@app.command()
def up(
    context: typer.Context,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Delete or replace servers and volumes unasked.")] = False,
) -> None:
    """Create the nodes of the selected stack, deploy everything, have each agent do a job, and show the fleet."""
    options: Options = context.obj
    if options.lab:
        _lab("up")
    if not options.inventories and (selected := stack.selected()):
        if not yes:
            _ask_about_losses(selected)
        _create(selected)
    fleet = inventory.load(options.inventories)
    _deploy(options.inventories)
    with broker.connect(fleet) as client:
        paused = client.paused()
        all_done = bool(paused) or _first_jobs(fleet, client)
        out.print()
        out.print(status.table(status.collect(fleet, client)))
        if paused:
            out.print(f"\nno agent was given a first job: {status.pause_line(paused)}", markup=False)
    if not all_done:
        raise FleetError("not every agent finished its first job; see the table")


@app.command()
def down(context: typer.Context) -> None:
    """Remove the fleet from this machine's lab, and the lab."""
    if not context.obj.lab:
        raise FleetError(
            "down removes the lab's fleet only: say fleet --lab down; servers are deleted by fleet destroy"
        )
    _lab("down")


@app.command()
def destroy(
    context: typer.Context, yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False
) -> None:
    """Delete the servers of the selected stack and all it has, unless anything of it is protected."""
    if context.obj.inventories:
        raise FleetError("destroy is about the selected stack: leave out --inventory")
    selected = stack.selected()
    if not selected:
        raise FleetError("no stack is selected here: pulumi stack select")
    if kept := protection.protected(selected.export()):
        raise FleetError(
            f"nothing was deleted, because stack {selected.name} protects: {', '.join(kept)}; where that is no longer "
            "wanted, say protect: false for these nodes in its configuration, then pulumi up, then this again"
        )
    if not yes and not typer.confirm(f"Delete everything that stack {selected.name} has, with its data?"):
        raise FleetError("nothing was deleted")
    _change(selected, selected.destroy)


def _ask_about_losses(selected: stack.Stack) -> None:
    """Have a person agree to what the stack would lose; where nobody can be asked, refuse."""
    with out.status("what would change"):
        losses = selected.losses()
    if not losses:
        return
    named = f"stack {selected.name} would {', '.join(losses)}, with the data on them"
    if not sys.stdin.isatty():
        raise FleetError(f"nothing was changed: {named}; where that is wanted, say fleet up --yes")
    if not typer.confirm(f"{named[0].upper()}{named[1:]}. Go on?"):
        raise FleetError("nothing was changed")


def _create(selected: stack.Stack) -> None:
    """Have the stack's nodes exist, and wait until they can be deployed to."""
    _change(selected, selected.up)
    started = time.monotonic()
    fleet = inventory.load([])
    new = [fleet.node(name) for name in fleet.tailnet]
    with out.status("nodes") as live:
        nodes.wait(new, lambda name: live.update(f"{name} is ready"))
    _step("nodes", " ".join(fleet.tailnet), time.monotonic() - started)


def _change(selected: stack.Stack, change: stack.Change) -> None:
    started = time.monotonic()
    with out.status("stack") as live:
        done = change(lambda line: live.update(escape(line)))
    _step("stack", f"{selected.name}: {done}", time.monotonic() - started)


def _deploy(sources: list[Path]) -> None:
    def on_play(name: str, seconds: float) -> None:
        _step("deployment", name, seconds)

    with out.status("deployment") as live:

        def on_task(name: str) -> None:
            live.update(name)

        report = deploy.playbook(inventory.PROJECT / "site.yml", sources, on_play=on_play, on_task=on_task)
    total = sum(seconds for _, seconds in report.plays)
    _step("deployment", f"changed={sum(report.changed.values())} on {len(report.changed)} hosts", total)


def _first_jobs(fleet: inventory.Inventory, client: broker.Broker) -> bool:
    """Have each agent do a job; say whether all of them did."""
    started = time.monotonic()
    # Between them the agents see each dialect.
    submitted = [
        _submit_first(client, agent, dialect)
        for agent, dialect in zip(fleet.agents, cycle(broker.DIALECTS), strict=False)
    ]
    finished = [client.finished(job, _SMOKE_SECONDS) for job in submitted]
    done = [job["status"] for job in finished].count("done")
    _step("first jobs", f"{done} done", time.monotonic() - started)
    return done == len(finished)


def _submit_first(client: broker.Broker, agent: str, dialect: str) -> str:
    if dialect == "jobs":
        return client.submit(jobs.order("exec", json.dumps(_SMOKE_TASK), agent=agent))
    return client.submit_in(dialect, agent, "exec", _SMOKE_TASK)


def _step(what: str, detail: str, seconds: float) -> None:
    out.print(f"{what:<14} {detail:<48} {seconds:6.1f} s")


def _lab(*arguments: str) -> NoReturn:
    """Become the lab's own program, which the product does without."""
    os.chdir(inventory.PROJECT)
    os.execv(sys.executable, [sys.executable, "-m", "lab", *arguments])


def _enter_lab() -> None:
    """Have the environment be one in which the lab's nodes are the fleet."""
    done = subprocess.run(
        [sys.executable, "-m", "lab", "environment"],
        cwd=inventory.PROJECT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    if done.returncode:
        raise FleetError(done.stderr.strip())
    settings: dict[str, str | None] = json.loads(done.stdout)
    for name, value in settings.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value


def main() -> None:
    """Run the command line; what a person can mend ends in one line and status 1."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        # What a job printed may have more characters than this terminal's encoding.
        sys.stdout.reconfigure(errors="replace")
    try:
        app()
    except (FleetError, OSError, subprocess.SubprocessError, paramiko.SSHException, ThreadException) as error:
        err.print(f"fleet: {error}", markup=False)
        sys.exit(1)
