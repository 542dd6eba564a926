"""Which policy files are taken for one, and what is said of the others."""

from __future__ import annotations

import time
from typing import Any

import pytest

from lab.tailscale_api import policy
from lab.tailscale_api.errors import NotHereError, PolicyError


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{}", {}),
        ('{"a": [1, 2,],}', {"a": [1, 2]}),
        ('{// a comment, with "quotes"\n"a": /* another, */ "b"}', {"a": "b"}),
        ('{"a": "http://x/*y*/", "b": ",]"}', {"a": "http://x/*y*/", "b": ",]"}),
        ('{"a": "\\"// no comment"}', {"a": '"// no comment'}),
        ('{"a": [{"b": 1} , ] /* c */ , }', {"a": [{"b": 1}]}),
    ],
)
def test_hujson_is_read(text: str, said: dict[str, Any]) -> None:
    assert policy.parse(text) == said


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "not HuJSON"),
        ("[]", "must be a JSON object"),
        ('{"a": 1, "a": 2}', "there twice"),
        ('{"a": NaN}', "NaN"),
        ('{"a": 0.5}', "0.5"),
        ("{} /* open", "no end"),
        ('{"a": "open}', "not HuJSON"),
        ("{,}", "not HuJSON"),
        ("[" * 100_000, "not HuJSON"),
        ('{"a" 1}', "not HuJSON"),
    ],
)
def test_what_is_no_hujson_is_refused(text: str, message: str) -> None:
    with pytest.raises(PolicyError, match=message) as refused:
        policy.parse(text)
    assert refused.value.status == 400


@pytest.mark.parametrize("text", ["/*" * 500_000, '"' + '\\"' * 500_000, '"\\' * 300_000, "[,  " * 250_000])
def test_a_long_text_takes_no_long_time(text: str) -> None:
    started = time.monotonic()
    with pytest.raises(PolicyError):
        policy.parse(text)
    assert time.monotonic() - started < 5


_DEFINED: dict[str, Any] = {
    "tagOwners": {"tag:broker": [], "tag:runner": ["group:ops"]},
    "groups": {"group:ops": ["a@example.com"]},
    "hosts": {"printer": "192.0.2.1"},
}


@pytest.mark.parametrize("source", ["*", "tag:runner", "group:ops", "a@example.com", "printer", "autogroup:admin"])
@pytest.mark.parametrize("destination", ["*:*", "tag:broker:80", "printer:1-9,22", "192.0.2.0/24:22", "2001:db8::1:1"])
def test_a_rule_may_name_what_is_defined(source: str, destination: str) -> None:
    policy.check({**_DEFINED, "acls": [{"action": "accept", "src": [source], "dst": [destination], "proto": "tcp"}]})


def _rule(**changes: Any) -> dict[str, Any]:
    return {**_DEFINED, "acls": [{"action": "accept", "src": ["*"], "dst": ["*:*"], **changes}]}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"rules": []}, "unknown field 'rules'"),
        ({"acls": {}}, "acls must be a list"),
        ({"acls": ["x"]}, r"acls\[0\] must be an object"),
        ({"tagOwners": []}, "tagOwners must be an object"),
        ({"tagOwners": {"broker": []}}, "'broker' is not a valid name"),
        ({"tagOwners": {"tag:1": []}}, "'tag:1' is not a valid name"),
        ({"tagOwners": {"tag:a": "b"}}, "must be a list of strings"),
        ({"groups": {"ops": []}}, "'ops' is not a valid name"),
        ({"hosts": {"a": "b"}}, "'b' is not an IP address"),
        ({"hosts": []}, "hosts must be an object"),
        (_rule(action="deny"), "action must be 'accept'"),
        (_rule(ports=[]), "unknown field 'ports'"),
        (_rule(proto=6), "proto must be a string"),
        (_rule(src="*"), "src must be a list of strings"),
        (_rule(dst=None), "dst must be a list of strings"),
        (_rule(src=["tag:other"]), "'tag:other' is not defined"),
        (_rule(src=["group:other"]), "'group:other' is not defined"),
        (_rule(src=["other"]), "'other' is neither a user, a tag, a group, a host nor an address"),
        (_rule(dst=["tag:other:22"]), "'tag:other' is not defined"),
        (_rule(dst=["tag:broker"]), "must end in ports"),
        (_rule(dst=["*"]), "must end in ports"),
        (_rule(dst=["tag:broker:http"]), "must end in ports"),
    ],
)
def test_a_policy_that_tailscale_refuses_is_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(PolicyError, match=message):
        policy.check(given)


@pytest.mark.parametrize("section", ["grants", "ssh", "tests", "autoApprovers", "nodeAttrs"])
def test_what_the_lab_cannot_enforce_is_named(section: str) -> None:
    with pytest.raises(NotHereError, match=section) as refused:
        policy.check({section: [{}]})
    assert refused.value.status == 501
    policy.check({section: []})


def test_sections_are_read_in_any_case() -> None:
    given = {"TagOwners": {"tag:a": []}, "ACLs": [{"action": "accept", "src": ["tag:a"], "dst": ["tag:a:1"]}]}
    policy.check(given)
    assert set(policy.tag_owners(given)) == {"tag:a"}
