"""The kit's own program where something fails: the next `up` completes, and nothing of somebody else's is touched."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.engine import Apis
from tests.support.kit import BROKER, NODES, Fleet, selected_stack

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


def test_a_user_s_own_policy_is_never_overwritten(new: Fleet) -> None:
    theirs = '{"acls": [{"action": "accept", "src": ["*"], "dst": ["*:*"]}], // by hand\n "tagOwners": {"tag:x": []}}'
    new.apis.tailnet("POST", "tailnet/-/acl", content=theirs)
    up = new.stack.up()
    assert up.status != 0
    assert "policy of its own" in up.output
    assert new.apis.tailnet("GET", "tailnet/-/acl").text == theirs
    assert not new.servers()


FAULTS = [
    {"match": "POST /networks", "code": "service_error", "status": 500},
    {"match": "POST /servers", "code": "resource_unavailable", "status": 412},
    {"match": "POST /servers", "code": "rate_limit_exceeded", "status": 429},
    {"match": "POST /volumes", "code": "service_error", "status": 500},
    {"match": "POST /placement_groups", "code": "service_error", "status": 500},
    {"action": "add_subnet", "code": "action_failed", "message": "no room"},
    {"action": "create_volume", "code": "action_failed", "message": "no disk"},
    {"action": "attach_volume", "code": "action_failed", "message": "no slot"},
]


@pytest.mark.parametrize(
    "fault", FAULTS, ids=lambda fault: f"{fault.get('match', fault.get('action'))} {fault['code']}"
)
def test_after_a_fault_the_next_up_completes(new: Fleet, fault: dict[str, Any]) -> None:
    new.apis.fault(**fault)
    failed = new.stack.up()
    assert failed.status != 0 or fault["code"] == "rate_limit_exceeded", "nothing came of the fault"
    new.up()
    assert set(new.servers()) == set(new.apis.devices()) == set(NODES)
    assert all(host["private"] for host in new.hosts().values())
    new.is_settled()


@pytest.mark.parametrize("action", ["create_server", "attach_to_network"])
def test_a_server_that_was_never_whole_is_made_anew_with_another_key(selected: Fleet, action: str) -> None:
    selected.apis.fault(action=action, code="action_failed", message="no room")
    assert selected.stack.up().status != 0
    selected_stack().up(print)
    assert set(selected.servers()) == set(selected.apis.devices()) == set(NODES)
    assert all(host["private"] for host in selected.hosts().values())
    selected.is_settled()


def test_after_a_failure_the_nodes_from_before_are_still_in_the_inventory(fleet: Fleet) -> None:
    fleet.nodes(agents_3={"role": "runner"})
    fleet.apis.fault(match="POST /servers", code="resource_unavailable", status=412)
    assert fleet.stack.up().status != 0
    assert set(fleet.hosts()) == set(NODES)


def test_after_a_kill_the_server_that_no_state_knows_goes_and_another_is_made(fleet: Fleet) -> None:
    fleet.nodes(agents_3={"role": "runner"})
    fleet.apis.fault(action="create_server", seconds=3)
    process = fleet.stack.start("up", "--yes", "--skip-preview")
    fleet.apis.await_server("agents-3")
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=20)
    fleet.apis.await_device("agents-3")
    lost = fleet.servers()["agents-3"]
    assert "`pulumi cancel`" in fleet.stack.up().output
    fleet.stack.run("cancel", "--yes").succeeded()
    again = fleet.stack.up()
    assert again.status != 0
    assert "1 pending operations" in again.output
    assert "run `fleet up`, which makes another, or raise fleet:nodes.agents-3.generation by one" in again.output
    assert "agents-3" not in fleet.servers() | fleet.apis.devices()
    fleet.nodes(agents_3={"role": "runner", "generation": 2})
    fleet.stack.up("--refresh").succeeded()
    assert fleet.servers()["agents-3"] != lost
    assert set(fleet.servers()) == set(fleet.apis.devices()) == {*NODES, "agents-3"}
    fleet.stack.refresh("--clear-pending-creates").succeeded()
    assert "pending_operations" not in fleet.stack.state()
    fleet.is_settled()


@pytest.fixture
def second(fleet: Fleet, tmp_path: Path) -> Iterator[Fleet]:
    """Return another stack in the fleet's tailnet, with a Hetzner project of its own, and one name alike."""
    with Apis(tmp_path / "second/apis") as apis:
        tailnet = {key: value for key, value in fleet.apis.settings.items() if key.startswith("tailscale:")}
        apis.settings.update(tailnet)
        second = Fleet(tmp_path / "second/stack", apis)
        second.stack.configure({"fleet:nodes": {"broker-2": BROKER, "agents-1": {"role": "runner"}}})
        yield second


def test_a_device_of_another_stack_keeps_a_server_of_its_name_from_being_made(fleet: Fleet, second: Fleet) -> None:
    device = fleet.apis.devices()["agents-1"]
    fleet.apis.leave("agents-1")
    up = second.stack.up()
    assert up.status != 0
    assert f"agents-1: machine agents-1 ({device['id']}) is in the tailnet with a node's tag" in up.output
    assert "choose another name, or remove it there if its server is gone" in up.output
    assert set(second.servers()) == {"broker-2"}
    destroy = second.stack.destroy()
    assert destroy.status == 0, destroy.output
    assert fleet.apis.devices()["agents-1"]["id"] == device["id"]


def test_up_goes_on_when_the_device_in_its_way_was_removed_by_hand(fleet: Fleet, second: Fleet) -> None:
    fleet.apis.leave("agents-1")
    assert second.stack.up().status != 0
    fleet.apis.tailnet("DELETE", f"device/{fleet.apis.devices()['agents-1']['id']}")
    second.up()
    assert set(second.hosts()) == {"broker-2", "agents-1"}


def test_a_server_deleted_by_hand_takes_its_device_along_at_the_next_generation(fleet: Fleet) -> None:
    server = fleet.apis.cloud.servers.get_by_name("agents-1")
    assert server
    server.delete().wait_until_finished()
    fleet.apis.leave("agents-1")
    before = fleet.apis.devices()["agents-1"]["id"]
    fleet.stack.refresh()
    fleet.nodes(agents_1={"role": "runner", "generation": 2})
    fleet.up()
    assert set(fleet.apis.devices()) == set(NODES)
    assert fleet.apis.devices()["agents-1"]["id"] != before
