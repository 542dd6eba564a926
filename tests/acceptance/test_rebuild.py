"""A node is built anew by a higher generation."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from lab.process import run
from lab.tailnet import Node, Tailnet

if TYPE_CHECKING:
    from lab.lab import Lab
    from tests.support.fleet import Submitter, TestFleet

NODE, AGENT = "agents-2", "agent3"
DEVICES = ("broker-1", "agents-1", "agents-2", "controller")


def _output(fleet: TestFleet) -> dict[str, dict[str, object]]:
    """Return the stack's hosts by name, as its outputs have them."""
    done = fleet.program("pulumi", "stack", "output", "inventory", "--json")
    assert done.returncode == 0, done.stderr
    return {host["name"]: host for host in json.loads(done.stdout)["hosts"]}


def _learnt_key(lab: Lab, name: str) -> str:
    """Return the key that the controller has learnt under a name; ssh may have hashed the name."""
    file = next((lab.folder / "state/openclaw-fleet").glob("*/known_hosts"))
    return run(["ssh-keygen", "-F", name, "-f", str(file)]).splitlines()[-1].partition(" ")[2]


@dataclass(frozen=True)
class State:
    """What there is at one time: the stack's hosts, the tailnet's devices, and the keys that have been used."""

    hosts: dict[str, dict[str, object]]
    devices: dict[str, Node]
    spent: set[str]


@dataclass(frozen=True)
class Rebuild:
    """What there was before and after a node was built anew, and what the run after that said."""

    before: State
    after: State
    again: str


@pytest.fixture(scope="module")
def rebuild(fleet: TestFleet) -> Rebuild:
    before = _look(fleet)
    generation = str(int(str(before.hosts[NODE]["generation"])) + 1)
    raised = fleet.program("pulumi", "config", "set", "--path", f"fleet:nodes.{NODE}.generation", generation)
    assert raised.returncode == 0, raised.stderr
    runs = [fleet.fleet("up", timeout=900) for _ in range(2)]
    for done in runs:
        assert done.returncode == 0, done.stdout + done.stderr
    return Rebuild(before, _look(fleet), runs[1].stdout)


def _look(fleet: TestFleet) -> State:
    lab = fleet.lab.lab
    found = Tailnet(lab).nodes()
    devices = {node.name: node for node in found}
    assert len(devices) == len(found), "two devices have one name"
    return State(_output(fleet), devices, _spent_keys(lab))


def _spent_keys(lab: Lab) -> set[str]:
    tailnet = Tailnet(lab)
    keys = tailnet.headscale("preauthkeys", "list", "--user", tailnet.user)
    return {key["key"] for key in keys if key.get("used")}


def test_the_server_is_another_of_the_same_name(rebuild: Rebuild) -> None:
    before, after = rebuild.before.hosts, rebuild.after.hosts
    assert after.keys() == before.keys()
    assert {name for name in before if before[name]["id"] != after[name]["id"]} == {NODE}


def test_the_tailnet_has_the_expected_devices_and_no_other(rebuild: Rebuild) -> None:
    before, after = rebuild.before.devices, rebuild.after.devices
    assert sorted(after) == sorted(before) == sorted(DEVICES)
    assert {name for name in before if before[name].id != after[name].id} == {NODE}
    assert after[NODE].machine_key != before[NODE].machine_key
    assert after[NODE].hostname == NODE
    assert after[NODE].tags == before[NODE].tags
    assert after[NODE].online


def test_it_joined_with_a_key_of_its_own(rebuild: Rebuild) -> None:
    assert len(rebuild.after.spent - rebuild.before.spent) == 1


def test_its_host_key_was_learnt_as_anothers(fleet: TestFleet, rebuild: Rebuild) -> None:
    alias = f"{NODE}-{rebuild.after.hosts[NODE]['id']}"
    assert _learnt_key(fleet.lab.lab, alias) == fleet.lab.machine(NODE).host_key


@pytest.mark.usefixtures("rebuild")
def test_its_agent_works(submitter: Submitter) -> None:
    job = submitter.job(submitter.submit(AGENT, "exec", json.dumps({"command": "hostname"})), wait=25)
    assert job["status"] == "done", job
    assert json.loads(job["result"])["stdout"] == f"{NODE}\n"


def test_the_second_run_changes_nothing(rebuild: Rebuild) -> None:
    assert re.search(r"^stack +lab: \d+ unchanged ", rebuild.again, re.MULTILINE), rebuild.again
    assert "changed=0 on 3 hosts" in rebuild.again
