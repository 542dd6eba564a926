"""The commands about agents and their nodes."""

from __future__ import annotations

import json
import os
import shlex
import sys
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Group
from rich.live import Live
from rich.text import Text

from fleet import broker, inventory, ssh, status
from fleet.console import out
from fleet.errors import BrokerError

if TYPE_CHECKING:
    from collections.abc import Callable

    from rich.console import RenderableType

    from fleet.broker import Broker
    from fleet.inventory import Inventory

_WATCH_SECONDS = 2

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
            _watch(lambda: _overview(fleet, client))
        elif as_json:
            _show(status.collect(fleet, client), as_json=True)
        else:
            out.print(_overview(fleet, client))


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


def _overview(fleet: Inventory, client: Broker) -> RenderableType:
    """Return the table of the agents and, in a pause, a line on that."""
    table = status.table(status.collect(fleet, client))
    paused = client.paused()
    return Group(table, Text(f"\n{status.pause_line(paused)}")) if paused else table


def _watch(look: Callable[[], RenderableType]) -> None:
    """Show what there is again and again in one place; where nobody looks, one below the other."""
    with suppress(KeyboardInterrupt), Live(look(), console=out, auto_refresh=False) as live:
        while True:
            time.sleep(_WATCH_SECONDS)
            live.update(_seen_or_why(look), refresh=True)
            if not out.is_terminal:
                out.print(live.renderable)


def _seen_or_why(look: Callable[[], RenderableType]) -> RenderableType:
    """Return what there is or, while the broker restarts, what it says."""
    try:
        return look()
    except BrokerError as error:
        return Text(str(error))


def _become(argv: list[str]) -> None:
    os.execvp(argv[0], argv)
