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
    assert current["tagOwners"] == {tag: ["you@example.com", *owners] for tag, owners in OWNERS.items()}


def test_it_holds_nothing_that_headscale_does_not_take() -> None:
    assert set(rendered()) == {"tagOwners", "acls"}


# A client of Tailscale's may only give the tags that its own one owns.
OWNERS: dict[str, list[str]] = {
    "tag:admin": [],
    "tag:openclaw": [],
    "tag:broker": ["tag:openclaw"],
    "tag:gateway": ["tag:openclaw"],
    "tag:runner": ["tag:openclaw"],
}
ALL = {"action": "accept", "src": ["*"], "dst": ["*:*"]}


def test_our_own_policy_is_in_force() -> None:
    assert policy.missing(rendered(), tailnet()) == []
    assert policy.others(rendered(), tailnet()) == []


def test_what_is_missing_is_named() -> None:
    lacking = policy.missing({"tagOwners": {"tag:runner": []}, "acls": []}, tailnet(admins=[]))
    assert lacking[:4] == [f"tagOwners has no tag:{name}" for name in ("admin", "broker", "gateway", "openclaw")]
    assert lacking[4] == "tagOwners has no tag:openclaw among the owners of tag:runner"
    assert "tag:runner does not reach tag:broker:8000" in lacking
    assert "tag:admin does not reach tag:gateway:18789" in lacking
    assert len(lacking) == 11


def rule(source: str, target: str, **more: Any) -> dict[str, Any]:
    return {"action": "accept", "src": [source], "dst": [target], **more}


@pytest.mark.parametrize(
    ("section", "given"),
    [
        ("acls", ALL),
        ("acls", rule("autogroup:tagged", "autogroup:tagged:1-65535")),
        ("acls", rule("tag:runner", "tag:broker:1-65535", proto="tcp")),
        ("acls", rule("tag:runner", "tag:broker:8000")),  # of every protocol
        ("acls", rule("tag:runner", "tag:broker:8000", proto="udp")),
        ("acls", rule("tag:runner", "tag:other:22")),
        ("acls", rule("tag:other", "tag:broker:22")),
        ("acls", rule("you@example.com", "tag:broker:22")),
        ("acls", rule("100.64.0.0/10", "you@example.com:22")),
        ("acls", rule("tag:other", "[fd7a:115c:a1e0::]/48:22")),
        ("acls", rule("group:family", "you@example.com:22")),
        ("acls", rule("you@example.com", "printer:631")),  # a host of the policy is an address
        ("grants", {"src": ["*"], "dst": ["*"], "ip": ["*"]}),
        ("grants", {"src": ["tag:runner"], "dst": ["tag:broker"], "app": {"example.com/cap": [{}]}}),
        ("ssh", {"action": "accept", "src": ["autogroup:member"], "dst": ["tag:runner"], "users": ["root"]}),
        ("nodeAttrs", {"target": ["tag:gateway"], "attr": ["funnel"]}),
    ],
)
def test_a_rule_that_may_concern_our_nodes_and_is_not_ours_is_named(section: str, given: dict[str, Any]) -> None:
    current = rendered()
    current.setdefault(section, []).append(given)
    assert policy.missing(current, tailnet()) == []
    (said,) = policy.others(current, tailnet())
    sources, targets = (given["target"], given["attr"]) if "target" in given else (given["src"], given["dst"])
    assert said == f"{section}[{len(current[section]) - 1}]: {sources[0]} to {targets[0]}"


@pytest.mark.parametrize(
    ("section", "given"),
    [
        ("acls", rule("tag:runner", "tag:broker:8000", proto="tcp")),
        ("acls", rule("tag:other", "tag:more:443")),
        ("acls", rule("autogroup:member", "autogroup:self:*")),
        ("acls", rule("autogroup:member", "autogroup:internet:*")),
        ("acls", rule("you@example.com", "me@example.com:22")),
        ("ssh", {"action": "check", "src": ["autogroup:member"], "dst": ["autogroup:self"], "users": ["root"]}),
        ("nodeAttrs", {"target": ["autogroup:member"], "attr": ["funnel"]}),
    ],
)
def test_a_rule_that_cannot_concern_our_nodes_is_not(section: str, given: dict[str, Any]) -> None:
    assert policy.others({**rendered(), section: [given]}, tailnet()) == []


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
        ({"acls": [ALL], "tagOwners": OWNERS}, True),
        ({"acls": [ALL], "groups": {"group:a": ["b@c.d"]}}, False),
        ({"acls": [ALL], "nodeAttrs": [{"target": ["*"], "attr": ["funnel"]}]}, False),
        ({"acls": [ALL], "ssh": [{**SSH, "action": "accept"}]}, False),
    ],
)
def test_only_what_nobody_has_touched_is_a_default(current: dict[str, Any], expected: bool) -> None:
    assert policy.is_default(current) is expected
