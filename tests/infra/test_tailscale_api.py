"""The stand-in of the Tailscale API over a tailnet in memory: what it answers, refuses, keeps and does not have."""

from __future__ import annotations

import json
import stat
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from infra import config
from infra.policy import render
from lab import tools
from lab.tailscale_api import credentials
from lab.tailscale_api.headscale import headscale_policy
from tests.support.infra import values
from tests.support.tailscale_api import Client, serve

if TYPE_CHECKING:
    from collections.abc import Iterator


POLICY = """{
  // Who may tag, and who reaches whom.
  "tagOwners": {"tag:broker": [], "tag:openclaw": [], "tag:runner": ["autogroup:admin", "tag:openclaw"]},
  "acls": [{"action": "accept", "src": ["tag:runner"], "dst": ["tag:broker:8000,8443"]},],
}
"""


@pytest.fixture
def api(tmp_path: Path) -> Iterator[Client]:
    with serve(tmp_path / "state.json", "--memory") as client:
        yield client


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    """For calls that change nothing."""
    with serve(tmp_path_factory.mktemp("shared") / "state.json", "--memory") as client:
        assert client.set_policy(POLICY).status_code == 200
        yield client


@pytest.fixture
def ready(api: Client) -> Client:
    """With a policy that defines the tags."""
    assert api.set_policy(POLICY).status_code == 200
    return api


def _oauth(api: Client) -> httpx.Client:
    form = {"client_id": api.known.client_id, "client_secret": api.known.client_secret}
    answer = httpx.post(f"{api.url}/api/v2/oauth/token", data={**form, "grant_type": "client_credentials"})
    assert answer.status_code == 200
    token = answer.json()
    assert token["token_type"] == "Bearer"
    assert token["expires_in"] == 3600
    return httpx.Client(base_url=f"{api.url}/api/v2/", headers={"Authorization": f"Bearer {token['access_token']}"})


# Who may call


def test_an_oauth_client_gets_a_token_by_form_or_by_header(shared: Client) -> None:
    with _oauth(shared) as client:
        assert client.get("tailnet/-/devices").json() == {"devices": []}
    by_header = httpx.post(
        f"{shared.url}/api/v2/oauth/token",
        data={"grant_type": "client_credentials"},
        auth=(shared.known.client_id, shared.known.client_secret),
    )
    assert by_header.json()["access_token"].startswith("tskey-api-")


@pytest.mark.parametrize("form", [{}, {"client_id": "known"}, {"client_id": "known", "client_secret": "wrong"}])
def test_another_client_gets_no_token(shared: Client, form: dict[str, str]) -> None:
    form = {name: shared.known.client_id if value == "known" else value for name, value in form.items()}
    answer = httpx.post(f"{shared.url}/api/v2/oauth/token", data=form)
    assert (answer.status_code, answer.json()) == (401, {"message": "API token invalid"})


@pytest.mark.parametrize(
    "header", ["", "Bearer wrong", "Basic wrong", "Basic !", "Bearer", "Basic d3Jvbmc6", "Digest x"]
)
@pytest.mark.parametrize("path", ["tailnet/-/devices", "tailnet/-/acl", "tailnet/-/keys", "device/1"])
def test_nobody_else_may_call(shared: Client, header: str, path: str) -> None:
    answer = httpx.get(f"{shared.url}/api/v2/{path}", headers={"Authorization": header})
    assert (answer.status_code, answer.json()) == (401, {"message": "API token invalid"})


def test_a_token_ends(api: Client, tmp_path: Path) -> None:
    with _oauth(api) as client:
        token = client.headers["Authorization"]
    state = tmp_path / "state.json"
    said = json.loads(state.read_text())
    said["tokens"] = dict.fromkeys(said["tokens"], 1.0)
    state.write_text(json.dumps(said))
    with serve(state, "--memory") as later:
        assert httpx.get(f"{later.url}/api/v2/tailnet/-/acl", headers={"Authorization": token}).status_code == 401


def test_an_api_key_may_be_a_bearer_too(shared: Client) -> None:
    headers = {"Authorization": f"Bearer {shared.known.api_key}"}
    assert httpx.get(f"{shared.url}/api/v2/tailnet/-/devices", headers=headers).status_code == 200


