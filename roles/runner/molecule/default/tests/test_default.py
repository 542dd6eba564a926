"""Converged agents, judged from outside their own files."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from tests.support.molecule import call

if TYPE_CHECKING:
    from testinfra.host import Host

testinfra_hosts = ["ansible://runners"]
DECLARED = yaml.safe_load((Path(__file__).resolve().parents[5] / "inventory/group_vars/all.yml").read_text())["agents"]
UNIT = "openclaw-runner.service"


@pytest.fixture
def agents(host: Host) -> list[dict[str, Any]]:
    """The agents that are declared for this host."""
    return [agent for agent in DECLARED if agent["node"] == host.backend.get_hostname()]


def as_agent(root: Host, name: str, command: str) -> Any:
    """Run a command within the agent's slice, as its jobs are."""
    return root.run(f"systemd-run --quiet --user --machine={name}@ --pipe --wait --collect {command} || exit 1")


def until(check: Any, seconds: float = 20) -> Any:
    """Return the first true value that check gives."""
    deadline = time.monotonic() + seconds
    while not (value := check()):
        assert time.monotonic() < deadline, f"not within {seconds} s: {check}"
        time.sleep(0.1)
    return value


def main_pid(root: Host, name: str) -> str:
    return str(root.check_output(f"systemctl --user --machine={name}@ show --property=MainPID --value {UNIT}"))


def test_a_host_has_its_agents_and_no_others(root: Host, agents: list[dict[str, Any]]) -> None:
    lingering = root.check_output("ls /var/lib/systemd/linger").split()

    assert lingering == [agent["name"] for agent in agents]
    assert not [agent for agent in DECLARED if root.user(agent["name"]).exists != (agent in agents)]


def test_each_agent_does_its_own_job(broker: Host, agents: list[dict[str, Any]]) -> None:
    for agent in agents:
        body = {"command": "ping", "payload": "hello", "agent": agent["name"]}
        job = call(broker, f"/jobs/{call(broker, '/jobs', body)['id']}?wait=20")

        assert (job["status"], job["worker_id"], job["result"]) == ("done", agent["name"], "pong: hello")


@pytest.mark.parametrize(("language", "text"), [("node", "console.log(6 * 7)"), ("python", "print(6 * 7)")])
def test_each_agent_runs_scripts(broker: Host, agents: list[dict[str, Any]], language: str, text: str) -> None:
    for agent in agents:
        payload = json.dumps({"script": text, "language": language})
        body = {"command": "script", "payload": payload, "agent": agent["name"]}
        job = call(broker, f"/jobs/{call(broker, '/jobs', body)['id']}?wait=20")

        assert json.loads(job["result"] or "{}").get("stdout") == "42\n", job["error"]


def test_the_broker_knows_what_an_agent_can_do(broker: Host, agents: list[dict[str, Any]]) -> None:
    known = {agent["id"]: agent for agent in call(broker, "/agents")["agents"]}

    for agent in agents:
        assert known[agent["name"]]["status"] == "online"
        assert sorted(known[agent["name"]]["capabilities"]) == sorted(agent["capabilities"])


def test_the_runner_is_the_agents_own_process(root: Host, agents: list[dict[str, Any]]) -> None:
    for agent in agents:
        pid = main_pid(root, agent["name"])

        assert root.check_output(f"ps -o user= -p {pid}") == agent["name"]
        assert f"user@{root.user(agent['name']).uid}.service" in root.check_output(f"cat /proc/{pid}/cgroup")


def test_memory_of_an_agent_is_limited(root: Host, agents: list[dict[str, Any]]) -> None:
    for agent in agents:
        megabytes = int(agent["limits"]["memory"].removesuffix("G")) * 1024
        allocate = "python3 -c 'import sys; bytearray(int(sys.argv[1]) << 20)'"

        assert as_agent(root, agent["name"], f"{allocate} {megabytes // 2}").rc == 0
        assert as_agent(root, agent["name"], f"{allocate} {megabytes + 64}").rc != 0


def test_processes_of_an_agent_are_limited(root: Host, agents: list[dict[str, Any]]) -> None:
    fork = "import os, sys, time; [os.fork() or (time.sleep(5), os._exit(0)) for _ in range(int(sys.argv[1]))]"

    for agent in agents:
        done = as_agent(root, agent["name"], f"python3 -c '{fork}' {agent['limits']['tasks']}")

        assert "BlockingIOError" in done.stderr


