"""What somebody changed by hand is found, reported and put right, and nothing else is touched."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from tests.support.fleet import changed_tasks

if TYPE_CHECKING:
    from tests.support.fleet import TestFleet


@dataclass(frozen=True)
class Mutation:
    """One thing of a role that is spoilt on a host: a shell command, and the file or unit it spoils.

    A file with a secret is reported by its task alone.
    """

    role: str
    node: str
    spoil: str
    path: str
    task: str = ""


_RUNNER_ENV = "/etc/openclaw/agents/agent1/runner.env"
_RUNNER = "/opt/openclaw/agents/agent1/current/lib/runner_app/runner.py"
# On another host: one damaged file has the whole release made anew.
_COMPILED = "/opt/openclaw/agents/agent3/current/lib/runner_app/__pycache__/runner.cpython-313.pyc"
_FLIP_A_BYTE = "printf '\\377' | dd of={path} bs=1 seek=99 conv=notrunc status=none"
MUTATIONS = [
    Mutation("base", "agents-2", "echo '# by hand' >> {path}", "/etc/openclaw/firewall.nft"),
    Mutation("base", "agents-2", "systemctl disable --quiet {path}", "openclaw-firewall.service"),
    Mutation("base", "agents-2", "chmod 0666 {path}", "/etc/ssh/sshd_config.d/00-openclaw.conf"),
    Mutation("broker", "broker-1", "echo 'LEASE_SECONDS=1' >> {path}", "/etc/openclaw/broker.env"),
    Mutation("broker", "broker-1", "echo '# by hand' >> {path}", "/etc/systemd/system/openclaw-broker.service"),
    Mutation("broker", "broker-1", "chmod 0755 {path}", "/etc/openclaw/operator-token", "Place the operator's token"),
    Mutation("runner", "agents-1", "echo 'WORKER_ID=somebody' >> {path}", _RUNNER_ENV),
    Mutation("runner", "agents-1", "echo '# by hand' >> {path}", "/etc/systemd/user/openclaw-runner.service"),
    Mutation(
        "runner",
        "agents-1",
        "chmod 0644 {path}",
        "/etc/openclaw/agents/agent2/worker-token",
        "Place the agents' tokens",
    ),
    Mutation("runner", "agents-1", _FLIP_A_BYTE, _RUNNER, "Install the release"),
    Mutation("runner", "agents-2", _FLIP_A_BYTE, _COMPILED, "Install the release"),
]


def _state(fleet: TestFleet, mutation: Mutation) -> str:
    host = fleet.host(mutation.node)
    if not mutation.path.startswith("/"):
        return str(host.run(f"systemctl is-enabled {mutation.path}").stdout)
    return str(host.run_expect([0], f"stat -c '%a %U' {mutation.path}; sha256sum {mutation.path}").stdout)


def test_the_next_run_repairs_exactly_what_was_changed(fleet: TestFleet) -> None:
    good = {mutation: _state(fleet, mutation) for mutation in MUTATIONS}
    for mutation in MUTATIONS:
        fleet.host(mutation.node).run_expect([0], mutation.spoil.format(path=mutation.path))
        assert _state(fleet, mutation) != good[mutation], mutation

    announced = fleet.playbook("--check", "--diff")
    assert announced.returncode == 0, announced.stdout
    assert {mutation for mutation in MUTATIONS if _state(fleet, mutation) == good[mutation]} == set()
    repaired = fleet.playbook("--diff")
    assert repaired.returncode == 0, repaired.stdout
    assert {mutation: _state(fleet, mutation) for mutation in MUTATIONS} == good

    changed = changed_tasks(repaired.stdout)
    assert {(task.partition(" : ")[0], host) for task, host in changed} == {
        (mutation.role, mutation.node) for mutation in MUTATIONS
    }
    for mutation in MUTATIONS:
        assert _reports(announced.stdout, mutation), f"--check --diff did not announce {mutation.path}"
        assert _reports(repaired.stdout, mutation), f"the run did not report {mutation.path}"
    assert changed_tasks(fleet.playbook().stdout) == []


def _reports(output: str, mutation: Mutation) -> bool:
    if mutation.task:
        return (f"{mutation.role} : {mutation.task}", mutation.node) in changed_tasks(output)
    return mutation.path in output


@pytest.mark.parametrize("node", ["broker-1", "agents-1", "agents-2"])
def test_everything_is_healthy_after_the_repair(fleet: TestFleet, node: str) -> None:
    assert fleet.host(node).run("systemctl is-system-running").stdout == "running\n"
