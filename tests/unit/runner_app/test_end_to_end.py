"""The runner's program against the broker's."""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import subprocess
import time
from typing import TYPE_CHECKING, Any

import pytest

from runner_app import __version__, supervisor
from tests.unit.runner_app.conftest import GIT, until

if TYPE_CHECKING:
    from pathlib import Path

    from tests.unit.runner_app.conftest import Broker, GitDaemon, Runner

_READY = "jobs run by"  # what a runner logs when it has begun to work


def test_simple_commands(broker: Broker, runner: Runner) -> None:
    runner.start("run")
    assert broker.finished(broker.submit("ping", "hello"))["result"] == "pong: hello"
    facts = json.loads(broker.finished(broker.submit("capabilities"))["result"])
    assert facts["worker_id"] == "w1"
    assert "exec" in facts["commands"]
    plan = json.loads(broker.finished(broker.submit("plan_echo", "tidy up"))["result"])
    assert broker.finished(broker.submit("approve_echo", plan["plan_id"]))["result"] == "tidy up"
    assert "used already" in broker.finished(broker.submit("approve_echo", plan["plan_id"]))["error"]
    assert "unknown command 'dance'" in broker.finished(broker.submit("dance"))["error"]
    until(lambda: not runner.claims())


def test_exec(broker: Broker, runner: Runner) -> None:
    runner.start("run")
    job = broker.finished(broker.submit("exec", {"argv": ["sh", "-c", "echo out; echo err >&2"]}))
    facts = json.loads(job["result"])
    assert (facts["exit_code"], facts["stdout"], facts["stderr"]) == (0, "out\n", "err\n")
    job = broker.finished(broker.submit("exec", "echo why >&2; exit 3"))
    assert (job["status"], job["error"]) == ("failed", "exit code 3: why")
    job = broker.finished(broker.submit("exec", {"command": "exec sleep 60", "timeout": 300}))
    assert job["error"].startswith("timed out after")
    job = broker.finished(broker.submit("exec", {"command": "pwd", "cwd": "/etc"}))
    assert "leads out of the workspace" in job["error"]


def test_tasks(broker: Broker, runner: Runner, git_daemon: GitDaemon) -> None:
    """A repository is cloned, changed, built, tested and pushed, each step as a task."""
    served = git_daemon.root / "project"
    line = "git init -q -b main . && git commit -q --allow-empty -m first && git clone -q --bare . $0"
    (runner.workspace / "source").mkdir(parents=True)
    subprocess.run(["/bin/sh", "-c", line, served], cwd=runner.workspace / "source", env=GIT, check=True)
    runner.start("run")

    def done(task: str, **fields: object) -> dict[str, Any]:
        job = broker.finished(broker.submit(task, fields))
        assert job["status"] == "done", job["error"]
        return dict(json.loads(job["result"]))

    first = done("git:clone", repo=f"{git_daemon.url}/project", destination="project", branch="main")["commit"]
    source = "import sys; print(sys.argv)"
    assert done("file:write", filePath="project/main.py", content=source)["size"] == len(source)
    assert done("file:read", filePath=str(runner.workspace / "project/main.py"))["content"] == source
    built = done("build", command="python3 -m compileall -q . && ls", cwd="project")
    assert (built["exit_code"], built["stdout"].split()) == (0, ["__pycache__", "main.py"])
    assert done("test", argv=["python3", "main.py", "a"], cwd="project")["stdout"] == "['main.py', 'a']\n"
    script = "require('fs').appendFileSync('main.py', '\\n'); console.log(process.argv[2])"
    assert done("script", script=script, args=["said"], cwd="project")["stdout"] == "said\n"
    commit = "git -c user.name=n -c user.email=e commit -qm second main.py"
    done("exec", command=f"git add main.py && {commit}", cwd="project")
    pushed = done("git:push", repoPath="project", remote="origin", branch="main")["commit"]
    head = subprocess.run(["git", "rev-parse", "main"], cwd=served, env=GIT, check=True, capture_output=True, text=True)
    assert pushed == head.stdout.strip() != first
    assert done("git:pull", repoPath="project")["commit"] == pushed