def test_an_agents_token_is_its_own(root: Host, agents: list[dict[str, Any]]) -> None:
    for agent in agents:
        path = f"/etc/openclaw/agents/{agent['name']}/worker-token"
        readers = {name: root.run(f"runuser -u {name} -- head -c1 {path}").rc for name in (agent["name"], "deploy")}
        readers |= {
            other["name"]: root.run(f"runuser -u {other['name']} -- head -c1 {path}").rc
            for other in agents
            if other is not agent
        }

        assert [name for name, rc in readers.items() if rc == 0] == [agent["name"]]
        assert root.run(f"runuser -u {agent['name']} -- sh -c 'echo x > {path}'").rc != 0


def test_an_agent_changes_nothing_that_decides_what_runs(root: Host, agents: list[dict[str, Any]]) -> None:
    for agent in agents:
        name = agent["name"]
        release = root.check_output(f"readlink --canonicalize /opt/openclaw/agents/{name}/current")
        paths = [
            f"/etc/openclaw/agents/{name}/runner.env",
            f"/etc/systemd/user/{UNIT}",
            f"{release}/lib/runner_app/__init__.py",
        ]
        folders = [f"/etc/openclaw/agents/{name}", f"/opt/openclaw/agents/{name}", release]

        assert not [path for path in paths if root.run(f"runuser -u {name} -- test -w {path}").rc == 0]
        assert not [path for path in folders if root.run(f"runuser -u {name} -- touch {path}/x").rc == 0]


def test_no_token_shows(root: Host, agents: list[dict[str, Any]]) -> None:
    for agent in agents:
        name = agent["name"]
        token = f"/etc/openclaw/agents/{name}/worker-token"
        pid = main_pid(root, name)
        places = [
            f"systemctl --user --machine={name}@ show {UNIT}",
            f"cat /proc/{pid}/environ /proc/{pid}/cmdline",
            "journalctl --no-pager --output=export",
            f"cat /etc/openclaw/agents/{name}/runner.env /etc/systemd/user/{UNIT}",
        ]

        assert root.run(f"cat {token} | grep --file={token}").rc == 0
        assert not [place for place in places if root.run(f"{place} | grep --quiet --text --file={token}").rc == 0]


def test_a_token_is_good_for_its_agent_only(root: Host, agents: list[dict[str, Any]]) -> None:
    name = agents[0]["name"]
    url = root.check_output(f"sed -n 's/^BROKER_URL=//p' /etc/openclaw/agents/{name}/runner.env")
    poll = "curl --silent --max-time 10 --output /dev/null --write-out '%{http_code}' --header @-"
    headers = f"X-Worker-Token: $(cat /etc/openclaw/agents/{name}/worker-token)"

    def status(headers: str, path: str) -> str:
        return str(root.check_output(f'printf "{headers}\\n" | {poll} {url}{path}'))

    assert status(f"{headers}x\\nX-Worker-Id: {name}", "/jobs/next") == "401"
    assert status(f"{headers}\\nX-Worker-Id: somebody-else", "/jobs/next") == "403"
    assert status(f"X-Worker-Id: {name}", "/jobs/next") == "401"
    assert status(f"{headers}\\nX-Worker-Id: {name}", "/agents") in ("401", "403")


def test_a_killed_runner_comes_back(root: Host, agents: list[dict[str, Any]]) -> None:
    name = agents[0]["name"]
    before = main_pid(root, name)

    root.check_output(f"kill -KILL {before}")

    assert until(lambda: (pid := main_pid(root, name)) not in ("0", before) and pid)


def test_a_killed_user_manager_comes_back_with_its_runner(root: Host, agents: list[dict[str, Any]]) -> None:
    name = agents[0]["name"]
    unit = f"user@{root.user(name).uid}.service"
    before = root.check_output(f"systemctl show --property=MainPID --value {unit}")

    root.check_output(f"kill -KILL {before}")

    until(lambda: root.check_output(f"systemctl show --property=MainPID --value {unit}") not in ("0", before))
    active = f"systemctl --user --machine={name}@ is-active {UNIT}"
    until(lambda: root.run(active).stdout.strip() == "active")
