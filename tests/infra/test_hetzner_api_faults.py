"""Each kind of fault on demand, and that it is over when it was told to be."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import pytest
from hcloud import APIException
from hcloud.actions import ActionFailedException

from tests.support.hetzner import create_server, start_server, unique

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.hetzner import Hetzner


@pytest.fixture(autouse=True)
def _no_faults_left(hetzner: Hetzner) -> Iterator[None]:
    yield
    left = hetzner.call("GET", "/_lab/faults").json()["faults"]
    hetzner.call("DELETE", "/_lab/faults")
    assert left == []


def test_a_call_is_refused_as_often_as_told(hetzner: Hetzner, cloud: Any) -> None:
    hetzner.fault(match="POST /servers", code="resource_unavailable", times=2)
    name = unique("server")
    for _ in range(2):
        with pytest.raises(APIException) as caught:
            start_server(cloud, name=name)
        assert caught.value.code == "resource_unavailable"
        assert cloud.servers.get_by_name(name) is None
    assert create_server(cloud, name=name).status == "running"


@pytest.mark.parametrize(
    ("code", "status"),
    [("resource_unavailable", 412), ("rate_limit_exceeded", 429), ("conflict", 409), ("timeout", 504)],
)
def test_a_fault_has_its_codes_status(hetzner: Hetzner, code: str, status: int) -> None:
    hetzner.fault(match="GET /servers", code=code)
    answer = hetzner.call("GET", "/v1/servers")
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)


def test_a_fault_has_the_status_and_message_given(hetzner: Hetzner) -> None:
    hetzner.fault(match="GET /servers", code="unavailable", status=502, message="back in a minute")
    answer = hetzner.call("GET", "/v1/servers")
    assert (answer.status_code, answer.json()["error"]["message"]) == (502, "back in a minute")


def test_the_client_tries_again_where_the_api_says_so(hetzner: Hetzner) -> None:
    hetzner.fault(match="POST /ssh_keys", code="rate_limit_exceeded", times=3)
    key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAAA"
    assert hetzner.client(retries=3).ssh_keys.create(unique("key"), key).id


def test_a_fault_matches_a_template_or_one_path(hetzner: Hetzner, cloud: Any) -> None:
    one, other = create_server(cloud), create_server(cloud)
    hetzner.fault(match=f"DELETE /servers/{one.id}", code="conflict")
    other.delete().wait_until_finished()
    with pytest.raises(APIException, match="conflict"):
        one.delete()
    hetzner.fault(match="DELETE /servers/{id}", code="conflict")
    with pytest.raises(APIException, match="conflict"):
        one.delete()


def test_an_action_fails_and_changes_nothing(hetzner: Hetzner, cloud: Any) -> None:
    server = create_server(cloud)
    hetzner.fault(action="stop_server", code="action_failed", message="no reaction")
    with pytest.raises(ActionFailedException, match="no reaction"):
        server.power_off().wait_until_finished()
    assert cloud.servers.get_by_id(server.id).status == "running"
    server.power_off().wait_until_finished()


def test_a_server_whose_creation_failed_can_only_be_deleted(hetzner: Hetzner, cloud: Any) -> None:
    hetzner.fault(action="create_server", code="action_failed")
    created = start_server(cloud)
    with pytest.raises(ActionFailedException):
        created.action.wait_until_finished()
    server = cloud.servers.get_by_id(created.server.id)
    for action in [*created.next_actions, server.power_on(), server.reboot()]:
        with pytest.raises(ActionFailedException):
            action.wait_until_finished()
    assert cloud.servers.get_by_id(server.id).status == "off"
    server.delete().wait_until_finished()
    assert cloud.servers.get_by_name(server.name) is None


def test_a_slow_action_makes_progress(hetzner: Hetzner, cloud: Any) -> None:
    server = create_server(cloud)
    hetzner.fault(action="reboot_server", seconds=3)
    action, began, seen = server.reboot(), time.monotonic(), []
    while (now := cloud.actions.get_by_id(action.id)).status == "running":
        seen.append(now.progress)
        time.sleep(0.05)
    assert time.monotonic() - began >= 3
    assert seen == sorted(seen)
    assert len(set(seen)) >= 3
    assert (now.status, now.progress) == ("success", 100)
    assert now.finished >= now.started


@pytest.mark.parametrize(
    ("fault", "wrong"),
    [
        ({}, "match"),
        ({"match": "GET /servers", "action": "create_server", "code": "x"}, "match"),
        ({"match": "GET /servers"}, "code"),
        ({"match": "GET /servers", "code": 5}, "code"),
    ],
)
def test_a_fault_that_means_nothing_is_refused(hetzner: Hetzner, fault: dict[str, Any], wrong: str) -> None:
    answer = hetzner.call("POST", "/_lab/faults", fault)
    assert answer.json()["error"]["details"]["fields"][0]["name"] == wrong


def test_faults_are_listed_and_dropped(hetzner: Hetzner) -> None:
    hetzner.fault(match="GET /servers", code="conflict", times=3)
    [fault] = hetzner.call("GET", "/_lab/faults").json()["faults"]
    assert (fault["match"], fault["times"]) == ("GET /servers", 3)
    assert hetzner.call("DELETE", "/_lab/faults").status_code == 204
    assert hetzner.call("GET", "/v1/servers").status_code == 200