def test_only_its_own_tailnet_is_there(shared: Client) -> None:
    assert shared.get("tailnet/tail.lab/devices").status_code == 200
    assert shared.get("tailnet/example.com/devices").status_code == 404


# Keys


def test_a_key_shows_its_secret_once(ready: Client) -> None:
    key = ready.key("tag:runner", preauthorized=True, seconds=3600)
    assert key["key"].startswith("tskey-auth-")
    assert key["capabilities"] == {
        "devices": {"create": {"reusable": False, "ephemeral": False, "preauthorized": True, "tags": ["tag:runner"]}}
    }
    assert key["expirySeconds"] == 3600
    again = ready.get(f"tailnet/-/keys/{key['id']}").json()
    assert again == {name: value for name, value in key.items() if name != "key"}
    assert ready.get("tailnet/-/keys").json() == {"keys": [again]}


def test_a_one_off_key_admits_one_device_and_is_gone(ready: Client) -> None:
    key = ready.key("tag:runner")
    joined = ready.join(key["key"], "agents-1")
    assert joined.json()["tags"] == ["tag:runner"]
    refused = ready.join(key["key"], "agents-2")
    assert (refused.status_code, refused.json()) == (403, {"message": "invalid key: already used"})
    assert ready.get(f"tailnet/-/keys/{key['id']}").status_code == 404
    assert ready.delete(f"tailnet/-/keys/{key['id']}").status_code == 404
    assert ready.get("tailnet/-/keys").json() == {"keys": []}
    assert set(ready.devices()) == {"agents-1"}


def test_a_reusable_key_admits_many(ready: Client) -> None:
    key = ready.key("tag:runner", reusable=True)
    assert [ready.join(key["key"], name).status_code for name in ("a", "b")] == [200, 200]
    assert ready.get(f"tailnet/-/keys/{key['id']}").json()["invalid"] is False


def test_a_deleted_key_admits_nobody(ready: Client) -> None:
    key = ready.key("tag:runner")
    assert ready.delete(f"tailnet/-/keys/{key['id']}").status_code == 200
    assert ready.join(key["key"], "agents-1").json() == {"message": "invalid key: not found"}
    said = ready.get(f"tailnet/-/keys/{key['id']}").json()
    assert said["invalid"] is True
    assert said["revoked"]
    assert ready.delete(f"tailnet/-/keys/{key['id']}").status_code == 404


def test_a_key_expires(ready: Client, tmp_path: Path) -> None:
    key = ready.key("tag:runner")
    state = tmp_path / "state.json"
    said = json.loads(state.read_text())
    said["keys"][key["id"]]["expires"] = 1.0
    state.write_text(json.dumps(said))
    with serve(state, "--memory") as later:
        assert later.join(key["key"], "agents-1").json() == {"message": "invalid key: expired"}
        assert later.get(f"tailnet/-/keys/{key['id']}").json()["invalid"] is True


def test_an_unknown_key_admits_nobody(shared: Client) -> None:
    assert shared.join("tskey-auth-none", "agents-1").status_code == 403
    assert shared.get("tailnet/-/keys/none").json() == {"message": "key not found"}


def _wanted(**changes: Any) -> dict[str, Any]:
    create = {"tags": ["tag:runner"], **changes.pop("create", {})}
    return {"capabilities": {"devices": {"create": create}}, **changes}


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({}, "capabilities must be an object"),
        ({"capabilities": {"devices": []}}, "devices must be an object"),
        (_wanted(create={"tags": "tag:runner"}), "tags must be a list of strings"),
        (_wanted(create={"tags": [1]}), "tags must be a list of strings"),
        (_wanted(create={"tags": ["tag:other"]}), "requested tags ['tag:other'] are invalid or not permitted"),
        (_wanted(create={"reusable": "no"}), "capabilities.devices.create.reusable must be true or false"),
        (_wanted(create={"ephemeral": 1}), "capabilities.devices.create.ephemeral must be true or false"),
        (_wanted(expirySeconds=-1), "expirySeconds must be a number from 1 to 7776000"),
        (_wanted(expirySeconds=7776001), "expirySeconds must be"),
        (_wanted(expirySeconds="3600"), "expirySeconds must be"),
        (_wanted(expirySeconds=True), "expirySeconds must be"),
        (_wanted(description="a" * 51), "description: use up to 50"),
        (_wanted(description="a_b"), "description: use up to 50"),
        (_wanted(description=1), "description: use up to 50"),
    ],
)
def test_a_malformed_key_is_refused_by_its_field(shared: Client, body: dict[str, Any], said: str) -> None:
    answer = shared.post("tailnet/-/keys", json=body)
    assert answer.status_code == 400
    assert said in answer.json()["message"]
    assert shared.get("tailnet/-/keys").json() == {"keys": []}


