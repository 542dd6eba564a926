"""The README's curl examples do what the README says, as printed."""

from __future__ import annotations

import json
import re
import subprocess
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.lab import PROJECT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.support.fleet import TestFleet

    Run = Callable[..., dict[str, Any]]

_SECTION = re.compile(r"^## Talk to the broker with curl$(.*?)^## ", re.MULTILINE | re.DOTALL)
_PRINTED = "http://127.0.0.1:8000"
_RUNNERS = {"agent1": "agents-1", "agent2": "agents-1", "agent3": "agents-2"}


def _examples() -> dict[str, str]:
    """Return each example of the README by its title."""
    section = _SECTION.search((PROJECT / "README.md").read_text())
    assert section
    return dict(re.findall(r"^\*\*(.+?)\*\*.*?\n\n```bash\n(.*?)```", section[1], re.MULTILINE | re.DOTALL))


@pytest.fixture
def run(fleet: TestFleet) -> Iterator[Run]:
    """Run an example by its title with real values for the words it says to replace."""
    examples = _examples()
    assert list(examples) == ["Health", "Create job", "Get next job", "Post result", "Post failure", "Get job"]
    with fleet.token("bot", "me") as bot, fleet.token("worker", "my-worker") as worker:
        # The port is 8000 unless something else on this machine had it.
        words = {_PRINTED: fleet.url, "YOUR_BOT_TOKEN": bot, "YOUR_WORKER_TOKEN": worker}

        def run(title: str, job_id: str = "") -> dict[str, Any]:
            command = examples[title]
            for word, value in {**words, "JOB_ID": job_id}.items():
                command = command.replace(word, value)
            done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=30, check=True)
            answer: dict[str, Any] = json.loads(done.stdout)
            return answer

        yield run


@contextmanager
def _agents_off(fleet: TestFleet) -> Iterator[None]:
    try:
        for agent, node in _RUNNERS.items():
            fleet.host(node).run_expect([0], f"systemctl --user -M {agent}@ stop openclaw-runner")
        yield
    finally:
        for agent, node in _RUNNERS.items():
            fleet.host(node).run_expect([0], f"systemctl --user -M {agent}@ start openclaw-runner")


def test_the_broker_is_well(run: Run) -> None:
    assert run("Health") == {"ok": True, "ts_bound": True}


def test_an_agent_does_the_job_that_curl_created(run: Run) -> None:
    created = run("Create job")
    assert created == {"id": created["id"], "status": "queued"}
    deadline = time.monotonic() + 30
    while (job := run("Get job", created["id"]))["status"] != "done":
        assert time.monotonic() < deadline, job
    assert (job["command"], job["payload"], job["result"]) == ("ping", "hello", "pong: hello")
    assert job["worker_id"] in _RUNNERS


def test_curl_can_be_the_worker(fleet: TestFleet, run: Run) -> None:
    with _agents_off(fleet):
        first, second = run("Create job")["id"], run("Create job")["id"]
        assert run("Get next job")["job"]["id"] == first
        assert run("Post result", first) == {"ok": True, "status": "done"}
        assert run("Get next job")["job"]["id"] == second
        assert run("Post failure", second) == {"ok": True, "status": "failed"}
        assert run("Get next job") == {"job": None}
    assert run("Get job", first)["result"] == "pong: hello"
    failed = run("Get job", second)
    assert (failed["status"], failed["error"], failed["worker_id"]) == ("failed", "worker error message", "my-worker")