def test_tasks_that_fail(broker: Broker, runner: Runner) -> None:
    runner.start("run")

    def error(task: str, payload: object) -> str:
        job = broker.finished(broker.submit(task, payload))
        assert job["status"] == "failed"
        return str(job["error"])

    assert error("file:read", {"filePath": "absent"}) == (
        "exit code 1: file:read: filePath 'absent': No such file or directory"
    )
    assert error("file:write", {"filePath": "../a", "content": ""}).startswith(
        "exit code 1: file:write: filePath '../a'"
    )
    assert error("git:clone", {"repo": "x"}) == "git:clone: destination must be a string that is not empty, without NUL"
    assert error("test", {"command": "echo broken >&2; exit 2"}) == "exit code 2: broken"
    assert error("script", {"script": "while (true);", "timeout": 1000}).startswith("timed out after")
    assert error("exec", {"command": "id", "sudo": True}).startswith("exec: sudo is not allowed to this agent")


def test_jobs_run_side_by_side_up_to_the_limit(broker: Broker, runner: Runner) -> None:
    runner.environment["RUNNER_MAX_JOBS"] = "2"
    runner.start("run")
    ids = [broker.submit("exec", f"touch up{number}; while ! [ -e go ]; do sleep 0.02; done") for number in range(3)]
    until(lambda: (runner.workspace / "up0").exists() and (runner.workspace / "up1").exists())
    assert broker.job(ids[2], wait=1)["status"] == "queued"
    (runner.workspace / "go").touch()
    assert {broker.finished(job_id)["status"] for job_id in ids} == {"done"}


def test_once_with_an_empty_queue(broker: Broker, runner: Runner) -> None:
    done = runner.call("--once")
    assert (done.returncode, done.stdout) == (0, "")


def test_once_takes_one_job(broker: Broker, runner: Runner) -> None:
    first, second = broker.submit("exec", "echo first"), broker.submit("ping", "second")
    assert runner.call("run", "--once").returncode == 0
    assert broker.job(first)["status"] == "done"
    assert broker.job(second)["status"] == "queued"


def test_check(broker: Broker, runner: Runner) -> None:
    done = runner.call("check")
    assert done.returncode == 0, done.stderr
    assert "w1" in done.stdout
    assert runner.call("--version").stdout == f"{__version__}\n"


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({"WORKER_TOKEN": "wrong"}, "refuses this worker"),
        ({"BROKER_URL": "http://127.0.0.1:1"}, "does not answer"),
        ({"WORKER_TOKEN": ""}, "WORKER_TOKEN"),
        ({"RUNNER_STATE_DIR": "/proc/nothing"}, "RUNNER_STATE_DIR"),
    ],
)
@pytest.mark.parametrize("verb", ["check", "--once"])
def test_a_mistake_is_said_in_one_line(
    verb: str, variables: dict[str, str], words: str, broker: Broker, runner: Runner
) -> None:
    done = runner.call(verb, **variables)
    assert done.returncode == 1
    lines = [line for line in done.stderr.splitlines() if not line.startswith("INFO")]
    assert len(lines) == 1
    assert words in lines[0]
    assert "wrong" not in done.stderr


def test_a_state_directory_has_one_runner(broker: Broker, runner: Runner) -> None:
    runner.start("run")
    broker.finished(broker.submit("ping", "x"))
    done = runner.call("--once")
    assert done.returncode == 1
    assert "another runner" in done.stderr


def test_systemd_is_told(broker: Broker, runner: Runner, tmp_path: Path) -> None:
    runner.environment["NOTIFY_SOCKET"] = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(runner.environment["NOTIFY_SOCKET"])
        listener.settimeout(30)
        runner.start("run")
        assert listener.recv(100) == b"READY=1"
        assert runner.end() == 0
        assert listener.recv(100) == b"STOPPING=1"


def test_a_killed_runners_job_is_adopted(broker: Broker, runner: Runner) -> None:
    runner.start("run")
    job_id = broker.submit(
        "exec", "echo start >> log; while ! [ -e go ]; do sleep 0.02; done; echo end >> log; echo ok"
    )
    until(lambda: runner.lines("log") == ["start"])
    runner.end(signal.SIGKILL)
    runner.start("run")
    until(lambda: "adopted" in runner.log.read_text())
    (runner.workspace / "go").touch()
    job = broker.finished(job_id)
    assert json.loads(job["result"])["stdout"] == "ok\n"
    assert job["attempts"] == 1
    assert runner.lines("log") == ["start", "end"]


