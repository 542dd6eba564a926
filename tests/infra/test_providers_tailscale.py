"""The tailscale stand-in against the stand-in of Tailscale's API."""

from __future__ import annotations

import http.server
import json
import threading
from typing import TYPE_CHECKING

import grpc
import pytest

from tests.support.engine import Apis
from tests.support.plugins import Resources, configure, started

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

OURS = json.dumps({"tagOwners": {"tag:openclaw": [], "tag:runner": ["tag:openclaw"]}, "acls": []})
THEIRS = '{"acls": [], // by hand\n}'
KEY = {"tags": ["tag:runner"], "preauthorized": True, "expiry": 3600, "recreateIfInvalid": "never"}


class Tailnet:
    """The provider's kinds over a tailnet of its own."""

    def __init__(self, channel: grpc.Channel, apis: Apis) -> None:
        self.apis = apis
        self.keys = Resources(channel, "tailscale:index/tailnetKey:TailnetKey")
        self.policy = Resources(channel, "tailscale:index/acl:Acl")
        self.dns = Resources(channel, "tailscale:index/dnsPreferences:DnsPreferences")

    def own_tags(self) -> None:
        self.apis.tailnet("POST", "tailnet/-/acl", content=OURS)


@pytest.fixture
def tailnet(tmp_path: Path) -> Iterator[Tailnet]:
    with Apis(tmp_path) as apis, started("lab.providers", "tailscale") as (_, channel):
        configure(channel, "tailscale", **of_tailscale(apis))
        yield Tailnet(channel, apis)


def of_tailscale(apis: Apis) -> dict[str, str]:
    return {key.partition(":")[2]: value for key, value in apis.settings.items() if key.startswith("tailscale:")}


def test_a_key_admits_one_machine_and_is_spent_then(tailnet: Tailnet) -> None:
    tailnet.own_tags()
    key, state = tailnet.keys.create(KEY)
    assert state["key"].startswith("tskey-auth-")
    assert (state["invalid"], state["tags"], state["expiry"]) == (False, ["tag:runner"], 3600)
    assert tailnet.keys.read(key, KEY, state) == (key, KEY, state)
    tailnet.apis.join(state["key"], "agents-1")
    assert set(tailnet.apis.devices()) == {"agents-1"}
    _, seen, spent = tailnet.keys.read(key, KEY, state)
    assert spent["invalid"] is True
    assert spent["key"] == state["key"], "the API tells a secret once, and the state must keep it"
    assert seen == KEY, "a spent key is no change"
    assert not tailnet.keys.diff(seen, KEY, state=spent).replaces
    tailnet.keys.delete(key, spent)
    tailnet.keys.delete(key, spent)


def test_a_key_that_somebody_deleted_is_invalid_and_not_gone(tailnet: Tailnet) -> None:
    tailnet.own_tags()
    key, state = tailnet.keys.create(KEY)
    tailnet.apis.tailnet("DELETE", f"tailnet/-/keys/{key}")
    found, _, now = tailnet.keys.read(key, KEY, state)
    assert (found, now["invalid"]) == (key, True)
    forgotten, _, now = tailnet.keys.read("kForgottenCNTRL", KEY, state)
    assert (forgotten, now) == ("kForgottenCNTRL", {**state, "invalid": True})


def test_a_key_for_a_tag_that_nobody_owns_is_refused_in_the_api_s_words(tailnet: Tailnet) -> None:
    with pytest.raises(grpc.RpcError, match=r"create key: .*tag:runner.* \(400\)"):
        tailnet.keys.create(KEY)


def test_a_policy_is_set_over_an_untouched_one(tailnet: Tailnet) -> None:
    inputs = {"acl": OURS}
    policy, state = tailnet.policy.create(inputs)
    assert tailnet.apis.tailnet("GET", "tailnet/-/acl").text == OURS
    news = {"acl": OURS.replace("runner", "broker")}
    state = tailnet.policy.update(policy, state, inputs, news)
    assert "tag:broker" in tailnet.apis.tailnet("GET", "tailnet/-/acl").text
    tailnet.policy.delete(policy, state)
    assert "tag:broker" in tailnet.apis.tailnet("GET", "tailnet/-/acl").text, "deleting leaves the policy"


