"""What a person sees who brings a fleet up and uses it."""

from __future__ import annotations

import io
import json
import re
import signal
import subprocess
import time
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from tests.support.ansible import MOST_MODULE_RUNS

if TYPE_CHECKING:
    from pathlib import Path

    from tests.acceptance.conftest import Deployment
    from tests.support.fleet import TestFleet

AGENTS = {"agent1": "agents-1", "agent2": "agents-1", "agent3": "agents-2"}


def test_up_ends_with_every_agent_having_done_a_job(deployment: Deployment) -> None:
    rows = {line.split()[0]: line for line in deployment.first.splitlines() if line.strip().startswith("agent")}
    for (agent, node), dialect in zip(AGENTS.items(), ("jobs", "tasks", "hub"), strict=True):
        job = rf"done in \d+\.\d s   {dialect} exec: uname -sr → Linux "
        assert re.search(rf"{agent} +\w+ +{node} +0\.1\.0 +jobs +idle +{job}", rows[agent])
    assert re.search(r"broker   http://127\.0\.0\.1:\d+   stop: make down   look around: ", deployment.first)


def test_every_step_is_one_line_with_its_time(deployment: Deployment) -> None:
    steps = re.findall(r"^(\S+(?: jobs)?) .* \d+\.\d s$", deployment.first, re.MULTILINE)
    lab = {"tools", "image", "tailnet", "cloud", "pulumi"}
    assert {*steps} == {*lab, "stack", "nodes", "deployment", "first jobs"}


def test_a_second_up_changes_nothing(deployment: Deployment) -> None:
    assert re.search(r"^stack +lab: \d+ unchanged ", deployment.second, re.MULTILINE)
    assert "changed=0 on 3 hosts" in deployment.second


def test_a_second_up_costs_a_host_few_module_runs(deployment: Deployment) -> None:
    runs = deployment.second_modules
    assert runs.keys() == {f"{node}.tail.lab" for node in ("broker-1", *AGENTS.values())}
    assert max(runs.values()) <= MOST_MODULE_RUNS


def test_status_tells_programs_the_same(fleet: TestFleet) -> None:
    status = fleet.status()
    assert {name: facts["node"] for name, facts in status.items()} == AGENTS
    for facts in status.values():
        assert facts["runner"] == "0.1.0"
        assert facts["state"] == "idle"
        assert facts["last_job"]["status"] == "done"


def test_a_task_prints_what_the_agent_printed(fleet: TestFleet) -> None:
    done = fleet.fleet("task", "agent3", '{"type":"exec","command":"echo out; echo side >&2; id -un"}')
    assert (done.returncode, done.stdout, done.stderr) == (0, "out\nagent3\n", "side\n")
    assert fleet.fleet("task", "agent1", '{"type":"ping","payload":"hello"}').stdout == "pong: hello\n"


@pytest.mark.parametrize(
    ("agent", "task", "said"),
    [
        ("agent1", '{"type":"exec","command":"echo lost >&2; exit 3"}', "exit code 3"),
        ("agent1", '{"type":"no-such-command"}', "no-such-command"),
        ("agent1", "uname -sr", "not JSON"),
        ("nobody", '{"type":"ping"}', "no agent 'nobody' in the inventory; there are: agent1, agent2, agent3"),
    ],
)
def test_a_task_that_fails_says_why(fleet: TestFleet, agent: str, task: str, said: str) -> None:
    done = fleet.fleet("task", agent, task)
    assert done.returncode == 1
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_a_program_is_run_by_an_agent(fleet: TestFleet) -> None:
    line = fleet.fleet("exec", "agent3", "echo $((6 * 7)) >&2; id -un")
    assert (line.returncode, line.stdout, line.stderr) == (0, "agent3\n", "42\n")
    words = fleet.fleet("exec", "agent1", "--timeout", "5000", "printf", "%s.", "a b", "-n")
    assert (words.returncode, words.stdout) == (0, "a b.-n.\n")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("agent1", "exit 3"), "exit code 3"),
        (("agent1", "--timeout", "300", "sleep 60"), "timed out after "),
        (("agent1", "--timeout", "0", "true"), "--timeout"),
        (("agent1", "--sudo", "id -un"), "sudo is not allowed to this agent"),
        (("nobody", "true"), "no agent 'nobody' in the inventory; there are: agent1, agent2, agent3"),
    ],
)
def test_a_program_that_fails_says_why(fleet: TestFleet, arguments: tuple[str, ...], said: str) -> None:
    done = fleet.fleet("exec", *arguments)
    assert done.returncode != 0
    assert said in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("arguments", "listed"),
    [
        ((), set(AGENTS)),
        (("--type", "builder"), {"agent3"}),
        (("--status", "idle", "--type", "general"), {"agent1", "agent2"}),
        (("--status", "online"), set(AGENTS)),
        (("--status", "offline"), set()),
    ],
)
def test_agents_are_listed_by_state_and_type(fleet: TestFleet, arguments: tuple[str, ...], listed: set[str]) -> None:
    assert {agent["agent"] for agent in json.loads(fleet.fleet("list", "--json", *arguments).stdout)} == listed


