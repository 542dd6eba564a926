"""The table of the providers' decisions: it names every input of the SDKs, and each row holds in Diff and Check."""

from __future__ import annotations

import importlib
import inspect
import re
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from pulumi.runtime.proto import provider_pb2

from lab.providers.decisions import TABLE, Comparison, Decision, Row
from lab.providers.values import UNKNOWN
from tests.support.plugins import Resources, configure, started

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from _pytest.mark import ParameterSet

HCLOUD = {"token": "t", "endpoint": "http://127.0.0.1:9/v1"}  # nobody is there, and nobody is asked
TAILSCALE = {"apiKey": "k", "baseUrl": "http://127.0.0.1:9"}
KINDS = sorted(TABLE)
EACH = [(kind, row) for kind in KINDS for row in TABLE[kind]]


def rows(wanted: Callable[[Row], bool] = lambda _: True) -> list[ParameterSet]:
    return [pytest.param(k, row, id=f"{k.rpartition(':')[2]}.{row.property}") for k, row in EACH if wanted(row)]


REQUIRED_BY_TERRAFORM_ONLY = {"name"}  # the SDKs would make one up, and the kit leaves no name to them
DIFF = provider_pb2.DiffResponse


@pytest.fixture(scope="module")
def channels() -> Iterator[dict[str, grpc.Channel]]:
    with started("lab.providers", "hcloud") as (_, hcloud), started("lab.providers", "tailscale") as (_, tailscale):
        configure(hcloud, "hcloud", **HCLOUD)
        configure(tailscale, "tailscale", **TAILSCALE)
        yield {"hcloud": hcloud, "tailscale": tailscale}


def resources(channels: dict[str, grpc.Channel], kind: str) -> Resources:
    return Resources(channels[kind.partition(":")[0]], kind)


def arguments(kind: str) -> dict[str, inspect.Parameter]:
    package, path, name = kind.split(":")
    snake = re.sub("([A-Z])", r"_\1", path.split("/")[1]).lower()
    module = importlib.import_module(f"pulumi_{package}.{snake}")
    parameters = inspect.signature(getattr(module, f"{name}Args").__init__).parameters
    return {re.sub("_(.)", lambda m: m[1].upper(), key): p for key, p in parameters.items() if "self" not in key}


@pytest.mark.parametrize("kind", KINDS)
def test_a_kind_has_a_row_for_each_input_of_the_sdk_and_for_nothing_else(kind: str) -> None:
    assert {row.property for row in TABLE[kind]} == set(arguments(kind))
    assert len({row.property for row in TABLE[kind]}) == len(TABLE[kind])


# By the providers' own documentation and source; a change here changes what a `pulumi up` destroys.
REPLACING = {
    "Acl": set(),
    "DnsPreferences": set(),
    "Firewall": set(),
    "Network": {"ipRange"},
    "NetworkSubnet": {"networkId", "type", "networkZone", "ipRange"},
    "PlacementGroup": set(),
    "Server": {"image", "location", "sshKeys", "userData"},
    "SshKey": {"publicKey"},
    "TailnetKey": {"reusable", "ephemeral", "preauthorized", "tags", "expiry", "description"},
    "Volume": {"location"},
    "VolumeAttachment": {"volumeId", "serverId"},
}


def test_these_and_no_other_properties_replace() -> None:
    found = {kind: {row.property for row in rows if row.decision is Decision.REPLACE} for kind, rows in TABLE.items()}
    assert {kind.rpartition(":")[2]: replacing for kind, replacing in found.items()} == REPLACING


@pytest.mark.parametrize("kind", KINDS)
def test_what_the_sdk_requires_is_required(kind: str) -> None:
    required = {name for name, parameter in arguments(kind).items() if parameter.default is parameter.empty}
    assert {row.property for row in TABLE[kind] if row.required} - REQUIRED_BY_TERRAFORM_ONLY == required


def values(row: Row) -> tuple[Any, Any]:
    """Two different values that a property may have."""
    if row.property == "networks":
        return [{"networkId": 1}], [{"networkId": 1}, {"networkId": 2}]
    if isinstance(row.default, bool):
        return row.default, not row.default
    if row.comparison is Comparison.SET:
        return ["a", "b"], ["a", "c"]
    if row.comparison is Comparison.JSON:
        return '{"acls": []}', UNKNOWN  # a policy that is known is put before the API
    return "a", "b"


@pytest.mark.parametrize(("kind", "row"), rows())
def test_a_change_of_a_property_does_what_its_row_says(channels: dict[str, grpc.Channel], kind: str, row: Row) -> None:
    old, new = values(row)
    if row.decision is Decision.REFUSE:
        assert "stand-in" in resources(channels, kind).check({row.property: new})[row.property]
        return
    base = {"acl": UNKNOWN} if "acl:Acl" in kind else {}
    answer = resources(channels, kind).diff({**base, row.property: old}, {**base, row.property: new})
    assert answer.changes == DIFF.DIFF_SOME
    assert list(answer.diffs) == [row.property]
    assert list(answer.replaces) == ([row.property] if row.decision is Decision.REPLACE else [])
    replace = provider_pb2.PropertyDiff.UPDATE_REPLACE
    update = provider_pb2.PropertyDiff.UPDATE
    assert answer.detailedDiff[row.property].kind == (replace if row.decision is Decision.REPLACE else update)