def test_a_key_of_an_oauth_client_must_have_tags(ready: Client) -> None:
    with _oauth(ready) as client:
        refused = client.post("tailnet/-/keys", json=_wanted(create={"tags": []}))
        assert refused.json() == {"message": "tailnet-owned auth key must have tags set"}
        assert client.post("tailnet/-/keys", json=_wanted()).status_code == 200
    assert ready.post("tailnet/-/keys", json=_wanted(create={"tags": []})).status_code == 200


@pytest.mark.parametrize(
    ("tags", "refused"),
    [
        (["tag:runner"], []),
        (["tag:openclaw"], []),
        (["tag:broker"], ["tag:broker"]),
        (["tag:runner", "tag:broker"], ["tag:broker"]),
        (["tag:runner", "tag:openclaw"], ["tag:openclaw"]),
    ],
)
def test_an_oauth_client_gives_its_own_tags_or_those_that_they_own(
    ready: Client, tags: list[str], refused: list[str]
) -> None:
    with _oauth(ready) as client:
        answer = client.post("tailnet/-/keys", json=_wanted(create={"tags": tags}))
    assert answer.status_code == (400 if refused else 200)
    if refused:
        assert answer.json() == {"message": f"requested tags {refused} are invalid or not permitted"}
    assert ready.post("tailnet/-/keys", json=_wanted(create={"tags": tags})).status_code == 200


