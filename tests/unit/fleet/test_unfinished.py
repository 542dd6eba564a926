"""What is read from a state after an interruption, and what of it is found at Hetzner."""

from __future__ import annotations

from typing import Any

import pytest

from fleet import unfinished
from fleet.errors import StackError
from tests.support.infra import Request, serving

LABELS = {"managed-by": "openclaw-fleet", "stack": "dev"}


def resource(type_: str, name: str, **more: Any) -> dict[str, Any]:
    return {"urn": f"urn:pulumi:dev::fleet::fleet:index:Node${type_}::{name}", "type": type_, **more}


def key(name: str) -> dict[str, Any]:
    return resource("tailscale:index/tailnetKey:TailnetKey", f"{name}-key")


def server(name: str, **more: Any) -> dict[str, Any]:
    return resource("hcloud:index/server:Server", f"{name}-server", **more)


def state(*resources: dict[str, Any], creating: tuple[dict[str, Any], ...] = ()) -> dict[str, Any]:
    pending = [{"type": "creating", "resource": each} for each in creating]
    return {"deployment": {"resources": list(resources), "pending_operations": pending}}


@pytest.mark.parametrize(
    ("resources", "expected"),
    [
        ((), []),
        ((key("a"), server("a")), []),
        ((key("a"),), ["a"]),
        ((key("a"), server("a", initErrors=["no disk"], created="1", modified="1")), ["a"]),
        ((key("a"), server("a", initErrors=["no such type"], created="1", modified="2")), []),
        ((key("a"), server("a", pendingReplacement=True)), ["a"]),
        ((key("a"), server("b"), key("b")), ["a"]),
    ],
)
def test_a_node_without_a_whole_server_gets_another_key(resources: tuple[dict[str, Any], ...], expected: Any) -> None:
    assert unfinished.keys(state(*resources)) == [key(name)["urn"] for name in expected]


def test_a_server_that_is_not_there_is_not_broken() -> None:
    broken = server("b", initErrors=["no disk"], created="1", modified="1")
    assert unfinished.keys_of_broken(state(key("a"), key("b"), broken)) == [key("b")["urn"]]


def test_an_empty_stack_has_nothing_unfinished() -> None:
    states: list[dict[str, Any]] = [{}, {"deployment": None}, {"deployment": {"manifest": {}}}]
    for exported in states:
        assert unfinished.begun(exported) == []
        assert unfinished.keys(exported) == []
        assert not unfinished.was_interrupted(exported)


def test_only_creations_are_to_be_taken_over() -> None:
    exported = state(creating=(server("a"),))
    exported["deployment"]["pending_operations"].append({"type": "updating", "resource": server("b")})
    assert [each.urn for each in unfinished.begun(exported)] == [server("a")["urn"]]


def test_what_was_taken_over_already_is_not_taken_over_again() -> None:
    exported = state(server("a"), creating=(server("a"),))
    assert unfinished.begun(exported) == []
    assert unfinished.was_interrupted(exported)


VOLUME = resource("hcloud:index/volume:Volume", "a-volume", inputs={"name": "a-data", "labels": LABELS})
SUBNET = resource("hcloud:index/networkSubnet:NetworkSubnet", "s", inputs={"networkId": 4.0, "ipRange": "10.20.1.0/24"})
ATTACHMENT = resource(
    "hcloud:index/volumeAttachment:VolumeAttachment", "a-attachment", inputs={"volumeId": 7.0, "serverId": 3.0}
)


def found(described: dict[str, Any], answer: Any) -> list[str]:
    def answered(request: Request) -> tuple[int, Any]:
        assert request.headers["Authorization"] == "Bearer secret"
        return 200, answer

    with serving(answered) as hetzner:
        return [number for _, number in unfinished.found([unfinished.Begun(described)], "secret", hetzner.url)]


def test_what_has_the_name_and_the_labels_is_found() -> None:
    assert found(VOLUME, {"volumes": [{"id": 7, "name": "a-data", "labels": LABELS}]}) == ["7"]
    assert found(VOLUME, {"volumes": [{"id": 7, "name": "a-data", "labels": {**LABELS, "stack": "other"}}]}) == []
    assert found(VOLUME, {"volumes": [{"id": 7, "name": "b-data", "labels": LABELS}]}) == []


def test_what_has_no_name_is_found_where_it_belongs() -> None:
    assert found(SUBNET, {"network": {"id": 4, "subnets": [{"ip_range": "10.20.1.0/24"}]}}) == ["4-10.20.1.0/24"]
    assert found(SUBNET, {"network": {"id": 4, "subnets": []}}) == []
    assert found(ATTACHMENT, {"volume": {"id": 7, "server": 3}}) == ["7"]
    assert found(ATTACHMENT, {"volume": {"id": 7, "server": None}}) == []


def test_servers_are_the_program_s_own_business() -> None:
    assert found(server("a", inputs={"name": "a", "labels": LABELS}), {}) == []


def test_an_api_that_does_not_answer_is_named() -> None:
    with serving(lambda _: (500, "")) as hetzner, pytest.raises(StackError, match="did not answer GET volumes"):
        unfinished.found([unfinished.Begun(VOLUME)], "secret", hetzner.url)


def test_it_is_imported_as_what_the_program_declares() -> None:
    described = {
        **VOLUME,
        "parent": "urn:a",
        "provider": "urn:pulumi:dev::fleet::pulumi:providers:hcloud::default::1-2",
    }
    assert unfinished.Begun(described).import_arguments("7") == [
        "hcloud:index/volume:Volume",
        "a-volume",
        "7",
        "--protect=false",
        "--generate-code=false",
        "--parent",
        "parent=urn:a",
        "--provider",
        "provider=urn:pulumi:dev::fleet::pulumi:providers:hcloud::default",
    ]
