"""What `fleet up` and `fleet destroy` do with a stack, and its inventory: the real engine on the kit's program."""

from __future__ import annotations

import json
import re
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from fleet import stack as stacks
from fleet.errors import StackError
from lab import tools
from lab.process import PROJECT
from tests.support.kit import NODES, PROGRAMS, selected_stack

if TYPE_CHECKING:
    from tests.support.kit import Fleet

pytestmark = pytest.mark.skipif(tools.missing() is not None, reason=str(tools.missing()))


def quiet(_: str) -> None: ...


def test_up_makes_the_nodes_and_again_nothing_and_they_are_the_inventory(selected: Fleet) -> None:
    lines: list[str] = []
    assert "created" in selected_stack().up(lines.append)
    assert any("broker-1" in line for line in lines)
    again = selected_stack().up(quiet)
    assert "created" not in again
    assert again.endswith("unchanged")

    ansible = [str(PROGRAMS / "ansible-inventory"), "-i", "inventory", "--list"]
    done = subprocess.run(ansible, cwd=PROJECT, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    listed = json.loads(done.stdout, object_hook=lambda each: each.get("__ansible_unsafe", each))
    assert sorted(listed["tailnet"]["hosts"]) == ["agents-1", "agents-2", "broker-1"]
    broker = listed["_meta"]["hostvars"]["broker-1"]
    assert broker["ansible_host"] == "broker-1.tail.lab"
    assert int(broker["server_id"]) == selected.servers()["broker-1"]
    assert broker["broker_volume"].startswith("/dev/disk/by-id/scsi-0HC_Volume_")


def test_destroy_deletes_all_of_it_and_keeps_the_configuration(selected: Fleet) -> None:
    selected_stack().up(quiet)
    command = [str(PROGRAMS / "fleet"), "destroy", "--yes"]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"^stack +\S+ \d+ deleted +\d", done.stdout, re.MULTILINE), done.stdout
    assert selected.servers() == {}
    assert selected.apis.devices() == {}
    assert selected.stack.engine.config.exists()


def test_destroy_touches_nothing_while_the_broker_is_protected(selected: Fleet) -> None:
    selected.nodes(broker_1={"role": "broker", "protect": True})
    selected_stack().up(quiet)
    before, resources = selected.servers(), selected.stack.state()
    refused = subprocess.run(
        [str(PROGRAMS / "fleet"), "destroy", "--yes"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert refused.returncode == 1
    assert "server broker-1" in refused.stderr
    assert "protect: false" in refused.stderr
    assert (selected.servers(), selected.stack.state()) == (before, resources)


def test_destroy_asks_first(selected: Fleet) -> None:
    selected_stack().up(quiet)
    before = selected.servers()
    unsure = subprocess.run(
        [str(PROGRAMS / "fleet"), "destroy"], input="n\n", capture_output=True, text=True, check=False
    )
    assert unsure.returncode == 1
    assert "Delete everything" in unsure.stdout
    assert selected.servers() == before


@pytest.mark.parametrize(
    ("agent", "loss"), [(None, "delete server agents-2"), ({"generation": 2}, "replace server agents-2")]
)
def test_up_names_what_would_be_lost_and_leaves_it_where_nobody_can_be_asked(
    selected: Fleet, agent: dict[str, Any] | None, loss: str
) -> None:
    assert selected_stack().losses() == []
    selected_stack().up(quiet)
    assert selected_stack().losses() == []
    nodes = {name: node for name, node in NODES.items() if name != "agents-2"}
    added = {"role": "runner", **(agent or {})}
    selected.stack.configure({"fleet:nodes": {**nodes, "agents-2" if agent else "agents-3": added}})
    before = selected.servers()
    refused = subprocess.run(
        [str(PROGRAMS / "fleet"), "up"], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    assert refused.returncode == 1
    assert f"nothing was changed: stack lab would {loss}, with the data on them" in refused.stderr
    assert selected.servers() == before


def test_a_grown_volume_and_a_further_node_are_no_loss(selected: Fleet) -> None:
    selected_stack().up(quiet)
    broker = {**NODES["broker-1"], "volume": {"size": 20, "keep": False}}
    nodes = {**NODES, "broker-1": broker, "agents-3": {"role": "runner"}}
    selected.stack.configure({"fleet:nodes": nodes})
    assert selected_stack().losses() == []


def test_a_failure_is_told_in_the_engines_own_words(selected: Fleet) -> None:
    selected.apis.fault(match="POST /servers", code="resource_unavailable")
    with pytest.raises(StackError, match=r"(?s)pulumi up of stack lab failed:.*resource_unavailable"):
        selected_stack().up(quiet)
    selected_stack().up(quiet)
    assert sorted(selected.servers()) == ["agents-1", "agents-2", "broker-1"]


def test_without_a_stack_there_is_none_and_a_missing_passphrase_is_named(
    selected: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    selected_stack().up(quiet)
    monkeypatch.delenv("PULUMI_CONFIG_PASSPHRASE_FILE")
    ansible = [str(PROGRAMS / "ansible-inventory"), "-i", "inventory", "--list"]
    done = subprocess.run(ansible, cwd=PROJECT, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "set PULUMI_CONFIG_PASSPHRASE" in done.stderr
    monkeypatch.delenv("PULUMI_STACK")
    assert stacks.selected() is None
    done = subprocess.run(ansible, cwd=PROJECT, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "tailnet" not in json.loads(done.stdout)