def test_headscale_is_given_a_policy_that_it_takes(tmp_path: Path) -> None:
    if lacking := tools.missing():
        pytest.skip(lacking)
    tailnet = config.read(values(tailnet__admins=["you@example.com"]), {}).tailnet
    given = tmp_path / "policy.json"
    given.write_text(headscale_policy(render(tailnet)))
    check = [str(tools.path("headscale")), "policy", "check", "--file", str(given)]
    done = subprocess.run(check, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    said, whole = json.loads(given.read_text()), json.loads(render(tailnet))
    assert said["acls"] == whole["acls"]
    assert said["tagOwners"] == {tag: ["you@example.com"] for tag in whole["tagOwners"]}


def test_a_tag_that_owns_tags_is_one_of_the_policys(api: Client) -> None:
    refused = api.set_policy('{"tagOwners": {"tag:runner": ["tag:openclaw"]}}')
    assert refused.status_code == 400
    assert "'tag:openclaw' is not defined" in refused.json()["message"]


# The policy file


def test_a_new_tailnet_has_the_default_policy_in_both_forms(api: Client) -> None:
    as_json = api.get("tailnet/-/acl", headers={"Accept": "application/json"})
    assert as_json.json() == {"acls": [{"action": "accept", "src": ["*"], "dst": ["*:*"]}]}
    raw = api.get("tailnet/-/acl", headers={"Accept": "application/hujson"})
    assert "// Allow all connections" in raw.text
    assert raw.headers["content-type"].startswith("application/hujson")
    assert raw.headers["etag"] == as_json.headers["etag"]


def test_a_policy_is_kept_as_it_was_given(api: Client) -> None:
    before = api.get("tailnet/-/acl").headers["etag"]
    given = api.set_policy(POLICY)
    raw = api.get("tailnet/-/acl", headers={"Accept": "application/hujson"})
    assert raw.text == POLICY
    assert given.headers["etag"] == raw.headers["etag"] != before


@pytest.mark.parametrize("quote", ['"', ""])
def test_a_policy_replaces_only_the_one_that_was_meant(api: Client, quote: str) -> None:
    etag = api.get("tailnet/-/acl").headers["etag"].strip('"')
    default = {"If-Match": f"{quote}ts-default{quote}"}
    assert api.set_policy(POLICY, **default).status_code == 200
    for stale in (default, {"If-Match": f"{quote}{etag}{quote}"}):
        refused = api.set_policy('{"acls": []}', **stale)
        assert (refused.status_code, refused.json()) == (412, {"message": "precondition failed, invalid old hash"})
    assert api.get("tailnet/-/acl", headers={"Accept": "application/hujson"}).text == POLICY
    now = api.get("tailnet/-/acl").headers["etag"]
    assert api.set_policy('{"acls": []}', **{"If-Match": now}).status_code == 200


def test_a_policy_that_is_none_changes_nothing(api: Client) -> None:
    for text in ("", "[]", '{"acls": [', '{"acls": [], "acls": []}', '{"acls": [{}]}'):
        assert api.set_policy(text).status_code == 400
        assert api.post("tailnet/-/acl/validate", content=text).json()["message"]
    assert api.set_policy('{"grants": [{}]}').status_code == 501
    assert api.get("tailnet/-/acl").json() == {"acls": [{"action": "accept", "src": ["*"], "dst": ["*:*"]}]}


def test_validating_a_policy_changes_nothing(api: Client) -> None:
    before = api.get("tailnet/-/acl").headers["etag"]
    answer = api.post("tailnet/-/acl/validate", content=POLICY)
    assert (answer.status_code, answer.json()) == (200, {})
    assert api.get("tailnet/-/acl").headers["etag"] == before


# Devices and DNS


def test_a_device_is_found_and_deleted_by_either_id(ready: Client) -> None:
    for id_, name in (("id", "a"), ("nodeId", "b")):
        device = ready.join(ready.key("tag:broker")["key"], name).json()
        assert ready.get(f"device/{device[id_]}").json() == device
        assert ready.devices() == {name: device}
        assert ready.delete(f"device/{device[id_]}").status_code == 200
        assert ready.get(f"device/{device[id_]}").status_code == 404
        assert ready.delete(f"device/{device[id_]}").json() == {"message": "no such device"}


def test_a_device_has_what_the_providers_client_reads(ready: Client) -> None:
    device = ready.join(ready.key("tag:broker")["key"], "broker-1").json()
    assert device["name"] == "broker-1.tail.lab"
    assert device["hostname"] == "broker-1"
    assert len(device["addresses"]) == 2
    fields = "authorized blocksIncomingConnections clientVersion created expires isExternal keyExpiryDisabled lastSeen "
    fields += "machineKey nodeId nodeKey os tailnetLockError tailnetLockKey tags updateAvailable user"
    assert not set(fields.split()) - device.keys()


def test_a_second_device_of_one_name_gets_another_until_the_first_is_deleted(ready: Client) -> None:
    first, second, third = (ready.join(ready.key("tag:runner")["key"], "agents-1").json() for _ in range(3))
    assert [device["name"].partition(".")[0] for device in (first, second, third)] == [
        "agents-1",
        "agents-1-1",
        "agents-1-2",
    ]
    ready.delete(f"device/{first['id']}")
    fourth = ready.join(ready.key("tag:runner")["key"], "agents-1").json()
    assert fourth["name"] == first["name"]
    assert fourth["addresses"] != first["addresses"]


@pytest.mark.parametrize(
    "body", [{}, {"key": 1, "hostname": "a"}, {"key": "x", "hostname": "A b"}, {"key": "x", "hostname": "-"}]
)
def test_a_malformed_join_is_refused(shared: Client, body: dict[str, Any]) -> None:
    assert shared.post(f"{shared.url}/_lab/join", json=body).status_code == 400


def test_magic_dns_is_on_until_it_is_switched_off(api: Client) -> None:
    assert api.get("tailnet/-/dns/preferences").json() == {"magicDNS": True}
    assert api.post("tailnet/-/dns/preferences", json={"magicDNS": "yes"}).status_code == 400
    assert api.post("tailnet/-/dns/preferences", json={"magicDNS": False}).json() == {"magicDNS": False}
    assert api.get("tailnet/-/dns/preferences").json() == {"magicDNS": False}


# All calls


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "tailnet/-/users"),
        ("POST", "device/1/tags"),
        ("PUT", "tailnet/-/acl"),
        ("GET", "tailnet/-/dns/nameservers"),
        ("GET", "tailnet/-/devices?hostname=x"),
        ("GET", "tailnet/-/acl?details=1"),
    ],
)
def test_a_call_that_is_not_there_is_named(shared: Client, method: str, path: str) -> None:
    answer = shared.request(method, path)
    assert answer.status_code == 501
    assert answer.json()["message"].startswith("the lab's Tailscale API does not have ")
    if "?" not in path:
        assert answer.json()["message"].endswith(f"{method} /api/v2/{path}")


