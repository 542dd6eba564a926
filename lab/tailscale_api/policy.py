"""Policy files: from HuJSON, which is JSON with comments and trailing commas, and what makes one valid.

The sections are those of https://tailscale.com/kb/1337/policy-syntax. Of them the lab enforces what headscale does.
"""

from __future__ import annotations

import ipaddress
import json
import re
from typing import Any, NoReturn

from lab.tailscale_api.errors import NotHereError, PolicyError

# By their names in small letters: Tailscale reads them in any case.
_ENFORCED = {"acls", "groups", "hosts", "tagowners"}
_KNOWN = _ENFORCED | {
    *("autoapprovers", "defaultsrcposture", "derpmap", "disableipv4", "grants", "ipsets", "nodeattrs"),
    *("onecgnatroute", "postures", "randomizeclientport", "ssh", "sshtests", "tests"),
}
_RULE = {"action", "dst", "proto", "src"}
_TAG = re.compile(r"tag:[A-Za-z][A-Za-z0-9-]*")
_PORTS = re.compile(r"\*|\d{1,5}(-\d{1,5})?(,\d{1,5}(-\d{1,5})?)*")
# What is not ended goes to the text's end, so that no text is gone through more than once.
_STRING = r'"(?:[^"\\]|\\(?:.|\Z))*(?:"|\Z)'
_COMMENT = re.compile(rf"({_STRING})|//[^\n]*|/\*.*?(?:\*/|(?P<open>\Z))", re.DOTALL)
# One that follows nothing is no trailing comma, and stays for the JSON parser to refuse.
_TRAILING_COMMA = re.compile(rf"({_STRING}|[\[{{]\s*,)|,(?=\s*[}}\]])", re.DOTALL)


def parse(text: str) -> dict[str, Any]:
    """Return what a policy file says.

    Raises:
        PolicyError: it is not HuJSON, or not an object.
    """
    try:
        policy = json.loads(
            standardize(text), object_pairs_hook=_once_each, parse_constant=_no_number, parse_float=_no_number
        )
    except (ValueError, RecursionError) as error:
        raise PolicyError(f"policy is not HuJSON: {error}") from None
    if not isinstance(policy, dict):
        raise PolicyError("policy must be a JSON object")
    return policy


def standardize(text: str) -> str:
    """Return HuJSON as JSON; ValueError where a comment has no end."""
    without_comments = _COMMENT.sub(_without_comment, text)
    return _TRAILING_COMMA.sub(lambda found: found[1] or "", without_comments)


def _without_comment(found: re.Match[str]) -> str:
    if found["open"] is not None:
        raise ValueError("a comment has no end")
    return found[1] or " "


def check(policy: dict[str, Any]) -> None:
    """Refuse what Tailscale refuses.

    Raises:
        PolicyError: a section or an entry is none, or names a tag, group or host that the policy does not define.
        NotHereError: it has a section that the lab cannot enforce.
    """
    sections = {name.lower(): value for name, value in policy.items()}
    for name, value in policy.items():
        if name.lower() not in _KNOWN:
            raise PolicyError(f"unknown field {name!r}")
        if name.lower() not in _ENFORCED and value:
            raise NotHereError(f"the policy section {name!r}")
    _check_lists("tagOwners", sections.get("tagowners", {}), _TAG)
    for tag, owners in sections.get("tagowners", {}).items():
        for owner in owners:
            if owner.startswith("tag:"):
                _check_name(f"tagOwners[{tag!r}]", owner, sections)
    _check_lists("groups", sections.get("groups", {}), re.compile(r"group:\S+"))
    _check_hosts(sections.get("hosts", {}))
    rules = sections.get("acls", [])
    if not isinstance(rules, list):
        raise PolicyError("acls must be a list")
    for number, rule in enumerate(rules):
        _check_rule(f"acls[{number}]", rule, sections)


def tag_owners(policy: dict[str, Any]) -> dict[str, list[str]]:
    """Return the tags that a checked policy defines, with their owners."""
    return {
        tag: owners
        for name, section in policy.items()
        if name.lower() == "tagowners"
        for tag, owners in section.items()
    }


def _check_lists(name: str, value: object, key: re.Pattern[str]) -> None:
    if not isinstance(value, dict):
        raise PolicyError(f"{name} must be an object")
    for each, members in value.items():
        if not key.fullmatch(each):
            raise PolicyError(f"{name}: {each!r} is not a valid name")
        _strings(f"{name}[{each!r}]", members)


def _check_hosts(value: object) -> None:
    if not isinstance(value, dict):
        raise PolicyError("hosts must be an object")
    for name, address in value.items():
        if not isinstance(address, str) or not _is_address(address):
            raise PolicyError(f"hosts[{name!r}]: {address!r} is not an IP address or a network")


def _check_rule(where: str, rule: object, sections: dict[str, Any]) -> None:
    if not isinstance(rule, dict):
        raise PolicyError(f"{where} must be an object")
    if unknown := sorted(rule.keys() - _RULE):
        raise PolicyError(f"{where}: unknown field {unknown[0]!r}")
    if rule.get("action") != "accept":
        raise PolicyError(f"{where}: action must be 'accept'")
    if not isinstance(rule.get("proto", ""), str):
        raise PolicyError(f"{where}: proto must be a string")
    for source in _strings(f"{where}: src", rule.get("src")):
        _check_name(f"{where}: src", source, sections)
    for destination in _strings(f"{where}: dst", rule.get("dst")):
        target, colon, ports = destination.rpartition(":")
        if not colon or not _PORTS.fullmatch(ports):
            raise PolicyError(f"{where}: dst {destination!r} must end in ports, as in 'tag:broker:8000'")
        _check_name(f"{where}: dst", target, sections)


def _check_name(where: str, name: str, sections: dict[str, Any]) -> None:
    defined = {"tag": "tagowners", "group": "groups"}.get(name.partition(":")[0])
    if defined:
        if name not in sections.get(defined, {}):
            raise PolicyError(f"{where}: {name!r} is not defined")
        return
    is_free = name == "*" or name.startswith("autogroup:") or "@" in name or _is_address(name)
    if not is_free and name not in sections.get("hosts", {}):
        raise PolicyError(f"{where}: {name!r} is neither a user, a tag, a group, a host nor an address")


def _strings(where: str, value: object) -> list[str]:
    if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
        raise PolicyError(f"{where} must be a list of strings")
    return value


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_network(text, strict=False)
    except ValueError:
        return False
    return True


def _once_each(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    unique = dict(pairs)
    if len(unique) < len(pairs):
        raise ValueError(f"one of {', '.join(unique)} is there twice")
    return unique


def _no_number(text: str) -> NoReturn:
    raise ValueError(f"{text} is not a number that a policy has")
