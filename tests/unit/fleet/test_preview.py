"""What counts as a loss among the steps of a preview."""

from __future__ import annotations

from typing import Any

import pytest

from fleet import preview

SERVER = "hcloud:index/server:Server"
VOLUME = "hcloud:index/volume:Volume"


def step(operation: str, kind: str = SERVER, name: str = "agents-1", **state: Any) -> dict[str, Any]:
    old = {"type": kind, "urn": f"urn:pulumi:lab::fleet::{kind}::{name}-x", "outputs": {"name": name}, **state}
    return {"op": operation, "urn": old["urn"], "oldState": old}


@pytest.mark.parametrize(
    ("steps", "losses"),
    [
        ([step("delete")], ["delete server agents-1"]),
        ([step("delete", VOLUME, "data")], ["delete volume data"]),
        ([step("delete", VOLUME, "data", retainOnDelete=True)], []),
        ([step("replace", VOLUME, "data", retainOnDelete=True)], ["replace volume data"]),
        ([step("delete-replaced"), step("replace"), step("create-replacement")], ["replace server agents-1"]),
        ([step("same"), step("update"), step("refresh"), {"op": "create", "newState": {"type": SERVER}}], []),
        ([step("delete", "hcloud:index/firewall:Firewall"), step("replace", "tailscale:index/x:Key")], []),
    ],
)
def test_servers_and_volumes_that_end_are_losses(steps: list[dict[str, Any]], losses: list[str]) -> None:
    assert preview.losses(steps) == losses


@pytest.mark.parametrize(
    ("exported", "has_data"),
    [
        ({}, False),
        ({"deployment": {"resources": None}}, False),
        ({"deployment": {"resources": [{"type": "pulumi:pulumi:Stack"}]}}, False),
        ({"deployment": {"resources": [{"type": VOLUME}]}}, True),
    ],
)
def test_only_a_stack_with_servers_or_volumes_is_previewed(exported: dict[str, Any], has_data: bool) -> None:
    assert preview.has_data(exported) is has_data