@pytest.mark.parametrize("body", [b"\xff", b"[]", b"{", b"null", b"[" * 100_000, b""])
@pytest.mark.parametrize("path", ["tailnet/-/keys", "tailnet/-/dns/preferences"])
def test_a_malformed_body_is_refused(shared: Client, path: str, body: bytes) -> None:
    answer = shared.post(path, content=body)
    assert answer.status_code == 400
    assert "body" in answer.json()["message"]


@pytest.mark.parametrize("path", ["tailnet/-/keys", "tailnet/-/acl", "oauth/token"])
def test_a_body_is_bounded(shared: Client, path: str) -> None:
    answer = shared.post(path, content=b" " * ((1 << 20) + 1))
    assert answer.status_code == 413
    assert "longer than 1048576 bytes" in answer.json()["message"]


# The state file


def test_all_is_kept_over_a_restart(tmp_path: Path) -> None:
    state = tmp_path / "state.json"
    known = credentials(state)
    with serve(state, "--memory") as api:
        api.set_policy(POLICY)
        kept, used = api.key("tag:runner"), api.key("tag:runner")
        api.join(used["key"], "agents-1")
        before = [api.get(path).json() for path in ("tailnet/-/keys", "tailnet/-/devices", "tailnet/-/acl")]
        with _oauth(api) as client:
            token = client.headers["Authorization"]
    with serve(state, "--memory") as api:
        assert api.known == known
        paths = ("tailnet/-/keys", "tailnet/-/devices", "tailnet/-/acl")
        assert [api.get(path).json() for path in paths] == before
        assert httpx.get(f"{api.url}/api/v2/device/1", headers={"Authorization": token}).status_code == 404
        assert api.join(used["key"], "agents-2").status_code == 403
        assert api.join(kept["key"], "agents-2").status_code == 200


def test_nobody_else_may_read_the_state(api: Client, tmp_path: Path) -> None:
    del api
    assert stat.S_IMODE((tmp_path / "state.json").stat().st_mode) == 0o600


def test_it_listens_on_loopback_only(shared: Client) -> None:
    port = httpx.URL(shared.url).port
    listening = [
        line.split()[1] for line in Path("/proc/net/tcp").read_text().splitlines()[1:] if line.split()[3] == "0A"
    ]
    assert [each for each in listening if int(each.rpartition(":")[2], 16) == port] == [f"0100007F:{port:04X}"]


def test_a_device_is_renamed_and_no_two_have_one_name(ready: Client) -> None:
    def join(name: str) -> str:
        key = ready.key("tag:runner")["key"]
        return str(ready.join(key, name).json()["id"])

    first, second = join("agents-1"), join("agents-2")
    assert ready.post(f"device/{first}/name", json={"name": "builder-1"}).status_code == 200
    assert ready.get(f"device/{first}").json()["name"] == "builder-1.tail.lab"
    assert ready.post(f"device/{second}/name", json={"name": "builder-1"}).status_code == 400
    assert ready.post(f"device/{second}/name", json={"name": "Builder 2"}).status_code == 400


def test_the_device_of_a_machine_that_is_gone_stays_and_is_offline(ready: Client) -> None:
    key = ready.key("tag:runner")["key"]
    device = ready.join(key, "agents-1").json()
    assert device["connectedToControl"] is True
    ready.post(f"{ready.url}/_lab/leave", json={"hostname": "agents-1"}).raise_for_status()
    assert ready.get(f"device/{device['id']}").json()["connectedToControl"] is False