@pytest.mark.parametrize(("kind", "row"), rows())
def test_a_value_that_stays_is_no_change(channels: dict[str, grpc.Channel], kind: str, row: Row) -> None:
    same = {"acl": UNKNOWN} if "acl:Acl" in kind else {}
    same = {row.property: values(row)[1], **same}
    assert resources(channels, kind).diff(same, same).changes == DIFF.DIFF_NONE


@pytest.mark.parametrize(("kind", "row"), rows(lambda row: row.default is not None))
def test_a_default_and_no_value_are_the_same(channels: dict[str, grpc.Channel], kind: str, row: Row) -> None:
    there = resources(channels, kind)
    assert there.diff({}, {row.property: row.default}).changes == DIFF.DIFF_NONE
    assert there.diff({row.property: row.default}, {}).changes == DIFF.DIFF_NONE


@pytest.mark.parametrize(("kind", "row"), rows(lambda row: row.computed))
def test_what_the_program_leaves_to_the_api_is_no_change(
    channels: dict[str, grpc.Channel], kind: str, row: Row
) -> None:
    assert resources(channels, kind).diff({row.property: values(row)[0]}, {}).changes == DIFF.DIFF_NONE


SAME = [
    ("hcloud:index/server:Server", {"firewallIds": [1, 2]}, {"firewallIds": [2, 1]}),
    ("hcloud:index/server:Server", {"userData": "#cloud-config"}, {"userData": "#cloud-config\n"}),
    ("hcloud:index/server:Server", {"labels": {}}, {}),
    ("hcloud:index/firewall:Firewall",
     {"rules": [{"port": "22", "sourceIps": ["::/0", "0.0.0.0/0"]}, {"port": "80", "description": ""}]},
     {"rules": [{"port": "80"}, {"port": "22", "sourceIps": ["0.0.0.0/0", "::/0"]}]}),
    ("tailscale:index/tailnetKey:TailnetKey", {"tags": ["tag:a", "tag:b"]}, {"tags": ["tag:b", "tag:a"]}),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "olds", "news"), SAME)
def test_values_that_mean_the_same_are_no_change(
    channels: dict[str, grpc.Channel], kind: str, olds: dict[str, Any], news: dict[str, Any]
) -> None:
    assert resources(channels, kind).diff(olds, news).changes == DIFF.DIFF_NONE


def test_a_change_that_the_program_ignores_is_none(channels: dict[str, grpc.Channel]) -> None:
    servers = resources(channels, "hcloud:index/server:Server")
    answer = servers.diff(
        {"image": "debian-12", "labels": {}}, {"image": "debian-13", "labels": {"a": "b"}}, ignore=("image",)
    )
    assert list(answer.diffs) == ["labels"]
    assert not answer.replaces


def test_a_replacement_that_keeps_the_name_deletes_first(channels: dict[str, grpc.Channel]) -> None:
    servers = resources(channels, "hcloud:index/server:Server")
    old = {"name": "agents-1", "image": "debian-12"}
    assert servers.diff(old, {"name": "agents-1", "image": "debian-13"}).deleteBeforeReplace
    assert not servers.diff(old, {"name": "agents-9", "image": "debian-13"}).deleteBeforeReplace
    assert not servers.diff(old, {"name": "agents-1", "image": "debian-12", "labels": {"a": "b"}}).deleteBeforeReplace


@pytest.mark.parametrize(
    ("news", "replaced"),
    [
        ({}, False),
        ({"recreateIfInvalid": "always"}, True),
        ({"recreateIfInvalid": "never", "reusable": True}, False),
        ({"reusable": True}, True),
    ],
)
def test_a_spent_key_is_made_anew_only_where_the_plugin_would(
    channels: dict[str, grpc.Channel], news: dict[str, Any], replaced: bool
) -> None:
    keys = resources(channels, "tailscale:index/tailnetKey:TailnetKey")
    assert list(keys.diff(news, news, state={"invalid": True}).replaces) == (["id"] if replaced else [])
    assert not keys.diff(news, news, state={"invalid": False}).replaces


def test_missing_and_unknown_properties_are_named(channels: dict[str, grpc.Channel]) -> None:
    failures = resources(channels, "hcloud:index/network:Network").check({"nmae": "x", "ipRange": UNKNOWN})
    assert failures == {"nmae": "there is no such property", "name": "missing"}


def test_a_kind_that_is_not_there_is_named(channels: dict[str, grpc.Channel]) -> None:
    with pytest.raises(grpc.RpcError, match="hcloud:index/zone:Zone: the lab's stand-in does not have it"):
        resources(channels, "hcloud:index/zone:Zone").check({})