def test_a_state_that_there_is_not_is_said(fleet: TestFleet) -> None:
    done = fleet.fleet("list", "--status", "happy")
    assert (done.returncode, "idle, busy, offline, unknown" in done.stderr) == (2, True)


def test_status_for_programs_is_not_watched(fleet: TestFleet) -> None:
    done = fleet.fleet("status", "--watch", "--json")
    assert (done.returncode, "leave it out, or --json" in done.stderr) == (2, True)


def test_status_can_be_of_some_agents(fleet: TestFleet) -> None:
    told = json.loads(fleet.fleet("status", "--json", "agent2").stdout)
    assert [agent["agent"] for agent in told] == ["agent2"]


def test_status_is_watched_until_it_is_interrupted(fleet: TestFleet) -> None:
    with fleet.started("status", "agent2", "--watch") as watching:
        job = {"type": "exec", "command": "sleep 6"}
        lines = iter(watching.stdout or ())
        next(line for line in lines if "agent2" in line and "idle" in line)
        with fleet.started("task", "agent2", json.dumps(job)):
            next(line for line in lines if "agent2" in line and "busy" in line)
        watching.send_signal(signal.SIGINT)
        assert "Traceback" not in "".join(lines)
        assert watching.wait(20) == 0


def test_the_log_of_an_agents_runner_is_shown_and_followed(fleet: TestFleet) -> None:
    fleet.fleet("exec", "agent1", "true")
    shown = fleet.fleet("logs", "agent1", "--lines", "3")
    assert (shown.returncode, len(shown.stdout.splitlines())) == (0, 3)
    assert "claimed: exec" in shown.stdout
    with fleet.started("logs", "agent1", "--follow", "-n", "0") as following:
        time.sleep(3)  # until it follows, which nothing says
        fleet.fleet("task", "agent1", '{"type":"ping"}')
        assert "claimed: ping" in next(iter(following.stdout or ()))
        following.terminate()


@pytest.mark.parametrize("agent", AGENTS)
def test_an_agent_could_isolate_its_jobs_from_the_first_moment(fleet: TestFleet, agent: str) -> None:
    assert "cannot isolate" not in fleet.fleet("logs", agent, "--lines", "10000").stdout


def test_a_shell_is_on_the_node_or_the_agents_own(fleet: TestFleet) -> None:
    assert fleet.fleet("shell", "agents-2", "hostname").stdout == "agents-2\n"
    assert fleet.fleet("shell", "agent2", "id", "-un").stdout == "agent2\n"


def test_what_agents_can_do_is_theirs_to_say(fleet: TestFleet) -> None:
    done = fleet.fleet("task", "agent3", '{"type":"capabilities"}')
    assert done.returncode == 0
    assert "build" in json.dumps(json.loads(done.stdout))


def task(line: str) -> str:
    return json.dumps({"type": "exec", "command": line})


