from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from infra import policy
from infra.config import read
from tests.support.infra import values

if TYPE_CHECKING:
    from infra.settings import Tailnet


def tailnet(**changed: Any) -> Tailnet:
    return read(values(**{f"tailnet__{key}": value for key, value in changed.items()}), {}).tailnet


def rendered(**changed: Any) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(policy.render(tailnet(**changed)))
    return loaded


SOURCES = ["tag:broker", "tag:runner", "tag:gateway", "tag:admin", "autogroup:admin", "someone@example.com"]
TARGETS = ["tag:broker", "tag:runner", "tag:gateway", "tag:admin", "someone@example.com"]
PORTS = [22, 80, 443, 8000, 18789]
# Everything that is let through; each cell of the matrix that is not here is refused.
OPEN = {("tag:runner", "tag:broker", 8000)} | {
    (admin, *target)
    for admin in ("tag:admin", "autogroup:admin")
    for target in (
        ("tag:broker", 22),
        ("tag:runner", 22),
        ("tag:gateway", 22),
        ("tag:broker", 8000),
        ("tag:gateway", 18789),
    )
}


def literally(current: dict[str, Any]) -> set[tuple[str, str, int]]:
    """Read a policy without the code under test: it names tags and ports only."""
    found = set()
    for rule in current["acls"]:
        assert (rule["action"], rule["proto"]) == ("accept", "tcp")
        for source in rule["src"]:
            for target in rule["dst"]:
                name, _, port = target.rpartition(":")
                found.add((source, name, int(port)))
    return found


def test_exactly_what_is_meant_is_open() -> None:
    assert literally(rendered()) == OPEN


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("port", PORTS)
def test_each_cell_of_the_matrix(source: str, target: str, port: int) -> None:
    assert policy.accepts(rendered(), source, f"{target}:{port}") is ((source, target, port) in OPEN)


def test_ports_and_admins_are_the_configurations() -> None:
    current = rendered(brokerPorts=[9000, 9001], gatewayPorts=[], admins=["you@example.com"])
    assert literally(current) == {
        ("tag:runner", "tag:broker", 9000),
        ("tag:runner", "tag:broker", 9001),
    } | {
        (admin, *target)
        for admin in ("tag:admin", "you@example.com")
        for target in (
            ("tag:broker", 22),
            ("tag:runner", 22),
            ("tag:gateway", 22),
            ("tag:broker", 9000),
            ("tag:broker", 9001),
        )
    }
    assert current["tagOwners"] == {tag: ["you@example.com"] for tag in OWNERS}


def test_it_holds_nothing_that_headscale_does_not_take() -> None:
    assert set(rendered()) == {"tagOwners", "acls"}


OWNERS: dict[str, list[str]] = {tag: [] for tag in ("tag:admin", "tag:broker", "tag:gateway", "tag:runner")}
ALL = {"action": "accept", "src": ["*"], "dst": ["*:*"]}


def test_our_own_policy_is_in_force() -> None:
    assert policy.missing(rendered(), tailnet()) == []
    assert policy.excess(rendered(), tailnet()) == []


def test_a_policy_with_more_rules_of_the_users_own_is_in_force() -> None:
    current = rendered()
    current["acls"].append({"action": "accept", "src": ["group:family"], "dst": ["printer:631"]})
    current["groups"] = {"group:family": ["you@example.com"]}
    assert policy.missing(current, tailnet()) == []
    assert policy.excess(current, tailnet()) == []


def test_what_is_missing_is_named() -> None:
    lacking = policy.missing({"tagOwners": {"tag:runner": []}, "acls": []}, tailnet(admins=[]))
    assert lacking[:3] == [f"tagOwners has no tag:{name}" for name in ("admin", "broker", "gateway")]
    assert "tag:runner does not reach tag:broker:8000" in lacking
    assert "tag:admin does not reach tag:gateway:18789" in lacking
    assert len(lacking) == 9


@pytest.mark.parametrize(
    ("section", "rules"),
    [
        ("acls", [ALL]),
        ("acls", [{"action": "accept", "src": ["autogroup:tagged"], "dst": ["autogroup:tagged:1-65535"]}]),
        ("grants", [{"src": ["*"], "dst": ["*"], "ip": ["*"]}]),
        ("grants", [{"src": ["*"], "dst": ["*"], "ip": ["tcp:*"]}]),
    ],
)
def test_too_much_is_named(section: str, rules: list[dict[str, Any]]) -> None:
    current = {"tagOwners": OWNERS, section: rules}
    assert policy.missing(current, tailnet(admins=[])) == []
    extra = policy.excess(current, tailnet(admins=[]))
    assert "tag:runner reaches tag:runner:22" in extra
    assert "tag:broker reaches tag:gateway:any other port" in extra
    assert "tag:runner reaches tag:broker:8000" not in extra


@pytest.mark.parametrize(
    "rule",
    [
        {"action": "accept", "proto": "udp", "src": ["*"], "dst": ["*:*"]},
        {"action": "drop", "src": ["*"], "dst": ["*:*"]},
        {"action": "accept", "src": ["tag:runner"], "dst": ["tag:broker:8001-8999"]},
        {"action": "accept", "src": ["tag:runners"], "dst": ["tag:broker:8000"]},
    ],
)
def test_another_protocol_port_or_source_does_not_count(rule: dict[str, Any]) -> None:
    assert not policy.accepts({"acls": [rule]}, "tag:runner", "tag:broker:8000")


SSH = {
    "action": "check",
    "src": ["autogroup:member"],
    "dst": ["autogroup:self"],
    "users": ["autogroup:nonroot", "root"],
}


@pytest.mark.parametrize(
    ("current", "expected"),
    [
        ({}, True),
        ({"acls": [ALL]}, True),
        ({"grants": [{"src": ["*"], "dst": ["*"], "ip": ["*"]}], "ssh": [SSH], "tagOwners": {}}, True),
        ({"acls": [{**ALL, "dst": ["*:22"]}]}, False),
        ({"acls": [ALL], "tagOwners": {"tag:mine": []}}, False),
        ({"acls": [ALL], "groups": {"group:a": ["b@c.d"]}}, False),
        ({"acls": [ALL], "nodeAttrs": [{"target": ["*"], "attr": ["funnel"]}]}, False),
        ({"acls": [ALL], "ssh": [{**SSH, "action": "accept"}]}, False),
    ],
)
def test_only_what_nobody_has_touched_is_a_default(current: dict[str, Any], expected: bool) -> None:
    assert policy.is_default(current) is expected
