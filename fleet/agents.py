"""The commands about agents: what they do, and giving them something to do."""

from __future__ import annotations

import json
import os
import shlex
import sys
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.live import Live

from fleet import broker, inventory, jobs, ssh, status
from fleet.console import out
from fleet.errors import BrokerError

if TYPE_CHECKING:
    from collections.abc import Callable

    from rich.console import RenderableType

    from fleet.inventory import Inventory

_WATCH_SECONDS = 2
# A runner's own bound where none is said.
_EXEC_SECONDS = 30 * 60
# What a job may take longer from its submission to its end than its program: a queue before it, a broker that restarts.
_AROUND_SECONDS = 60

Agents = Annotated[list[str] | None, typer.Argument(metavar="[AGENT]...", help="These agents only.")]
AsJson = Annotated[bool, typer.Option("--json", help="The same facts for programs.")]


def show_status(
    context: typer.Context,
    agents: Agents = None,
    watch: Annotated[bool, typer.Option("--watch", help="Show it anew every two seconds, until Ctrl-C.")] = False,
    as_json: AsJson = False,
) -> None:
    """Show each agent, its runner's version, its state and its last job."""
    if watch and as_json:
        raise typer.BadParameter("leave it out, or --json", param_hint="--watch")
    fleet = _only(_fleet(context), agents)
    with broker.connect(fleet) as client:
        if watch:
            _watch(lambda: status.collect(fleet, client))
        else:
            _show(status.collect(fleet, client), as_json=as_json)


def show_list(
    context: typer.Context,
    state: Annotated[str | None, typer.Option("--status", help=f"Only those {', '.join(status.WORDS)}.")] = None,
    kind: Annotated[str | None, typer.Option("--type", help="Only those declared with this type.")] = None,
    as_json: AsJson = False,
) -> None:
    """List the agents with a status or of a type."""
    if state and state not in status.WORDS:
        raise typer.BadParameter(f"use one of {', '.join(status.WORDS)}", param_hint="--status")
    fleet = _fleet(context)
    with broker.connect(fleet) as client:
        known = status.collect(fleet, client)
    _show([each for each in known if each.matches(state) and kind in {None, each.type}], as_json=as_json)


def task(
    context: typer.Context,
    agent: str,
    text: Annotated[str, typer.Argument(metavar="JSON", help='Such as {"type":"exec","command":"uname -sr"}.')],
    timeout: Annotated[float, typer.Option(help="Seconds to wait for the end of the job.")] = 600,
) -> None:
    """Give an agent a job, wait for its end and print what it printed; status 1 where it failed."""
    _do(context, agent, *jobs.parse_task(text), seconds=timeout)


def execute(
    context: typer.Context,
    agent: str,
    command: Annotated[list[str], typer.Argument(help="A program with its arguments, or one line for the shell.")],
    timeout: Annotated[int | None, typer.Option(min=1, help="Milliseconds that it may take.")] = None,
    sudo: Annotated[bool, typer.Option("--sudo", help="As root, where the inventory lets the agent.")] = False,
) -> None:
    """Have an agent run a program, wait for its end and print what it printed; status 1 where it failed.

    Options of fleet's own are taken wherever they stand; what follows `--` is the program's alone.
    """
    program: dict[str, Any] = {"command": command[0]} if len(command) == 1 else {"argv": command}
    said = {"timeout": timeout, "sudo": sudo or None}
    payload = {**program, **{key: value for key, value in said.items() if value is not None}}
    seconds = timeout / 1000 if timeout else _EXEC_SECONDS
    _do(context, agent, "exec", json.dumps(payload), seconds=seconds + _AROUND_SECONDS)


def logs(
    context: typer.Context,
    agent: str,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with what is logged, until Ctrl-C.")] = False,
    lines: Annotated[int, typer.Option("--lines", "-n", min=0, help="How many of the last lines.")] = 50,
) -> None:
    """Show what an agent's runner has logged."""
    fleet = _fleet(context)
    named = fleet.agent(agent)
    name = shlex.quote(named.name)
    # Root reads it, since an agent's own journal may be kept with the system's.
    journal = f"sudo -n journalctl --no-pager --output=short-iso --lines={lines}{' --follow' if follow else ''}"
    unit = "_SYSTEMD_USER_UNIT=openclaw-runner.service"
    _become(ssh.ssh_argv(fleet.node(named.node), [f'{journal} {unit} _UID="$(id -u {name})"'], terminal=False))


def shell(
    context: typer.Context,
    host: Annotated[str, typer.Argument(help="A node, or an agent for a shell as its user.")],
    command: Annotated[list[str] | None, typer.Argument(help="A command in place of a shell.")] = None,
) -> None:
    """Log in to a node over SSH."""
    fleet = _fleet(context)
    words = command or []
    if agent := fleet.agents.get(host):
        node = fleet.node(agent.node)
        words = [shlex.join(["sudo", "-iu", agent.name, *words])]
    else:
        node = fleet.node(host)
    _become(ssh.ssh_argv(node, words, terminal=sys.stdin.isatty()))


def _fleet(context: typer.Context) -> Inventory:
    return inventory.load(context.obj.inventories)


def _only(fleet: Inventory, names: list[str] | None) -> Inventory:
    return fleet.of_agents([fleet.agent(name).name for name in names]) if names else fleet


def _show(statuses: list[status.AgentStatus], *, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps([each.as_dict() for each in statuses], indent=2))
    else:
        out.print(status.table(statuses))


def _watch(collect: Callable[[], list[status.AgentStatus]]) -> None:
    """Show the table again and again in one place; where nobody looks, one below the other."""
    with suppress(KeyboardInterrupt), Live(status.table(collect()), console=out, auto_refresh=False) as live:
        while True:
            time.sleep(_WATCH_SECONDS)
            live.update(_table_or_why(collect), refresh=True)
            if not out.is_terminal:
                out.print(live.renderable)


def _table_or_why(collect: Callable[[], list[status.AgentStatus]]) -> RenderableType:
    """Return the table or, while the broker restarts, what it says."""
    try:
        return status.table(collect())
    except BrokerError as error:
        return str(error)


def _do(context: typer.Context, agent: str, command: str, payload: str, *, seconds: float) -> None:
    fleet = _fleet(context)
    name = fleet.agent(agent).name
    with broker.connect(fleet) as client:
        job = client.finished(client.submit(name, command, payload), seconds)
    printed, said = jobs.output(job)
    typer.echo(printed, nl=not printed.endswith("\n") and bool(printed))
    if said:
        typer.echo(said.rstrip("\n"), err=True)
    if job["status"] != "done":
        raise typer.Exit(1)


def _become(argv: list[str]) -> None:
    os.execvp(argv[0], argv)