def test_a_policy_that_somebody_made_is_not_overwritten(tailnet: Tailnet) -> None:
    tailnet.apis.tailnet("POST", "tailnet/-/acl", content=THEIRS)
    with pytest.raises(grpc.RpcError, match="acl: the tailnet has a policy of its own"):
        tailnet.policy.create({"acl": OURS})
    assert tailnet.apis.tailnet("GET", "tailnet/-/acl").text == THEIRS
    tailnet.policy.create({"acl": OURS, "overwriteExistingContent": True})
    assert tailnet.apis.tailnet("GET", "tailnet/-/acl").text == OURS


def test_a_policy_edited_by_hand_is_a_change_and_a_reformatted_one_is_none(tailnet: Tailnet) -> None:
    inputs = {"acl": OURS}
    policy, state = tailnet.policy.create(inputs)
    tailnet.apis.tailnet("POST", "tailnet/-/acl", content=json.dumps(json.loads(OURS), indent=4))
    assert tailnet.policy.read(policy, inputs, state)[1] == inputs
    tailnet.apis.tailnet("POST", "tailnet/-/acl", content=THEIRS)
    assert tailnet.policy.read(policy, inputs, state)[1] == {"acl": THEIRS}


@pytest.mark.parametrize("preview", [True, False])
def test_a_policy_that_the_api_refuses_is_refused_in_the_preview_already(tailnet: Tailnet, preview: bool) -> None:
    before = tailnet.apis.tailnet("GET", "tailnet/-/acl").text
    with pytest.raises(grpc.RpcError, match="acl: "):
        tailnet.policy.create({"acl": '{"tagOwners": {"runner": []}}'}, preview=preview)
    assert tailnet.apis.tailnet("GET", "tailnet/-/acl").text == before


def test_magic_dns_is_set_and_read_and_switched_off_with_its_resource(tailnet: Tailnet) -> None:
    dns, state = tailnet.dns.create({"magicDns": True})
    assert tailnet.dns.read(dns, {"magicDns": True}, state) == (dns, {"magicDns": True}, {"magicDns": True})
    tailnet.dns.delete(dns, state)
    assert tailnet.apis.tailnet("GET", "tailnet/-/dns/preferences").json() == {"magicDNS": False}


def test_wrong_credentials_are_named(tailnet: Tailnet) -> None:
    with started("lab.providers", "tailscale") as (_, channel):
        configure(channel, "tailscale", **{**of_tailscale(tailnet.apis), "oauthClientSecret": "wrong"})
        with pytest.raises(grpc.RpcError, match="tailscale:oauthClientId: API token invalid"):
            Resources(channel, "tailscale:index/dnsPreferences:DnsPreferences").create({"magicDns": True})


class Unsteady(http.server.BaseHTTPRequestHandler):
    """Refuses as many requests as `failures` says, and counts all."""

    failures = 0
    asked = 0

    def do_POST(self) -> None:
        kind = type(self)
        kind.asked += 1
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        body = json.dumps({"message": "busy", "magicDNS": True}).encode()
        self.send_response(503 if kind.asked <= kind.failures else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self) -> None:
        self.do_POST()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.mark.parametrize(("failures", "asked"), [(3, 5), (9, 4)])
def test_an_api_that_is_busy_is_asked_again_four_times_at_the_most(failures: int, asked: int) -> None:
    handler = type("Handler", (Unsteady,), {"failures": failures})
    with (
        http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server,
        started("lab.providers", "tailscale") as (_, channel),
    ):
        threading.Thread(target=server.serve_forever, daemon=True).start()
        configure(channel, "tailscale", apiKey="k", baseUrl=f"http://127.0.0.1:{server.server_port}")
        dns = Resources(channel, "tailscale:index/dnsPreferences:DnsPreferences")
        if failures == 3:
            dns.create({"magicDns": True})
        else:
            with pytest.raises(grpc.RpcError, match=r"DNS preferences: busy \(503\)"):
                dns.create({"magicDns": True})
        server.shutdown()
    assert handler.asked == asked  # type: ignore[attr-defined]
