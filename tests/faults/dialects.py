"""The three dialects in one fleet: which agent's runner speaks which, and a job in each."""

from __future__ import annotations

import json
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from tests.faults.stand import exec_payload
from tests.support.lab import PROJECT

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from tests.faults.stand import Stand

SPEAKS = {"agent1": "jobs", "agent2": "tasks", "agent3": "hub"}
DIALECTS = tuple(SPEAKS.values())


@contextmanager
def speaking(stand: Stand, lease_seconds: int) -> Iterator[None]:
    """Each agent's runner speaks another dialect while the context lasts, and counts on leases of that length."""
    declared = yaml.safe_load((PROJECT / "inventory/group_vars/all.yml").read_text())["agents"]
    agents = [{**agent, "dialect": SPEAKS[agent["name"]]} for agent in declared]
    lease = {"runner_lease_seconds": lease_seconds, "runner_heartbeat_seconds": lease_seconds // 3}
    with tempfile.TemporaryDirectory(prefix="dialects-") as folder:
        variables = Path(folder) / "variables.json"
        variables.write_text(json.dumps({"agents": agents, **lease}))
        _converge(stand, SPEAKS, "-e", f"@{variables}")
    try:
        yield
    finally:
        _converge(stand, dict.fromkeys(SPEAKS, "jobs"))


def _converge(stand: Stand, speaks: Mapping[str, str], *arguments: str) -> None:
    done = stand.fleet.playbook("--limit", "runners", *arguments)
    assert done.returncode == 0, done.stdout + done.stderr
    for agent, dialect in speaks.items():
        stand.agents[agent].dialect = dialect


def submit(stand: Stand, dialect: str, agent: str, script: str) -> str:
    """Queue a job for an agent in one of the dialects."""
    if dialect == "jobs":
        return stand.submit(agent, script)
    payload = exec_payload(script)
    if dialect == "tasks":
        body = {"type": "exec", "payload": {**payload, "agent_hint": agent}}
        return str(stand.bot.post("/api/tasks", json=body).raise_for_status().json()["task"]["id"])
    task = {"type": "exec", **payload}
    return str(stand.bot.post(f"/agents/{agent}/task", json=task).raise_for_status().json()["taskId"])
