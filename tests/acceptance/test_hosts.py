"""The converged hosts as an outside auditor sees them."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import pytest

from lab.stack import LabStack

if TYPE_CHECKING:
    from tests.support.fleet import TestFleet

NODES = ("broker-1", "agents-1", "agents-2")
PLACES = {"agent1": "agents-1", "agent2": "agents-1", "agent3": "agents-2"}
ON_EVERY_NODE = pytest.mark.parametrize("node", NODES)
FOR_EVERY_AGENT = pytest.mark.parametrize(("agent", "node"), PLACES.items())


def _answers(fleet: TestFleet, node: str, port: int) -> bool:
    """Whether a port answers the lab's own network, past the tailnet."""
    probe = ["nsenter", f"--net={fleet.lab.lab.namespace}", "nc", "-z", "-w", "2"]
    return subprocess.run([*probe, fleet.lab.machine(node).address, str(port)], check=False).returncode == 0


def _answers_in_the_tailnet(fleet: TestFleet, source: str | None, node: str, port: int) -> bool:
    """Whether a port answers another node, or this machine, which is an administrator's."""
    name = f"{node}.tail.lab"
    if source:
        status: int = fleet.host(source).run(f"timeout 5 bash -c '</dev/tcp/{name}/{port}'").rc
        return status == 0
    dial = ["timeout", "5", *LabStack(fleet.lab.lab).tailnet.command, "nc", name, str(port)]
    with subprocess.Popen(dial, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as dialled:
        assert dialled.stdin
        assert dialled.stdout
        # sshd speaks first, and the broker answers a request. With the end of its input, nc would end too.
        dialled.stdin.write(b"GET /health HTTP/1.0\r\n\r\n")
        dialled.stdin.flush()
        said = dialled.stdout.read(1)
        dialled.terminate()
    return bool(said)


@pytest.mark.tailnet
def test_everything_goes_over_the_tailnet(fleet: TestFleet) -> None:
    for node in NODES:
        assert _answers_in_the_tailnet(fleet, None, node, 22)
        assert not _answers(fleet, node, 22)
    assert not _answers(fleet, "broker-1", 8000)


@pytest.mark.tailnet
def test_runners_nodes_reach_the_broker_and_nothing_else(fleet: TestFleet) -> None:
    for node in ("agents-1", "agents-2"):
        assert _answers_in_the_tailnet(fleet, node, "broker-1", 8000)
        assert not _answers_in_the_tailnet(fleet, node, "broker-1", 22)
    assert not _answers_in_the_tailnet(fleet, "agents-1", "agents-2", 22)
    assert not _answers_in_the_tailnet(fleet, "broker-1", "agents-1", 22)


@ON_EVERY_NODE
def test_a_port_nobody_allowed_is_closed(fleet: TestFleet, node: str) -> None:
    host = fleet.host(node)
    host.run_expect([0], "systemd-run --quiet --unit=open-port python3 -m http.server 8099")
    try:
        host.run_expect([0], "timeout 10 bash -c 'until </dev/tcp/127.0.0.1/8099; do :; done' 2>/dev/null")
        assert not _answers(fleet, node, 8099)
        assert not _answers_in_the_tailnet(fleet, None, node, 8099)
    finally:
        host.run_expect([0], "systemctl stop open-port")


@FOR_EVERY_AGENT
def test_an_agent_is_a_user_of_its_own(fleet: TestFleet, agent: str, node: str) -> None:
    host = fleet.host(node)
    assert host.user(agent).exists
    assert "sudo" not in host.user(agent).groups
    assert host.run(f"sudo -u {agent} sudo -n true").rc != 0
    assert host.file(f"/home/{agent}").mode & 0o007 == 0
    assert host.run_expect([0], f"loginctl show-user {agent} -p Linger").stdout.strip() == "Linger=yes"
    assert host.run_expect([0], f"systemctl --user -M {agent}@ is-active openclaw-runner").stdout.strip() == "active"


@FOR_EVERY_AGENT
def test_a_credential_is_its_agents_alone(fleet: TestFleet, agent: str, node: str) -> None:
    host = fleet.host(node)
    credential = host.file(f"/etc/openclaw/agents/{agent}/worker-token")
    assert (credential.user, credential.mode) == (agent, 0o400)
    others = [other for other, place in PLACES.items() if place == node and other != agent]
    for other in (*others, "deploy", "nobody"):
        assert host.run(f"sudo -u {other} cat {credential.path}").rc != 0
    folder = host.file(f"/etc/openclaw/agents/{agent}")
    assert (folder.user, folder.mode) == ("root", 0o755)


@FOR_EVERY_AGENT
def test_an_agent_cannot_change_the_release_it_runs(fleet: TestFleet, agent: str, node: str) -> None:
    host = fleet.host(node)
    release = host.run_expect([0], f"readlink -f /opt/openclaw/agents/{agent}/current").stdout.strip()
    assert release.startswith("/opt/openclaw/releases/runner/0.1.0-")
    for path in (release, f"{release}/lib/runner_app/__main__.py", f"/opt/openclaw/agents/{agent}"):
        assert host.run(f"sudo -u {agent} test -w {path}").rc != 0


@ON_EVERY_NODE
def test_no_secret_shows(fleet: TestFleet, node: str) -> None:
    """No credential stands in a unit, an environment, a command line, the journal or a file that others may read."""
    host = fleet.host(node)
    files = host.run_expect([0], "find /etc/openclaw -type f -name '*-token'").stdout.split()
    assert files
    for file in files:
        searched = (
            f'secret=$(cat {file}); test -n "$secret"; '
            'grep -rslF -- "$secret" /etc /run/systemd /usr/local /opt/openclaw /home /var/lib /var/log /tmp '
            '/proc/[0-9]*/environ /proc/[0-9]*/cmdline; journalctl --no-pager -o json | grep -cF -- "$secret"'
        )
        found = [line for line in host.run(f"bash -c '{searched}'").stdout.split() if "/credentials/" not in line]
        assert found == [file, "0"], file


@ON_EVERY_NODE
def test_time_and_updates_are_looked_after(fleet: TestFleet, node: str) -> None:
    host = fleet.host(node)
    assert host.package("unattended-upgrades").is_installed
    enabled = host.run_expect([0], "apt-config dump APT::Periodic::Unattended-Upgrade").stdout
    assert '"1"' in enabled


@pytest.mark.tailnet
@pytest.mark.parametrize("node", ["agents-1", "agents-2"])
def test_agents_work_again_by_themselves_after_a_reboot(fleet: TestFleet, node: str) -> None:
    fleet.lab.run("reboot", node)
    for agent in (agent for agent, place in PLACES.items() if place == node):
        done = fleet.fleet("task", agent, '{"type":"exec","command":"id -un"}', timeout=120)
        assert (done.returncode, done.stdout) == (0, f"{agent}\n"), done.stderr


@pytest.mark.tailnet
def test_the_broker_serves_again_by_itself_after_a_reboot(fleet: TestFleet) -> None:
    before = fleet.status()
    fleet.lab.run("reboot", "broker-1")
    after = fleet.status()
    jobs = {agent: facts["last_job"]["id"] for agent, facts in before.items()}
    assert {agent: facts["last_job"]["id"] for agent, facts in after.items()} == jobs
    assert fleet.fleet("task", "agent1", '{"type":"ping","payload":"again"}').stdout == "pong: again\n"
