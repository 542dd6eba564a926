"""A running job is cancelled, and heard, while it runs: on real units, whatever becomes of its runner."""

from __future__ import annotations

import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from lab import cgroups
from tests.faults.ledger import Book, script_until
from tests.faults.stand import kill, until

if TYPE_CHECKING:
    from tests.faults.stand import Agent, Stand

_LEASE_SECONDS = 60  # it is renewed after 20, so what comes sooner was not heard of at a heartbeat
_MOMENT_SECONDS = 5.0
_KILL_SECONDS = 10.0  # a job that ignores SIGTERM gets SIGKILL after so many
_DAEMON = "(setsid bash -c 'trap \"\" TERM HUP; while :; do sleep 0.5; done' daemon-of-a-job > /dev/null 2>&1 &)\n"
_WAITS = _DAEMON + script_until("go-$OPENCLAW_JOB_ID")
_NODES = pytest.mark.parametrize("name", ["agent1", "agent3"])


def _processes(agent: Agent, job: str) -> list[str]:
    """The command lines of all that a job has running."""
    found = []
    for pid in cgroups.processes(agent.machine.cgroup):
        with suppress(OSError):
            folder = Path(f"/proc/{pid}")
            if f"OPENCLAW_JOB_ID={job}" in (folder / "environ").read_text(errors="replace").split("\0"):
                found.append((folder / "cmdline").read_text(errors="replace"))
    return found


def _start(stand: Stand, agent: Agent, script: str = _WAITS) -> str:
    stand.lease(_LEASE_SECONDS)
    job = stand.submit(agent.name, script)
    until(lambda: Book.read([agent.workspace]).of(job), "the job's start")
    until(lambda: any("daemon-of-a-job" in line for line in _processes(agent, job)), "its daemon's start")
    return job


def _cancel(stand: Stand, job: str) -> None:
    stand.bot.post(f"/jobs/{job}/cancel", json={"reason": "not wanted"}).raise_for_status()
    shown = stand.job(job)
    assert (shown["status"], shown["outcome"], shown["error"]) == ("failed", "cancelled", "not wanted")


def _is_gone(agent: Agent, job: str) -> bool:
    return not _processes(agent, job) and not agent.unit(job).exists() and not agent.attempt(job).exists()


@pytest.mark.parametrize(("first", "seconds"), [("", 0.0), ("trap '' TERM\n", _KILL_SECONDS)])
@_NODES
def test_a_cancelled_job_is_gone_with_its_whole_tree_and_its_neighbour_runs_on(
    stand: Stand, name: str, first: str, seconds: float
) -> None:
    """Its daemon ignores SIGTERM; so does the job itself the second time."""
    agent = stand.agents[name]
    neighbour, job = _start(stand, agent), _start(stand, agent, first + _WAITS)
    _cancel(stand, job)
    until(lambda: _is_gone(agent, job), "the end of all that is the job's", seconds + _MOMENT_SECONDS)
    assert any("daemon-of-a-job" in line for line in _processes(agent, neighbour))
    agent.go(neighbour)
    done = stand.ended(neighbour)
    assert (done["status"], done["attempts"]) == ("done", 1)
    assert stand.job(job)["outcome"] == "cancelled"
    assert len(Book.read([agent.workspace]).of(job)) == 1


@_NODES
def test_a_job_that_is_cancelled_while_its_runner_is_off_is_gone_once_it_is_back(stand: Stand, name: str) -> None:
    agent = stand.agents[name]
    job = _start(stand, agent)
    runner = f"sudo systemctl --user -M {name}@ {{}} openclaw-runner"
    agent.machine.ssh(runner.format("stop"))
    _cancel(stand, job)
    time.sleep(1)
    assert _processes(agent, job)
    agent.machine.ssh(runner.format("start"))
    until(lambda: _is_gone(agent, job), "the end of all that is the job's", 2 * _MOMENT_SECONDS)
    assert stand.job(job)["outcome"] == "cancelled"


def test_a_job_is_watched_through_restarts_of_broker_and_runner(stand: Stand) -> None:
    agent = stand.agents["agent3"]
    job = _start(stand, agent)
    kill(agent.runner)
    kill(stand.broker)
    until(stand.answers, "the broker answers")
    until(lambda: agent.runner, "the runner is back")
    # A watch that found no broker tries again after a second at first, and an adopted job is renewed at once.
    lease = stand.job(job)["lease_until"]
    until(lambda: stand.job(job)["lease_until"] > lease, "a renewal")
    _cancel(stand, job)
    until(lambda: _is_gone(agent, job), "the end of all that is the job's", 2 * _MOMENT_SECONDS)


def _events(stand: Stand, job: str, after: int = 0) -> dict[str, Any]:
    answer = stand.bot.get(f"/jobs/{job}/events", params={"after": after, "wait": 20})
    return dict(answer.raise_for_status().json())


@_NODES
def test_a_job_is_heard_before_it_has_ended_and_goes_on_to_be_after_its_runner(stand: Stand, name: str) -> None:
    agent = stand.agents[name]
    stand.lease(_LEASE_SECONDS)
    wait = "until [ -e go-$OPENCLAW_JOB_ID ]; do sleep 0.1; done"
    says = "echo 40 half way > $JOB_PROGRESS"
    job = stand.submit(name, f"echo one; {says}; {wait}; echo two; echo 100 >> $JOB_PROGRESS; sleep 2; echo three >&2")
    until(lambda: len(_events(stand, job)["events"]) == 2, "what it says first")
    first = _events(stand, job)
    said = [event.get("text") or (event["progress"], event["note"]) for event in first["events"]]
    assert (first["status"], said) == ("running", ["one\n", (40, "half way")])
    kill(agent.runner)
    agent.go(job)
    with stand.bot.stream(
        "GET",
        f"/jobs/{job}/events",
        headers={"Accept": "text/event-stream", "Last-Event-ID": str(first["events"][0]["id"])},
    ) as stream:
        lines = [line.removeprefix("data: ") for line in stream.iter_lines() if line.startswith("data: ")]
    assert '"outcome":"done"' in lines[-1]
    following = _events(stand, job, after=first["events"][0]["id"])["events"]
    assert "".join(event.get("text", "") for event in following) == "two\nthree\n"
    assert len(lines) >= len(following)
    shown = stand.job(job)
    assert (shown["status"], shown["attempts"], shown["progress"], shown["progress_note"]) == ("done", 1, 100, "")