def test_an_outcome_is_reported_by_the_next_runner(broker: Broker, runner: Runner) -> None:
    runner.start("run")
    job_id = broker.submit("exec", "echo start >> log; while ! [ -e go ]; do sleep 0.02; done; exit 5")
    until(lambda: runner.lines("log"))
    runner.end(signal.SIGKILL)
    (runner.workspace / "go").touch()
    until(lambda: list(runner.claims()[0].glob("exit.json")))
    assert broker.job(job_id)["status"] == "running"
    runner.start("run")
    assert broker.finished(job_id)["error"] == "exit code 5"


def test_an_outcome_outlives_the_brokers_absence(broker: Broker, runner: Runner) -> None:
    runner.start("run")
    job_id = broker.submit("exec", "touch up; while ! [ -e go ]; do sleep 0.02; done; echo ok")
    until((runner.workspace / "up").exists)
    broker.stop()
    (runner.workspace / "go").touch()
    until(lambda: "not reported yet" in runner.log.read_text())
    broker.start()
    assert broker.finished(job_id)["status"] == "done"


@pytest.mark.parametrize(("max_deliveries", "status"), [(5, "queued"), (1, "failed")])
def test_an_ordered_end_gives_jobs_back(max_deliveries: int, status: str, broker: Broker, runner: Runner) -> None:
    runner.start("run")
    job_id = broker.submit("exec", "touch up; exec sleep 300", max_deliveries=max_deliveries)
    until((runner.workspace / "up").exists)
    assert runner.end() == 0
    job = broker.job(job_id)
    assert job["status"] == status
    assert runner.claims() == []
    if status == "failed":
        assert "its runner was stopped" in job["error"]
    else:
        assert job["attempts"] == 0


def test_a_claim_whose_answer_was_lost_waits_for_no_lease(broker: Broker, runner: Runner) -> None:
    job_id = broker.submit("exec", "echo ran >> runs")
    broker.claim_for_nobody("w1")
    runner.start("run")
    job = broker.finished(job_id)
    assert (job["status"], job["attempts"], runner.lines("runs")) == ("done", 2, ["ran"])


@pytest.mark.parametrize("runner_dies", [True, False])
def test_a_job_that_died_with_its_supervisor_waits_for_no_lease(
    runner_dies: bool, broker: Broker, runner: Runner
) -> None:
    job_id = broker.submit("exec", "echo $PPID $$ >> pids; [ $(wc -l < pids) = 2 ] || exec sleep 300")
    runner.start("run")
    until(lambda: runner.lines("pids"))
    if runner_dies:
        runner.end(signal.SIGKILL)
    for pid in map(int, runner.lines("pids")[0].split()):
        os.kill(pid, signal.SIGKILL)
    if runner_dies:
        runner.start("run")
    job = broker.finished(job_id)
    assert (job["status"], job["attempts"], len(runner.lines("pids"))) == ("done", 2, 2)


def test_a_job_that_cannot_be_recorded_is_given_back(broker: Broker, runner: Runner) -> None:
    runner.start("run")
    broker.finished(broker.submit("ping", "x"))
    until(lambda: not runner.claims())
    jobs = runner.state / "jobs"
    jobs.rename(runner.state / "away")
    job_id = broker.submit("ping", "y", max_deliveries=1)
    until(lambda: "cannot be taken now" in runner.log.read_text() or "No such file" in runner.log.read_text())
    assert broker.job(job_id)["status"] in {"queued", "running"}
    (runner.state / "away").rename(jobs)
    assert broker.finished(job_id)["status"] == "done"


def test_an_ordered_end_waits_a_little_for_jobs(broker: Broker, runner: Runner) -> None:
    runner.start("run")
    job_id = broker.submit("exec", "touch up; sleep 1; echo ok")
    until((runner.workspace / "up").exists)
    assert runner.end() == 0
    assert broker.job(job_id)["status"] == "done"


_WAITS = "while ! [ -e {go} ]; do sleep 0.02; done"
_HIDES = "trap '' TERM HUP; echo $$ > .{name}; mv .{name} {name}; exec sleep 300"


def _is_gone(runner: Runner, name: str) -> bool:
    return supervisor.start_ticks(int(runner.lines(name)[0])) is None


