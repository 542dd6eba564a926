"""A job lives through the end of what started it and of what asked for it."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    from testinfra.host import Host

    from tests.support.fleet import Submitter, TestFleet

_SECONDS = 20
_LEDGER = "echo {word} $(date +%s) >> {ledger}"


def _wait_for(happened: Callable[[], bool], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.1)


def _words(host: Host, ledger: str) -> list[str]:
    """Return what the job wrote so far, a word a line."""
    return [line.split()[0] for line in host.run(f"cat {ledger}").stdout.splitlines()]


@pytest.mark.parametrize(("agent", "node"), [("agent1", "agents-1"), ("agent3", "agents-2")])
def test_a_job_outlives_its_runner_and_the_broker(
    fleet: TestFleet, submitter: Submitter, agent: str, node: str
) -> None:
    host, broker = fleet.host(node), fleet.host("broker-1")
    ledger = f"/home/{agent}/workspace/ledger-{time.time_ns()}"
    start, end = (_LEDGER.format(word=word, ledger=ledger) for word in ("start", "end"))
    payload = json.dumps({"command": f"{start}; sleep {_SECONDS}; {end}; echo finished"})
    since = host.run_expect([0], "date +%s").stdout.strip()
    job = submitter.submit(agent, "exec", payload)
    _wait_for(lambda: _words(host, ledger) == ["start"], 15)

    runner = f"systemctl --user -M {agent}@"
    before = host.run_expect([0], f"{runner} show -p MainPID --value openclaw-runner").stdout
    host.run_expect([0], f"{runner} kill -s KILL --kill-who=main openclaw-runner")
    _wait_for(lambda: host.run(f"{runner} show -p MainPID --value openclaw-runner").stdout not in {before, "0\n"}, 10)
    host.run_expect([0], f"{runner} restart openclaw-runner")
    broker.run_expect([0], "systemctl restart openclaw-broker")
    assert _words(host, ledger) == ["start"], "the job ended before everything was restarted"

    _wait_for(lambda: submitter.job(job, wait=5)["status"] in {"done", "failed"}, _SECONDS + 30)
    ended = submitter.job(job)
    assert ended["status"] == "done", ended["error"]
    assert json.loads(ended["result"])["stdout"] == "finished\n"
    assert (ended["attempts"], ended["lease_epoch"], ended["worker_id"]) == (1, 1, agent)
    assert _words(host, ledger) == ["start", "end"]
    unit = "_SYSTEMD_USER_UNIT=openclaw-runner.service"
    log = host.run_expect([0], f"journalctl {unit} --since=@{since} -o cat").stdout.splitlines()
    told = [line for line in log if job in line]
    assert sum(": adopted" in line for line in told) == 2, told
    assert sum(": done: " in line for line in told) == 1, told


@pytest.mark.parametrize(("agent", "node"), [("agent1", "agents-1"), ("agent3", "agents-2")])
def test_a_job_outlives_a_reload_of_its_systemd(fleet: TestFleet, submitter: Submitter, agent: str, node: str) -> None:
    """systemd 252 forgets the recorders of a transient unit when it reloads; ours are files."""
    job = submitter.submit(agent, "exec", json.dumps({"command": "sleep 4; echo finished"}))
    _wait_for(lambda: submitter.job(job)["status"] == "running", 15)
    for verb in ("daemon-reload", "daemon-reexec"):
        fleet.host(node).run_expect([0], f"systemctl --user -M {agent}@ {verb}")
    ended = submitter.job(job, wait=25)
    assert ended["status"] == "done", ended["error"]
    assert ended["attempts"] == 1


def test_a_job_that_was_queued_while_the_runner_was_off_is_done_later(fleet: TestFleet, submitter: Submitter) -> None:
    host = fleet.host("agents-2")
    runner = "systemctl --user -M agent3@"
    host.run_expect([0], f"{runner} stop openclaw-runner")
    job = submitter.submit("agent3", "ping", "later")
    assert submitter.job(job)["status"] == "queued"
    host.run_expect([0], f"{runner} start openclaw-runner")
    _wait_for(lambda: submitter.job(job, wait=5)["status"] == "done", 30)
    assert submitter.job(job)["result"] == "pong: later"
