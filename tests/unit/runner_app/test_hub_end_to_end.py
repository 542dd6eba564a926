"""The runner's program against the broker's, over the hub's WebSocket."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest

from runner_app import supervisor
from runner_app.live import LOOK_SECONDS
from tests.unit.runner_app.conftest import until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.unit.runner_app.conftest import Broker, Runner

_WAITS = "echo start >> log; while ! [ -e go ]; do sleep 0.02; done; echo end >> log; echo ok"


class Wire:
    """Carries bytes between the runner and its broker, and can be cut."""

    def __init__(self, port: int) -> None:
        self._broker = ("127.0.0.1", port)
        self._ends: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self.opened = 0
        self.away = False
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        """End every connection."""
        ends, self._ends = self._ends, []
        for end in ends:
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()

    def close(self) -> None:
        """Carry nothing any more."""
        self._listener.close()
        self.cut()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                if self.away:
                    near.close()
                    continue
                far = socket.create_connection(self._broker)
                self._ends += [near, far]
                self.opened += 1
                for ends in ((near, far), (far, near)):
                    threading.Thread(target=_carry, args=ends, daemon=True).start()


def _carry(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
    for end in (source, target):
        with suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)


@pytest.fixture(autouse=True)
def _speaking(broker: Broker, runner: Runner) -> None:
    broker.register("w1")
    runner.speak("hub")


@pytest.fixture
def wire(broker: Broker, runner: Runner) -> Iterator[Wire]:
    wire = Wire(broker.port)
    runner.environment["BROKER_URL"] = wire.url
    yield wire
    wire.close()


def test_tasks_are_run(broker: Broker, runner: Runner) -> None:
    early = broker.submit_to("w1", "ping", text="hello")
    runner.start("run")
    assert broker.finished(early)["result"] == "pong: hello"
    job = broker.finished(broker.submit_to("w1", "exec", command="echo out; echo err >&2"))
    assert json.loads(job["result"])["stdout"] == "out\n"
    job = broker.finished(broker.submit_to("w1", "exec", command="exit 3"))
    assert (job["status"], job["error"]) == ("failed", "exit code 3")
    assert "unknown command 'dance'" in broker.finished(broker.submit_to("w1", "dance"))["error"]
    agent = broker.agent("w1")
    assert agent["status"] == "online"
    assert {"cpu", "memory", "disk"} <= set(agent["health"])


def test_jobs_run_side_by_side_up_to_the_limit(broker: Broker, runner: Runner) -> None:
    runner.environment["RUNNER_MAX_JOBS"] = "2"
    runner.start("run")
    lines = [f"touch up{number}; while ! [ -e go ]; do sleep 0.02; done" for number in range(3)]
    ids = [broker.submit_to("w1", "exec", command=line) for line in lines]
    until(lambda: (runner.workspace / "up0").exists() and (runner.workspace / "up1").exists())
    assert broker.job(ids[2], wait=1)["status"] == "queued"
    (runner.workspace / "go").touch()
    assert {broker.finished(job_id)["status"] for job_id in ids} == {"done"}


def test_once(broker: Broker, runner: Runner) -> None:
    empty = runner.call("--once")
    assert (empty.returncode, "no job is waiting" in empty.stderr) == (0, True), empty.stderr
    first, second = broker.submit_to("w1", "ping"), broker.submit_to("w1", "ping")
    assert runner.call("--once").returncode == 0
    assert broker.job(first)["status"] == "done"
    assert (broker.job(second)["status"], broker.job(second)["attempts"]) == ("queued", 0)


@pytest.mark.parametrize(
    ("variables", "words"),
    [({"WORKER_TOKEN": "wrong"}, "refuses this worker"), ({"BROKER_URL": "http://127.0.0.1:1"}, "does not answer")],
)
@pytest.mark.parametrize("verb", ["check", "--once"])
def test_a_mistake_is_said(verb: str, variables: dict[str, str], words: str, runner: Runner) -> None:
    done = runner.call(verb, **variables)
    assert done.returncode == 1
    assert words in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
    assert "wrong" not in done.stderr


def test_check(runner: Runner) -> None:
    assert runner.call("check").returncode == 0


def test_check_leaves_the_line_of_the_runner_alone(broker: Broker, runner: Runner) -> None:
    runner.start("run")
    job_id = broker.submit_to("w1", "exec", command=_WAITS)
    until(lambda: runner.lines("log"))
    assert runner.call("check").returncode == 0
    (runner.workspace / "go").touch()
    assert broker.finished(job_id)["attempts"] == 1
    assert "closed the line" not in runner.log.read_text()


def test_a_result_that_no_envelope_can_hold_fails_its_job(broker: Broker, runner: Runner) -> None:
    runner.start("run")
    job = broker.finished(broker.submit("plan_echo", '"' * 200_000, agent="w1"))
    assert (job["status"], job["attempts"]) == ("failed", 1)
    assert "larger than an envelope may be" in job["error"]
    assert "closed the line" not in runner.log.read_text()


def test_a_cut_in_the_middle_of_a_task_changes_nothing(broker: Broker, runner: Runner, wire: Wire) -> None:
    runner.start("run")
    job_id = broker.submit_to("w1", "exec", command=_WAITS)
    for cuts in range(3):
        until(lambda: runner.lines("log") == ["start"])
        before = wire.opened
        wire.cut()
        until(lambda: wire.opened > before)  # noqa: B023 - it is called before the next turn
        assert broker.job(job_id)["status"] == "running", cuts
    (runner.workspace / "go").touch()
    job = broker.finished(job_id)
    assert (job["status"], job["attempts"], runner.lines("log")) == ("done", 1, ["start", "end"])


def test_what_a_job_writes_is_read_while_it_runs_whatever_becomes_of_the_line(
    broker: Broker, runner: Runner, wire: Wire
) -> None:
    runner.start("run")
    line = "for word in one two three; do echo $word; while ! [ -e after-$word ]; do sleep 0.02; done; done"
    job_id = broker.submit_to("w1", "exec", command=line)
    until(lambda: broker.log("w1", job_id) == ["one"])
    wire.away = True
    wire.cut()
    (runner.workspace / "after-one").touch()
    time.sleep(1.5 * LOOK_SECONDS)
    assert broker.log("w1", job_id) == ["one"]
    wire.away = False
    until(lambda: broker.log("w1", job_id) == ["one", "two"])
    (runner.workspace / "after-two").touch()
    until(lambda: broker.log("w1", job_id) == ["one", "two", "three"])
    assert broker.job(job_id)["status"] == "running"
    (runner.workspace / "after-three").touch()
    job = broker.finished(job_id)
    assert (job["status"], job["attempts"]) == ("done", 1)
    assert json.loads(job["result"])["stdout"].split() == broker.log("w1", job_id) == ["one", "two", "three"]


@pytest.mark.parametrize("is_cut", [False, True])
def test_a_cancelled_job_ends_at_once_or_when_the_line_is_back(
    is_cut: bool, broker: Broker, runner: Runner, wire: Wire
) -> None:
    """Leases are 60 s long here, so no heartbeat tells of it."""
    runner.start("run")
    job_id = broker.submit_to("w1", "exec", command="echo $$ > .pid; mv .pid pid; exec sleep 300")
    until(lambda: runner.lines("pid"))
    if is_cut:
        wire.away = True
        wire.cut()
    broker.cancel(job_id)
    wire.away = False
    until(lambda: supervisor.start_ticks(int(runner.lines("pid")[0])) is None and not runner.claims(), 10)
    assert broker.job(job_id)["outcome"] == "cancelled"
    assert broker.finished(broker.submit_to("w1", "ping"))["status"] == "done"


def test_where_many_jobs_may_run_each_is_told_of_less_often(broker: Broker, runner: Runner) -> None:
    runner.environment["RUNNER_MAX_JOBS"] = "64"
    runner.start("run")
    line = "for i in $(seq 70); do echo $i; sleep 0.1; done"
    job_id = broker.submit_to("w1", "exec", command=line)
    broker.finished(job_id)
    assert broker.log("w1", job_id) == [str(number) for number in range(1, 71)]
    seconds = {line["at"] for line in broker.log_lines("w1")}
    assert 2 <= len(seconds) <= 2 + (max(seconds) - min(seconds)) / 2


def test_a_job_is_told_no_token_that_it_could_write(broker: Broker, runner: Runner) -> None:
    runner.environment["WORKER_TOKEN"] = token = broker.mint("worker", "w1")
    runner.start("run")
    around = "; ".join(f"tr '\\0' '\\n' < /proc/$PPID/{file}" for file in ("environ", "cmdline"))
    job_id = broker.submit_to("w1", "exec", command=f"env; {around}; cat {runner.state}/jobs/*/*.json")
    assert broker.finished(job_id)["status"] == "done"
    told = "\n".join(broker.log("w1", job_id))
    assert {"OPENCLAW_JOB_ID", "PYTHONPATH", "runner_app.supervisor", "lease_epoch"} <= set(re.findall(r"[\w.]+", told))
    assert token not in told


def test_an_outcome_outlives_the_brokers_absence(broker: Broker, runner: Runner) -> None:
    runner.environment["RUNNER_MAX_JOBS"] = "1"  # so that nobody asks for a job meanwhile
    runner.start("run")
    job_id = broker.submit_to("w1", "exec", command=_WAITS)
    until(lambda: runner.lines("log"))
    broker.stop()
    (runner.workspace / "go").touch()
    until(lambda: "not reported yet" in runner.log.read_text())
    broker.start()
    job = broker.finished(job_id)
    assert (job["status"], job["attempts"], runner.lines("log")) == ("done", 1, ["start", "end"])


def test_a_killed_runners_job_is_adopted(broker: Broker, runner: Runner) -> None:
    runner.start("run")
    job_id = broker.submit_to("w1", "exec", command=_WAITS)
    until(lambda: runner.lines("log") == ["start"])
    runner.end(signal.SIGKILL)
    runner.start("run")
    until(lambda: "adopted" in runner.log.read_text())
    (runner.workspace / "go").touch()
    job = broker.finished(job_id)
    assert (job["status"], job["attempts"], runner.lines("log")) == ("done", 1, ["start", "end"])


def test_a_job_that_died_with_its_supervisor_waits_for_no_lease(broker: Broker, runner: Runner) -> None:
    line = "echo $PPID $$ >> pids; [ $(wc -l < pids) = 2 ] || exec sleep 300"
    job_id = broker.submit_to("w1", "exec", command=line)
    runner.start("run")
    until(lambda: runner.lines("pids"))
    for pid in map(int, runner.lines("pids")[0].split()):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    job = broker.finished(job_id)
    assert (job["status"], job["attempts"], len(runner.lines("pids"))) == ("done", 2, 2)


def test_an_ordered_end_gives_jobs_back(broker: Broker, runner: Runner) -> None:
    runner.start("run")
    job_id = broker.submit_to("w1", "exec", command="touch up; exec sleep 300")
    until((runner.workspace / "up").exists)
    assert runner.end() == 0
    assert (broker.job(job_id)["status"], broker.job(job_id)["attempts"]) == ("queued", 0)


class TestLeaseThatIsTold:
    """A lease short enough to be renewed soon, and too long to run out meanwhile."""

    @pytest.fixture
    def lease_seconds(self) -> float:
        return 12

    def test_what_was_closed_while_the_line_was_cut_is_ended(self, broker: Broker, runner: Runner, wire: Wire) -> None:
        runner.start("run")
        job_id = broker.submit_to("w1", "exec", command="echo $$ >> pids; exec sleep 300")
        until(lambda: runner.lines("pids"))
        wire.away = True
        wire.cut()
        broker.take_away(job_id)
        wire.away = False
        until(lambda: supervisor.start_ticks(int(runner.lines("pids")[0])) is None)
        assert "it is not ours any more: the hub says so" in runner.log.read_text()
        until(lambda: not runner.claims())
        assert broker.job(job_id)["error"] == "taken away"


class TestShortLease:
    """Leases short enough to see them run out."""

    @pytest.fixture
    def lease_seconds(self) -> float:
        return 3

    def test_a_long_job_keeps_its_lease(self, broker: Broker, runner: Runner) -> None:
        runner.start("run")
        job = broker.finished(broker.submit_to("w1", "exec", command="sleep 7"))
        assert (job["status"], job["attempts"]) == ("done", 1)

    def test_an_agent_that_was_away_for_a_lease_and_a_half_runs_the_job_again_and_reports_it_once(
        self, broker: Broker, runner: Runner, wire: Wire
    ) -> None:
        runner.start("run")
        line = "echo $$ >> pids; [ $(wc -l < pids) = 2 ] || exec sleep 300"
        job_id = broker.submit_to("w1", "exec", command=line)
        until(lambda: runner.lines("pids"))
        wire.away = True
        wire.cut()
        until(lambda: supervisor.start_ticks(int(runner.lines("pids")[0])) is None)
        until(lambda: broker.job(job_id)["status"] == "queued")
        time.sleep(1.5)
        wire.away = False
        job = broker.finished(job_id)
        assert (job["status"], job["attempts"], len(runner.lines("pids"))) == ("done", 2, 2)
