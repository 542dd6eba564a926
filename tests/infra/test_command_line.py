"""What `fleet up` and `fleet destroy` do with a stack, and its inventory: the real engine on the kit's program."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from fleet import stack as stacks
from fleet.errors import StackError
from lab import tools
from lab.process import PROJECT
from tests.support.engine import Apis, Stack

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.skipif(tools.missing() is not None, reason=str(tools.missing()))

_NODES: dict[str, Any] = yaml.safe_load((PROJECT / "infra/Pulumi.lab.yaml").read_text())["config"]
_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIHSPoGTcVuWLW8iLvIyPPs5YyE0xLLTOFRiOU8AJRA1O test"
_ARCHIVE = {"url": "http://192.0.2.1/tailscale.tgz", "sha256": "0" * 64}
_PROGRAMS = Path(sys.executable).parent


class Fleet:
    """A stack, and the command line in the environment of it."""

    def __init__(self, folder: Path, apis: Apis) -> None:
        self.apis = apis
        self.stack = Stack(folder, apis=apis)
        self.stack.configure({**_NODES, "fleet:sshKeys": [_KEY], "tailnet:archive": _ARCHIVE})
        self.settings = {
            **self.stack.engine.environment(),
            "XDG_STATE_HOME": str(folder / "state"),
            "ANSIBLE_HOME": str(folder / "ansible"),
        }

    def start(self, program: str) -> subprocess.Popen[str]:
        """Start a Python program in a session of its own, as a terminal would have it."""
        return subprocess.Popen(
            [sys.executable, "-c", program],
            cwd=PROJECT,
            env={**os.environ, **self.settings},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def servers(self) -> dict[str, int]:
        return {str(server.name): int(server.id or 0) for server in self.apis.cloud.servers.get_all()}

    def wait_for_server(self) -> None:
        deadline = time.monotonic() + 60
        while not self.servers():
            assert time.monotonic() < deadline, "no server was begun"
            time.sleep(0.02)


@pytest.fixture
def fleet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Fleet]:
    with Apis(tmp_path / "apis") as apis:
        fleet = Fleet(tmp_path, apis)
        for name, value in fleet.settings.items():
            monkeypatch.setenv(name, value)
        yield fleet


def _selected() -> stacks.Stack:
    selected = stacks.selected()
    assert selected
    return selected


def _quiet(_: str) -> None: ...


_UP = "from fleet import stack; print(stack.selected().up(lambda line: print(line, flush=True)))"


def test_up_makes_the_nodes_and_again_nothing_and_they_are_the_inventory(fleet: Fleet) -> None:
    lines: list[str] = []
    assert "created" in _selected().up(lines.append)
    assert any("broker-1" in line for line in lines)
    again = _selected().up(_quiet)
    assert "created" not in again
    assert again.endswith("unchanged")

    ansible = [str(_PROGRAMS / "ansible-inventory"), "-i", "inventory", "--list"]
    done = subprocess.run(ansible, cwd=PROJECT, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    listed = json.loads(done.stdout, object_hook=lambda each: each.get("__ansible_unsafe", each))
    assert sorted(listed["tailnet"]["hosts"]) == ["agents-1", "agents-2", "broker-1"]
    broker = listed["_meta"]["hostvars"]["broker-1"]
    assert broker["ansible_host"] == "broker-1.tail.lab"
    assert int(broker["server_id"]) == fleet.servers()["broker-1"]
    assert broker["broker_volume"].startswith("/dev/disk/by-id/scsi-0HC_Volume_")


def test_destroy_deletes_all_of_it_and_keeps_the_configuration(fleet: Fleet) -> None:
    _selected().up(_quiet)
    fleet_destroy = [str(_PROGRAMS / "fleet"), "destroy", "--yes"]
    done = subprocess.run(fleet_destroy, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "deleted" in done.stdout
    assert fleet.servers() == {}
    assert fleet.apis.devices() == {}
    assert fleet.stack.engine.config.exists()


def test_destroy_touches_nothing_while_the_broker_is_protected(fleet: Fleet) -> None:
    nodes = {**_NODES["fleet:nodes"], "broker-1": {"role": "broker", "protect": True}}
    fleet.stack.configure({"fleet:nodes": nodes})
    _selected().up(_quiet)
    before, resources = fleet.servers(), fleet.stack.state()
    refused = subprocess.run(
        [str(_PROGRAMS / "fleet"), "destroy", "--yes"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert refused.returncode == 1
    assert "server broker-1" in refused.stderr
    assert "protect: false" in refused.stderr
    assert (fleet.servers(), fleet.stack.state()) == (before, resources)


def test_destroy_asks_first(fleet: Fleet) -> None:
    _selected().up(_quiet)
    before = fleet.servers()
    unsure = subprocess.run(
        [str(_PROGRAMS / "fleet"), "destroy"], input="n\n", capture_output=True, text=True, check=False
    )
    assert unsure.returncode == 1
    assert "Delete everything" in unsure.stdout
    assert fleet.servers() == before


@pytest.mark.parametrize(
    ("agent", "loss"), [(None, "delete server agents-2"), ({"generation": 2}, "replace server agents-2")]
)
def test_up_names_what_would_be_lost_and_leaves_it_where_nobody_can_be_asked(
    fleet: Fleet, agent: dict[str, Any] | None, loss: str
) -> None:
    assert _selected().losses() == []
    _selected().up(_quiet)
    assert _selected().losses() == []
    nodes = {name: node for name, node in _NODES["fleet:nodes"].items() if name != "agents-2"}
    added = {"role": "runner", **(agent or {})}
    fleet.stack.configure({"fleet:nodes": {**nodes, "agents-2" if agent else "agents-3": added}})
    before = fleet.servers()
    refused = subprocess.run(
        [str(_PROGRAMS / "fleet"), "up"], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    assert refused.returncode == 1
    assert f"nothing was changed: stack lab would {loss}, with the data on them" in refused.stderr
    assert fleet.servers() == before


def test_a_grown_volume_and_a_further_node_are_no_loss(fleet: Fleet) -> None:
    _selected().up(_quiet)
    broker = {**_NODES["fleet:nodes"]["broker-1"], "volume": {"size": 20, "keep": False}}
    nodes = {**_NODES["fleet:nodes"], "broker-1": broker, "agents-3": {"role": "runner"}}
    fleet.stack.configure({"fleet:nodes": nodes})
    assert _selected().losses() == []


@pytest.mark.xfail(
    strict=True, reason="the servers are found, but the engine then makes them anew, which a hook refuses"
)
def test_up_after_a_kill_takes_over_what_was_begun(fleet: Fleet) -> None:
    fleet.apis.fault(action="create_server", seconds=3)
    up = fleet.start(_UP)
    fleet.wait_for_server()
    os.killpg(up.pid, signal.SIGKILL)
    up.communicate()
    time.sleep(4)  # the cloud goes on with what it was told
    begun = fleet.servers()
    assert begun

    _selected().up(_quiet)
    assert fleet.servers().items() >= begun.items(), "a server was made twice"
    assert sorted(fleet.servers()) == ["agents-1", "agents-2", "broker-1"]
    assert _selected().up(_quiet).endswith("unchanged")
    assert "pending_operations" not in fleet.stack.state()


def test_an_interrupt_ends_the_engine_in_good_order_and_up_goes_on_from_there(fleet: Fleet) -> None:
    up = fleet.start(_UP)
    fleet.wait_for_server()
    os.killpg(up.pid, signal.SIGINT)
    said, _ = up.communicate(timeout=60)
    assert up.returncode == 1
    assert "interrupted; the same command again goes on from here" in said
    _selected().up(_quiet)
    assert sorted(fleet.servers()) == ["agents-1", "agents-2", "broker-1"]


def test_the_engine_outlives_us(fleet: Fleet) -> None:
    """Killed alone, we leave the engine to end its work: our death must not be the end of its output."""
    up = fleet.start(_UP)
    fleet.wait_for_server()
    os.kill(up.pid, signal.SIGKILL)
    up.communicate()
    with pytest.raises(StackError, match=r"is being changed by process \d+ on .*pulumi cancel --stack lab"):
        _selected().up(_quiet)
    deadline = time.monotonic() + 60
    while len(fleet.servers()) < 3 or '"pending_operations"' in fleet.stack.state() or _locks(fleet):
        assert time.monotonic() < deadline, "the engine did not end its work"
        time.sleep(0.2)
    assert _selected().up(_quiet).endswith("unchanged")


def _locks(fleet: Fleet) -> list[Path]:
    return list((fleet.stack.engine.folder / "state/.pulumi/locks").rglob("*.json"))


def test_a_failure_is_told_in_the_engines_own_words(fleet: Fleet) -> None:
    fleet.apis.fault(match="POST /servers", code="resource_unavailable")
    with pytest.raises(StackError, match=r"(?s)pulumi up of stack lab failed:.*resource_unavailable"):
        _selected().up(_quiet)
    _selected().up(_quiet)
    assert sorted(fleet.servers()) == ["agents-1", "agents-2", "broker-1"]


def test_without_a_stack_there_is_none_and_a_missing_passphrase_is_named(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PULUMI_CONFIG_PASSPHRASE_FILE")
    ansible = [str(_PROGRAMS / "ansible-inventory"), "-i", "inventory", "--list"]
    done = subprocess.run(ansible, cwd=PROJECT, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "set PULUMI_CONFIG_PASSPHRASE" in done.stderr
    monkeypatch.delenv("PULUMI_STACK")
    assert stacks.selected() is None
    done = subprocess.run(ansible, cwd=PROJECT, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "tailnet" not in json.loads(done.stdout)