def told(fleet: TestFleet, *words: str) -> Any:
    done = fleet.fleet(*words, "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_a_job_is_followed_as_it_goes_also_over_a_cut_connection(fleet: TestFleet) -> None:
    steps = 'for n in 1 2 3 4 5; do echo "line $n"; echo "$((n * 20)) step $n" >> "$JOB_PROGRESS"; sleep 3; done'
    with fleet.started("task", "agent3", task(steps), "--follow", stderr=subprocess.PIPE) as following:
        lines = iter(following.stdout or ())
        assert next(lines) == "line 1\n"
        [job] = told(fleet, "jobs", "--status", "running", "--agent", "agent3")
        # Its way through the lab is a program of its own.
        subprocess.run(["pkill", "-P", str(following.pid)], check=True, timeout=10)
        assert list(lines) == [f"line {n}\n" for n in range(2, 6)]
        first, *states, last = (following.stderr or io.StringIO()).read().splitlines()
        assert following.wait(30) == 0
    assert first == f"job {job['id']}"
    assert "running" in states
    assert states[-1].startswith(("80 % step 4", "100 % step 5"))
    assert re.fullmatch(r"done in 1\d\.\d s", last)
    again = fleet.fleet("follow", job["id"])
    assert (again.returncode, again.stdout) == (0, "".join(f"line {n}\n" for n in range(1, 6)))


def test_a_task_for_later_with_a_priority_is_done_later(fleet: TestFleet) -> None:
    started = time.monotonic()
    done = fleet.fleet("task", "agent1", task("echo at last"), "--after", "5s", "--priority", "10", "--follow")
    assert (done.returncode, done.stdout) == (0, "at last\n")
    assert time.monotonic() - started > 5


def test_a_task_under_a_key_is_done_once(fleet: TestFleet) -> None:
    key = f"test-{time.time()}"
    line = task("date +%N")
    first, second = (fleet.fleet("task", "agent1", line, "--key", key) for _ in range(2))
    assert (first.returncode, first.stdout) == (0, second.stdout)


def test_a_batch_is_done_and_one_with_a_wrong_line_is_not(fleet: TestFleet, tmp_path: Path) -> None:
    file = tmp_path / "jobs.jsonl"
    lines = [{"agent": agent, "task": {"type": "ping", "payload": agent}} for agent in AGENTS]
    file.write_text("\n".join(map(json.dumps, lines)))
    ids = fleet.fleet("batch", str(file)).stdout.split()
    assert [fleet.fleet("follow", job).stdout for job in ids] == [f"pong: {agent}\n" for agent in AGENTS]
    file.write_text('{"task":{"type":"ping"}}\n{"task":{"type":"ping"},"max_deliveries":0}\n')
    before = told(fleet, "jobs", "--limit", "1")
    refused = fleet.fleet("batch", str(file))
    assert (refused.returncode, refused.stdout) == (1, "")
    assert refused.stderr.startswith("fleet: nothing was queued: line 2: max_deliveries")
    assert told(fleet, "jobs", "--limit", "1") == before


def test_a_running_job_is_cancelled_and_who_waits_is_told(fleet: TestFleet) -> None:
    with fleet.started("task", "agent2", task("echo begun; sleep 300"), "--follow", stderr=subprocess.PIPE) as waiting:
        assert next(iter(waiting.stdout or ())) == "begun\n"
        [job] = told(fleet, "jobs", "--status", "running", "--agent", "agent2")
        cancelled = fleet.fleet("cancel", job["id"], "--reason", "not today")
        assert (cancelled.returncode, cancelled.stdout) == (0, "cancelled\n")
        assert waiting.wait(30) == 1
        assert re.search(r"cancelled in \d+\.\d s: not today\n$", (waiting.stderr or io.StringIO()).read())
    assert job["id"] in {each["id"] for each in told(fleet, "jobs", "--status", "cancelled")}
    assert fleet.fleet("exec", "agent2", "pgrep -u $(id -u) -x sleep").returncode == 1


def test_a_dead_job_is_listed_and_gets_another_try(fleet: TestFleet) -> None:
    # It fails once, in the dialect in which that can be the last try.
    body = {"command": "test -e tried || { touch tried; exit 3; }; rm tried; echo better", "agent_hint": "agent3"}
    with fleet.token("bot", "tests") as token:
        headers = {"Authorization": f"Bearer {token}"}
        task = {"type": "exec", "payload": body, "max_attempts": 1}
        answer = httpx.post(f"{fleet.url}/api/tasks", json=task, headers=headers, trust_env=False)
    job = answer.raise_for_status().json()["task"]["id"]
    assert fleet.fleet("follow", job).returncode == 1
    assert job in fleet.fleet("jobs", "--dead").stdout
    assert re.search(r"^dead +[1-9]", fleet.fleet("queue").stdout, re.MULTILINE)
    requeued = fleet.fleet("requeue", job)
    assert (requeued.returncode, requeued.stdout) == (0, "1 queued again\n")
    assert fleet.fleet("follow", job).returncode == 0
    refused = fleet.fleet("requeue", job)
    assert (refused.returncode, f"job {job} is not dead but done" in refused.stderr) == (1, True)


def test_nothing_is_begun_in_a_pause(fleet: TestFleet) -> None:
    line = r"the queue is paused since \d{4}-\d\d-\d\d [\d:]+: a test; fleet resume ends it"
    assert fleet.fleet("pause", "a test").returncode == 0
    try:
        waiting = fleet.fleet("task", "agent1", task("echo now"), "--timeout", "3")
        assert (waiting.returncode, waiting.stdout) == (1, "")
        assert re.match(line, waiting.stderr)
        [job] = told(fleet, "jobs", "--status", "queued", "--agent", "agent1")
        assert re.search(line, fleet.fleet("status").stdout)
        assert re.search(line, fleet.fleet("queue").stdout)
    finally:
        assert fleet.fleet("resume").returncode == 0
    assert fleet.fleet("follow", job["id"]).stdout == "now\n"
    assert told(fleet, "queue")["paused"] is None


@pytest.mark.parametrize("command", ["follow", "cancel", "requeue"])
def test_a_job_that_there_is_not_is_said(fleet: TestFleet, command: str) -> None:
    done = fleet.fleet(command, "1234")
    refusal = "fleet: there is no job '1234'; fleet jobs lists them\n"
    assert (done.returncode, done.stdout, done.stderr) == (1, "", refusal)


def test_nothing_but_packages_was_fetched(fleet: TestFleet) -> None:
    assert "denied" not in fleet.lab.lab.proxy_log.read_text()
