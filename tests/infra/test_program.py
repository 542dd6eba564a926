"""The kit's program on the real engine: what it refuses, what it protects, and what comes back."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from fleet.protection import protected
from lab import tools
from lab.process import PROJECT
from tests.support.engine import Apis, Stack
from tests.support.infra import SSH_KEY

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.skipif(tools.missing() is not None, reason=str(tools.missing()))

_LAB: dict[str, Any] = yaml.safe_load((PROJECT / "infra/Pulumi.lab.yaml").read_text())["config"]
_ARCHIVE = {"url": "http://192.0.2.1/tailscale.tgz", "sha256": "0" * 64}


def broker(*, protect: bool, **volume: Any) -> dict[str, Any]:
    return {"broker-1": {"role": "broker", "protect": protect, "volume": {"size": 10, **volume}}}


@pytest.fixture
def stack(tmp_path: Path, apis: Apis) -> Stack:
    stack = Stack(tmp_path, apis=apis)
    stack.configure({**_LAB, "fleet:sshKeys": [SSH_KEY], "tailnet:archive": _ARCHIVE})
    return stack


def test_mistakes_are_told_at_once_and_nothing_is_made(stack: Stack, apis: Apis) -> None:
    stack.configure({"fleet:rescueCidr": "0.0.0.0/0", "fleet:locaton": "fsn1", "tailnet:domain": None})
    result = stack.up()
    assert result.status != 0
    for told in (
        "fleet:rescueCidr: 0.0.0.0/0 opens SSH",
        "fleet:locaton: no such key; did you mean",
        "tailnet:domain:",
    ):
        assert told in result.output
    assert "Traceback" not in result.output
    assert not apis.cloud.networks.get_all()


def test_no_key_is_made_before_the_users_policy_has_the_tags(stack: Stack, apis: Apis) -> None:
    before = apis.tailnet("GET", "tailnet/-/acl").text
    stack.configure({"tailnet:policy": "print", "fleet:nodes": broker(protect=False, keep=False)})
    shown = stack.preview().succeeded()
    assert "tagOwners has no tag:broker" in shown.output
    result = stack.up()
    assert result.status != 0
    assert "no node can join, for in the tailnet's policy tagOwners has no tag:admin" in result.output
    assert not apis.cloud.servers.get_all()
    assert apis.tailnet("GET", "tailnet/-/acl").text == before
    stack.destroy().succeeded()


def test_a_protected_broker_is_named_from_the_state_and_its_volume_comes_back(stack: Stack, apis: Apis) -> None:
    stack.configure({"fleet:nodes": broker(protect=True)})
    stack.up().succeeded()
    exported = stack.run("stack", "export").output
    state = json.loads(exported[exported.index("{") :])
    assert sorted(protected(state)) == ["server broker-1", "volume broker-1-data"]

    stack.configure({"fleet:nodes": broker(protect=False)})
    stack.up().succeeded()
    stack.destroy().succeeded()
    assert apis.devices() == {}
    (volume,) = apis.cloud.volumes.get_all()

    # The policy that the first stack left is the one that this one would write.
    stack.configure({"fleet:nodes": broker(protect=False, adopt=str(volume.id))})
    again = stack.up().succeeded()
    assert again.operations["import"] == ["broker-1-volume"]
    stack.up("--expect-no-changes").succeeded()
    assert [kept.id for kept in apis.cloud.volumes.get_all()] == [volume.id]
    assert "tskey-auth-" not in stack.state() + json.dumps(stack.outputs())
    assert "openclaw-join" not in stack.state()
