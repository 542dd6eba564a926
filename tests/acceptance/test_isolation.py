"""What a job tries and must not get, judged by what happens when it tries."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.support.fleet import Submitter, TestFleet

# agent1 is on Debian 12, agent3 on Debian 13.
PLACES = {"agent1": "agents-1", "agent3": "agents-2"}
_ATTEMPTS = {
    "read its agent's token": "cat /etc/openclaw/agents/{agent}/worker-token",
    "read the runner's copy of it": "cat /run/user/{uid}/credentials/openclaw-runner.service/worker-token",
    "read the runner's records": "cat {home}/.local/state/openclaw-runner/jobs/*/claim.json",
    "see its agent's home": "ls {home}/.bashrc",
    "see another user's home": "ls /home/deploy",
    "reach the user bus": "DBUS_SESSION_BUS_ADDRESS=unix:path=/run/user/{uid}/bus systemctl --user list-units",
    "start a unit outside of its box": "XDG_RUNTIME_DIR=/run/user/{uid} systemd-run --user --wait true",
    "write to the system": "touch /etc/written",
    "become root": "sudo -n true",
    "make a namespace": "unshare --user true",
    "read the runner's environment": "cat /proc/$(pgrep -f runner_ap[p])/environ",
}


def _run(submitter: Submitter, agent: str, command: str) -> dict[str, object]:
    job = submitter.submit(agent, "exec", json.dumps({"command": command}))
    return submitter.job(job, wait=25)


@pytest.mark.parametrize("attempt", _ATTEMPTS)
@pytest.mark.parametrize(("agent", "node"), PLACES.items())
def test_a_job_cannot(fleet: TestFleet, submitter: Submitter, agent: str, node: str, attempt: str) -> None:
    uid = fleet.host(node).user(agent).uid
    command = _ATTEMPTS[attempt].format(agent=agent, uid=uid, home=f"/home/{agent}")
    ended = _run(submitter, agent, command)
    assert ended["status"] == "failed", ended["result"]


@pytest.mark.parametrize(("agent", "node"), PLACES.items())
def test_a_unit_that_a_job_writes_reaches_nobody(fleet: TestFleet, submitter: Submitter, agent: str, node: str) -> None:
    """Debian 12 gives the job a home of its own to write to, Debian 13 none; the agent's home is neither."""
    folder = f"/home/{agent}/.config/systemd/user"
    _run(submitter, agent, f"mkdir -p {folder} && touch {folder}/written.service")
    assert not fleet.host(node).file(f"{folder}/written.service").exists


@pytest.mark.parametrize(("agent", "node"), PLACES.items())
def test_what_a_job_cannot_reach_is_there_for_root(fleet: TestFleet, agent: str, node: str) -> None:
    """Else the attempts would fail for want of a target."""
    host = fleet.host(node)
    uid = host.user(agent).uid
    for path in (
        f"/etc/openclaw/agents/{agent}/worker-token",
        f"/run/user/{uid}/credentials/openclaw-runner.service/worker-token",
        f"/home/{agent}/.local/state/openclaw-runner/jobs",
        f"/home/{agent}/.bashrc",
        f"/run/user/{uid}/bus",
    ):
        assert host.file(path).exists, path


@pytest.mark.parametrize("agent", PLACES)
def test_a_job_can_work(submitter: Submitter, agent: str) -> None:
    command = "echo kept > note && cat note && touch /tmp/x && id -un && getent hosts localhost > /dev/null"
    ended = _run(submitter, agent, command)
    assert ended["status"] == "done", ended["error"]
    assert json.loads(str(ended["result"]))["stdout"] == f"kept\n{agent}\n"
