"""Who may reach what on the tailnet: the policy's text, and how another policy compares with it.

The form is the `acls` and `tagOwners` of https://tailscale.com/kb/1337/policy-syntax. Headscale takes it as well, but
for tags that own tags. Everything that no rule accepts is refused.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, Any

from infra import text
from infra.settings import ADMIN_TAG, CLIENT_TAG, NODE_TAGS, ROLES, Role, Tailnet, tag

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

SSH = 22
TAGS = tuple(sorted({*NODE_TAGS, ADMIN_TAG, CLIENT_TAG}))
# Where a policy says who may do what, and under which keys.
_SECTIONS = {"acls": ("src", "dst"), "grants": ("src", "dst"), "ssh": ("src", "dst"), "nodeAttrs": ("target", "attr")}
# What no node is: machines of users, and the internet behind exit nodes.
_NEVER_NODES = {"autogroup:self", "autogroup:member", "autogroup:members", "autogroup:internet"}
# What the rules of a new tailnet say: everybody reaches everything, and SSH on one's own devices.
_EVERYTHING = ({"action": "accept", "src": ["*"], "dst": ["*:*"]}, {"src": ["*"], "dst": ["*"], "ip": ["*"]})
_OWN_DEVICES = [
    {"action": "check", "src": ["autogroup:member"], "dst": ["autogroup:self"], "users": ["autogroup:nonroot", "root"]}
]


@dataclass(frozen=True, slots=True)
class Rule:
    """TCP from each of the sources to each of the targets, these as tag:port."""

    sources: tuple[str, ...]
    targets: tuple[str, ...]


def rules(tailnet: Tailnet) -> tuple[Rule, ...]:
    """Return what is accepted: runners reach the broker's ports; admins SSH everywhere and the dashboards."""
    broker = _targets("broker", tailnet.broker_ports)
    gateway = _targets("gateway", tailnet.gateway_ports)
    ssh = tuple(f"{tag(role)}:{SSH}" for role in ROLES)
    ours = (Rule((tag("runner"),), broker), Rule((ADMIN_TAG, *tailnet.admins), ssh + broker + gateway))
    return tuple(rule for rule in ours if rule.targets)


def render(tailnet: Tailnet) -> str:
    """Return the policy's text."""
    given_by_client = {name: [*tailnet.admins, CLIENT_TAG] for name in NODE_TAGS}
    owners = {name: given_by_client.get(name, list(tailnet.admins)) for name in TAGS}
    return text.tailnet_policy(owners, rules(tailnet))


def _targets(role: Role, ports: Iterable[int]) -> tuple[str, ...]:
    return tuple(f"{tag(role)}:{port}" for port in ports)


def missing(current: Mapping[str, Any], tailnet: Tailnet) -> list[str]:
    """Return what a policy lacks of ours, one line each: tags without an entry in tagOwners, connections refused."""
    lacking = unowned(current.get("tagOwners") or {})
    for rule in rules(tailnet):
        for source in rule.sources:
            refused = [target for target in rule.targets if not accepts(current, source, target)]
            lacking += [f"{source} does not reach {target}" for target in refused]
    return lacking


def unowned(owners: Mapping[str, Any]) -> list[str]:
    """Return what a policy's tagOwners lack for keys to be made, one line each."""
    absent = [f"tagOwners has no {name}" for name in TAGS if name not in owners]
    return absent + [
        f"tagOwners has no {CLIENT_TAG} among the owners of {name}"
        for name in sorted(NODE_TAGS & owners.keys())
        if CLIENT_TAG not in owners[name]
    ]


def others(current: Mapping[str, Any], tailnet: Tailnet) -> list[str]:
    """Return the rules of a policy that may concern our nodes and are not ours, one line each.

    What they let through is not worked out: groups, addresses and ports may mean anything.
    """
    ours = {(source, target) for rule in rules(tailnet) for source in rule.sources for target in rule.targets}
    found = []
    for section, (first, second) in _SECTIONS.items():
        for number, rule in enumerate(current.get(section) or []):
            sources, targets = rule.get(first) or [], rule.get(second) or []
            is_ours = rule.get("proto") == "tcp" and set(product(sources, targets)) <= ours
            named = sources if section == "nodeAttrs" else [*sources, *targets]
            if not is_ours and any(_may_be_node(name) for name in named):
                found.append(f"{section}[{number}]: {', '.join(sources)} to {', '.join(targets)}")
    return found


def _may_be_node(name: str) -> bool:
    """Say whether what a rule names, with or without ports, may hold a node of ours: all but users and other tags."""
    kind, _, rest = name.partition(":")
    named = f"{kind}:{rest.partition(':')[0]}" if kind in ("tag", "autogroup") else name
    if kind == "tag":
        return named in TAGS
    return "@" not in name and named not in _NEVER_NODES


def is_default(current: Mapping[str, Any]) -> bool:
    """Say whether a policy is as Tailscale makes it for a new tailnet, or empty: nobody added but our tags."""
    access = [*(current.get("acls") or []), *(current.get("grants") or [])]
    more = {key for key, value in current.items() if value} - {"acls", "grants", "ssh", "tagOwners"}
    return (
        not more
        and not set(current.get("tagOwners") or ()) - set(TAGS)
        and all(rule in _EVERYTHING for rule in access)
        and current.get("ssh", _OWN_DEVICES) == _OWN_DEVICES
    )


def equal(current: Mapping[str, Any], wanted: str) -> bool:
    """Say whether a policy says the same as a text, apart from its form."""
    ours: dict[str, Any] = json.loads(wanted)
    return {key: value for key, value in current.items() if value} == ours


def accepts(current: Mapping[str, Any], source: str, target: str) -> bool:
    """Say whether a policy lets TCP through from a tag or user to a tag and port.

    Only what is named literally or by * counts: groups, hosts and addresses are not looked into.
    """
    name, _, port = target.rpartition(":")
    return any(
        source_matches(entry, source) and _target_matches(entry_target, entry_ports, name, int(port))
        for entry, entry_target, entry_ports in _accepted(current)
    )


def _accepted(current: Mapping[str, Any]) -> Iterator[tuple[list[str], str, list[str]]]:
    """Yield sources, target and ports of everything that a policy accepts for TCP."""
    for rule in current.get("acls") or []:
        if rule.get("action") == "accept" and rule.get("proto", "tcp") in ("tcp", "6"):
            for target in rule.get("dst", []):
                name, _, ports = target.rpartition(":")
                yield rule.get("src", []), name, ports.split(",")
    for grant in current.get("grants") or []:
        for target in grant.get("dst", []):
            ports = [ip.removeprefix("tcp:") for ip in grant.get("ip", []) if ":" not in ip or ip.startswith("tcp:")]
            yield grant.get("src", []), target, ports


def source_matches(entry: list[str], source: str) -> bool:
    """Say whether a rule's sources hold this one."""
    return bool({"*", source, *_groups(source)} & set(entry))


def _target_matches(entry: str, ports: list[str], name: str, port: int) -> bool:
    return entry in {"*", name, *_groups(name)} and any(_covers(spec, port) for spec in ports)


def _groups(name: str) -> set[str]:
    return {"autogroup:tagged"} if name.startswith("tag:") else {"autogroup:member"} if "@" in name else set()


def _covers(spec: str, port: int) -> bool:
    if spec == "*":
        return True
    first, _, last = spec.partition("-")
    return first.isdecimal() and int(first) <= port <= int(last or first)
