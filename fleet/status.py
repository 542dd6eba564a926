"""The state of every agent, as facts for programs and as a table for people."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from rich import box
from rich.table import Table
from rich.text import Text

from fleet import jobs, times

if TYPE_CHECKING:
    from fleet.broker import Broker
    from fleet.inventory import Inventory


# What can be asked for: the states of AgentStatus, and a word for two of them.
WORDS = ("idle", "busy", "offline", "unknown", "online")


@dataclass(frozen=True)
class AgentStatus:
    """One agent: `state` is idle, busy, offline, or unknown where it has never spoken to the broker."""

    agent: str
    type: str
    node: str
    dialect: str
    runner: str | None
    state: str
    last_job: dict[str, Any] | None

    def matches(self, word: str | None) -> bool:
        """Whether the agent is in the state of one of WORDS; any is in that of None."""
        return word in {None, self.state} or (word == "online" and self.state in {"idle", "busy"})

    def as_dict(self) -> dict[str, Any]:
        """Return the same facts as plain data."""
        return asdict(self)


def collect(inventory: Inventory, broker: Broker) -> list[AgentStatus]:
    """Ask the broker about every agent of the inventory."""
    known = {agent["id"]: agent for agent in broker.agents()}
    return [
        AgentStatus(
            agent=agent.name,
            type=agent.type,
            node=agent.node,
            dialect=agent.dialect,
            runner=known.get(agent.name, {}).get("runner_version"),
            state=_state(known.get(agent.name)),
            last_job=broker.last_job(agent.name),
        )
        for agent in inventory.agents.values()
    ]


def table(statuses: list[AgentStatus]) -> Table:
    """Return the facts as a table without lines, to be read and to be cut by other programs."""
    shown = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, header_style="bold", border_style="dim")
    for column in ("agent", "type", "node", "runner", "speaks", "state", "last job"):
        shown.add_column(column, no_wrap=column != "last job")
    for status in statuses:
        runner = status.runner or "-"
        last = jobs.summary(status.last_job)
        shown.add_row(status.agent, status.type, status.node, runner, status.dialect, status.state, Text(last))
    return shown


def pause_line(paused: dict[str, Any]) -> str:
    """Return what a person needs to know of the queue's pause, in a line."""
    why = f": {paused['reason']}" if paused["reason"] else ""
    return f"the queue is paused since {times.moment(paused['since'])}{why}; fleet resume ends it"


def _state(known: dict[str, Any] | None) -> str:
    if known is None or known["last_seen"] is None:
        return "unknown"
    if known["status"] != "online":
        return "offline"
    return "busy" if known["running"] else "idle"
