"""The first jobs of a fleet that has come up, with a real broker."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from fleet import cli
from tests.unit.fleet.conftest import AGENTS

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.unit.fleet.conftest import Said, Served

    Run = Callable[..., Said]
    Works = Callable[[str, Callable[[dict[str, Any]], None]], None]


@pytest.fixture(autouse=True)
def _deployed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fleet.stack.selected", lambda: None)
    monkeypatch.setattr(cli, "_deploy", lambda _inventories: None)


def test_each_agent_does_a_first_job_and_they_come_in_every_dialect(run: Run, served: Served, works: Works) -> None:
    seen: list[tuple[str, str, Any]] = []

    def work(job: dict[str, Any]) -> None:
        seen.append((job["dialect"], job["command"], json.loads(job["payload"])["command"]))
        served.post(job, "result", result='{"stdout":"Linux"}')

    for agent in AGENTS:
        served.claim(agent, wait=0)  # the hub takes jobs for agents that it knows
        works(agent, work)
    said = run("up")
    assert (said.status, said.err) == (0, "")
    assert "3 done" in said.out
    assert sorted(seen) == [(dialect, "exec", "uname -sr") for dialect in ("hub", "jobs", "tasks")]


def test_a_first_job_that_fails_fails_the_command(run: Run, served: Served, works: Works) -> None:
    def work(job: dict[str, Any]) -> None:
        if job["worker_id"] == "agent1":
            served.post(job, "fail", error="no")
        else:
            served.post(job, "result", result="x")

    for agent in AGENTS:
        served.claim(agent, wait=0)
        works(agent, work)
    said = run("up")
    assert (said.status, "not every agent finished its first job" in said.err) == (1, True)


def test_in_a_pause_nobody_is_given_a_first_job_and_it_is_said(run: Run, served: Served) -> None:
    run("pause", "upgrade")
    before = json.loads(run("queue", "--json").out)
    said = run("up")
    assert said.status == 0
    assert "no agent was given a first job: the queue is paused since" in said.out
    assert json.loads(run("queue", "--json").out) == before