def test_a_cancelled_job_ends_at_once_with_all_that_it_started(broker: Broker, runner: Runner) -> None:
    """Leases are 60 s long here, so no heartbeat tells of it."""
    runner.start("run")
    runner.workspace.mkdir(exist_ok=True)
    (runner.workspace / "inner.sh").write_text(_HIDES.format(name="daemon"))
    neighbour = broker.submit("exec", f"{_WAITS.format(go='go')}; echo fine")
    job_id = broker.submit("exec", f"(setsid sh inner.sh &); {_HIDES.format(name='main')}")
    until(lambda: runner.lines("daemon") and runner.lines("main"))
    until(lambda: broker.job(neighbour)["status"] == "running")
    broker.cancel(job_id)
    until(lambda: _is_gone(runner, "main") and _is_gone(runner, "daemon"), 15)  # SIGKILL comes after 10 s
    until(lambda: [path.name for path in runner.claims()] == [f"job-{neighbour}-e1"], 5)
    assert "it is not ours any more: it is cancelled (lease 1): not wanted" in runner.log.read_text()
    (runner.workspace / "go").touch()
    assert broker.finished(neighbour)["status"] == "done"
    assert (broker.job(job_id)["outcome"], broker.job(job_id)["error"]) == ("cancelled", "not wanted")


def test_a_job_is_watched_through_a_restart_of_the_broker(broker: Broker, runner: Runner) -> None:
    runner.start("run")
    job_id = broker.submit("exec", _HIDES.format(name="main").removeprefix("trap '' TERM HUP;"))
    until(lambda: runner.lines("main"))
    broker.stop()
    broker.start()
    broker.cancel(job_id)
    until(lambda: _is_gone(runner, "main") and not runner.claims(), 10)


def test_a_job_that_was_cancelled_without_its_runner_is_ended_by_the_next(broker: Broker, runner: Runner) -> None:
    runner.start("run")
    job_id = broker.submit("exec", "echo $$ > .main; mv .main main; exec sleep 300")
    until(lambda: runner.lines("main"))
    runner.end(signal.SIGKILL)
    broker.cancel(job_id)
    assert not _is_gone(runner, "main")
    runner.start("run")
    until(lambda: _is_gone(runner, "main") and not runner.claims(), 5)


def test_what_a_job_prints_is_read_while_it_runs_and_goes_on_after_its_runner(broker: Broker, runner: Runner) -> None:
    runner.start("run")
    line = f"echo one; printf tw >&2; {_WAITS.format(go='a')}; echo o; {_WAITS.format(go='b')}; echo three"
    job_id = broker.submit("exec", line)
    first = until(lambda: broker.events(job_id)["events"])
    assert [(event["offset"], event["text"]) for event in first] == [(0, "one\ntw")]
    assert broker.job(job_id)["status"] == "running"
    runner.end(signal.SIGKILL)
    (runner.workspace / "a").touch()
    runner.start("run")
    following = until(lambda: broker.events(job_id, after=first[-1]["id"])["events"])
    assert [(event["offset"], event["text"]) for event in following] == [(6, "o\n")]
    (runner.workspace / "b").touch()
    assert json.loads(broker.finished(job_id)["result"])["stdout"] == "one\no\nthree\n"
    assert broker.printed(job_id) == "one\ntwo\nthree\n"


def test_a_job_says_how_far_it_is(broker: Broker, runner: Runner) -> None:
    runner.start("run")
    line = f"echo 40 copying > $JOB_PROGRESS; {_WAITS.format(go='a')}; echo 80 >> $JOB_PROGRESS"
    job_id = broker.submit("exec", line)
    until(lambda: broker.job(job_id)["progress"] == 40)
    assert broker.job(job_id)["progress_note"] == "copying"
    (runner.workspace / "a").touch()
    job = broker.finished(job_id)
    assert (job["progress"], job["progress_note"]) == (80, "")
    told = [(event["progress"], event["note"]) for event in broker.events(job_id)["events"]]
    assert told == [(40, "copying"), (80, "")]


def test_a_job_that_is_over_at_once_is_told_of_too(broker: Broker, runner: Runner) -> None:
    runner.start("run")
    job_id = broker.submit("exec", "seq 20000; echo 5 > $JOB_PROGRESS")
    assert broker.finished(job_id)["progress"] == 5
    assert broker.printed(job_id).split() == [str(number) for number in range(1, 20001)]


class TestShortLease:
    """Leases short enough to see them run out."""

    @pytest.fixture
    def lease_seconds(self) -> float:
        return 3

    def test_a_long_job_keeps_its_lease(self, broker: Broker, runner: Runner) -> None:
        runner.start("run")
        job = broker.finished(broker.submit("exec", "sleep 7"))
        assert (job["status"], job["attempts"]) == ("done", 1)

    def test_a_job_taken_away_is_stopped(self, broker: Broker, runner: Runner) -> None:
        runner.start("run")
        job_id = broker.submit("exec", "echo $$ > .pid; mv .pid pid; exec sleep 300")
        until(lambda: runner.lines("pid"))
        broker.take_away(job_id)
        until(lambda: supervisor.start_ticks(int(runner.lines("pid")[0])) is None)
        until(lambda: not runner.claims())
        assert broker.job(job_id)["error"] == "taken away"

    def test_without_a_broker_the_job_is_stopped_inside_its_lease(self, broker: Broker, runner: Runner) -> None:
        runner.start("run")
        job_id = broker.submit("exec", "echo $$ > .pid; mv .pid pid; exec sleep 300", max_deliveries=1)
        until(lambda: runner.lines("pid"))
        broker.stop()
        stopped = time.monotonic()
        until(lambda: supervisor.start_ticks(int(runner.lines("pid")[0])) is None)
        assert time.monotonic() - stopped < 3
        assert "stopping it (lease)" in runner.log.read_text()
        broker.start()
        assert broker.finished(job_id)["outcome"] == "dead"

    def test_a_claim_that_is_answered_too_late_is_not_started(self, broker: Broker, runner: Runner) -> None:
        process = runner.start("run")
        broker.finished(broker.submit("ping", "x"))
        process.send_signal(signal.SIGSTOP)
        job_id = broker.submit("exec", "echo ran >> runs")
        until(lambda: broker.job(job_id)["lease_epoch"] == 1)
        until(lambda: broker.job(job_id)["status"] == "queued")
        broker.claim_for_nobody("w2")
        process.send_signal(signal.SIGCONT)
        until(lambda: f"job-{job_id}-e1" in runner.log.read_text() and not runner.claims())
        assert runner.lines("runs") == []


def test_runners_killed_in_a_loop_run_and_report_each_job_once(broker: Broker, runner: Runner) -> None:
    dice = random.Random(1)
    lines = [
        f"echo {number} >> starts; sleep {dice.uniform(0.1, 1.2):.2f}; echo {number} >> ends" for number in range(24)
    ]
    ids = [broker.submit("exec", f"{line}; exit {number % 3}") for number, line in enumerate(lines)]
    kills = 0
    while not all(broker.job(job_id)["status"] in {"done", "failed"} for job_id in ids):
        runner.log.unlink(missing_ok=True)
        runner.start("run")
        if kills % 2:  # the others may die while they start
            until(lambda: _READY in runner.log.read_text())
        # A machine too busy for anything in that time gets more of it.
        time.sleep(dice.uniform(0, 0.6) * (1 + kills / 30))
        runner.end(signal.SIGKILL)
        kills += 1
        assert kills < 300
    for name in ("starts", "ends"):
        assert sorted(map(int, runner.lines(name))) == list(range(24))
    jobs = [broker.job(job_id) for job_id in ids]
    assert [job["error"] for job in jobs] == [f"exit code {n % 3}" if n % 3 else None for n in range(24)]
    assert kills > 5


@pytest.mark.parametrize(("broken", "reason"), [("bus", "does not answer"), ("state/selftest", "File exists")])
def test_a_runner_that_cannot_test_its_walls_takes_no_job_and_lives(
    broken: str, reason: str, broker: Broker, runner: Runner, tmp_path: Path
) -> None:
    """Without a manager that answers, and with a state directory that does not take what the test needs."""
    runner.environment |= {"RUNNER_BACKEND": "systemd", "XDG_RUNTIME_DIR": str(tmp_path)}
    runner.state.mkdir()
    for file in {"bus", broken}:
        (tmp_path / file).touch()
    job = broker.submit("ping")
    process = runner.start("run")
    until(lambda: runner.log.read_text().count("no job is taken until this is mended") > 1)
    assert f"this host cannot isolate a job: {'' if broken == 'bus' else '[Errno 17] '}" in runner.log.read_text()
    assert reason in runner.log.read_text()
    assert process.poll() is None
    assert broker.job(job)["status"] == "queued"
    assert runner.end() == 0
    once = runner.call("run", "--once")
    assert (once.returncode, once.stderr.count("cannot isolate a job")) == (1, 1), once.stderr
