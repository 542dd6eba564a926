"""Malformed input is a 4xx that names what is wrong; it is never a 500, and the broker goes on."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    import httpx

    from tests.contract.harness import Endpoint

NOT_JSON = {
    "bad utf-8": b'{"command":"ping","payload":"\xff\xfe"}',
    "utf-16": '{"command":"ping"}'.encode("utf-16"),
    "byte order mark": b'\xef\xbb\xbf{"command":"ping"}',
    "no JSON": b"command=ping",
    "half an object": b'{"command":"pi',
    "raw NUL": b'{"command":"ping","payload":"\x00"}',
    "NaN": b'{"command":"ping","x":NaN}',
    "Infinity": b'{"command":"ping","x":-Infinity}',
    "huge number": b'{"command":"ping","x":' + b"9" * 5000 + b"}",
    "endless number": b'{"command":"ping","x":1e999}',
    "deeper than the parser goes": b"[" * 200_000,
    "two values": b"{}{}",
}
NOT_AN_OBJECT = {
    "list": b"[]", "list of pairs": b'[["command","ping"]]', "string": b'"ping"', "number": b"1", "null": b"null",
    "true": b"true",
}  # fmt: skip
NESTED = b'{"command":"ping","x":' + b"[" * 40 + b"]" * 40 + b"}"


@pytest.fixture
def bot(broker: Endpoint) -> Iterator[httpx.Client]:
    bot = broker.bot()
    yield bot
    assert bot.get("/jobs", params={"limit": 1}).status_code == 200


def post(bot: httpx.Client, body: object) -> tuple[int, str]:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    response = bot.post("/jobs", content=content)
    return response.status_code, response.json()["detail"] if response.status_code != 200 else ""


@pytest.mark.parametrize("name", NOT_JSON)
def test_a_body_that_is_not_json(bot: httpx.Client, name: str) -> None:
    assert post(bot, NOT_JSON[name]) == (400, "invalid JSON")


@pytest.mark.parametrize("name", NOT_AN_OBJECT)
def test_a_body_that_is_not_an_object(bot: httpx.Client, name: str) -> None:
    status, detail = post(bot, NOT_AN_OBJECT[name])
    assert (status, "dictionary or object" in detail) == (400, True)


def test_a_body_that_is_nested_too_deeply(bot: httpx.Client) -> None:
    status, detail = post(bot, NESTED)
    assert (status, "nested" in detail) == (400, True)


@pytest.mark.parametrize(
    "command",
    [
        None, "", " ", 1, True, [], {}, ["ping"], "Ping", "1ping", "p ng", "ping\n!", "p\x00", "\ud800", "x" * 65,
        "pïng",
    ],
)  # fmt: skip
def test_a_command_that_is_none(bot: httpx.Client, command: object) -> None:
    assert post(bot, {"command": command}) == (400, "invalid command")


def test_an_empty_body_has_no_command(bot: httpx.Client) -> None:
    assert post(bot, b"") == (400, "invalid command")
    assert post(bot, {}) == (400, "invalid command")


WRONG_FIELDS: dict[str, tuple[object, ...]] = {
    "payload": ({}, {"a": 1}, [], ["a"], 0, 1, 1.5, True, False, "\ud800", "a\udfffb"),
    "agent": (1, [], "", " ", "a b", "-a", "a\x00", "a/b", "x" * 129, "\ud800", "ä"),
    "max_deliveries": (0, -1, 101, 10**30, 1.0, "5", True, [], {}),
    "priority": (-101, 101, 10**30, 1.0, "5", True, [], {}),
    "not_before": (-1, -0.5, 2**38, 10**400, "2026-11-22", True, [], {}),
    "idempotency_key": (1, [], "", " ", "a b", "x" * 256, "\ud800", "ä"),
}


@pytest.mark.parametrize(
    ("field", "value"), [(field, value) for field, values in WRONG_FIELDS.items() for value in values]
)
def test_a_field_of_another_kind_is_named(bot: httpx.Client, field: str, value: object) -> None:
    status, detail = post(bot, {"command": "ping", field: value})
    assert (status, field in detail) == (400, True), detail


def test_a_payload_has_a_bounded_size_in_utf8(bot: httpx.Client) -> None:
    assert post(bot, {"command": "ping", "payload": "x" * 262145}) == (400, "payload too large")
    body = json.dumps({"command": "ping", "payload": "é" * 131073}, ensure_ascii=False).encode()
    assert post(bot, body) == (400, "payload too large")


@pytest.mark.parametrize(
    ("call", "body", "kind", "loc"),
    [
        ("result", b"", "json_invalid", ["body"]),
        ("result", b"{}", "missing", ["body", "result"]),
        ("result", b"[]", "model_attributes_type", ["body"]),
        ("result", b'{"result":null}', "string_type", ["body", "result"]),
        ("result", b'{"result":1}', "string_type", ["body", "result"]),
        ("result", b'{"result":{"a":[1]}}', "string_type", ["body", "result"]),
        ("result", b'{"result":["\\ud800"]}', "string_type", ["body", "result"]),
        ("result", b'{"result":"\\ud800"}', "string_unicode", ["body", "result"]),
        ("result", b'{"result":"r","lease_epoch":"1"}', "int_type", ["body", "lease_epoch"]),
        ("result", b'{"result":"r","lease_epoch":true}', "int_type", ["body", "lease_epoch"]),
        ("result", b'{"result":"r","lease_epoch":1.0}', "int_type", ["body", "lease_epoch"]),
        ("result", b'{"result":"r","lease_epoch":-1}', "int_range", ["body", "lease_epoch"]),
        ("result", b'{"result":"r","lease_epoch":1' + b"0" * 40 + b"}", "int_range", ["body", "lease_epoch"]),
        ("fail", b"", "json_invalid", ["body"]),
        ("fail", b'{"error":null}', "string_type", ["body", "error"]),
        ("fail", b'{"error":["e"]}', "string_type", ["body", "error"]),
        ("heartbeat", b"[]", "model_attributes_type", ["body"]),
        ("heartbeat", b'{"lease_epoch":{}}', "int_type", ["body", "lease_epoch"]),
        ("release", b'{"reason":1}', "string_type", ["body", "reason"]),
        ("release", NESTED, "json_nesting", ["body"]),
        *(("result", body, "json_invalid", ["body"]) for body in NOT_JSON.values()),
    ],
)
def test_a_report_that_cannot_be_understood_changes_nothing(
    *, bot: httpx.Client, worker: httpx.Client, job: Any, call: str, body: bytes, kind: str, loc: list[str]
) -> None:
    response = worker.post(f"/jobs/{job['id']}/{call}", content=body)
    assert response.status_code == 422
    (detail,) = response.json()["detail"]
    assert list(detail) == ["type", "loc", "msg", "input"]
    assert (detail["type"], detail["loc"]) == (kind, loc)
    assert bot.get(f"/jobs/{job['id']}").json() == job


@pytest.mark.parametrize(
    ("path", "name"),
    [
        *((f"/jobs/next?wait={value}", "wait") for value in ("-1", "25.1", "x", "", "NaN", "1e1", "9" * 400)),
        ("/jobs/none?wait=26", "wait"),
        ("/jobs?limit=0", "limit"),
        ("/jobs?limit=201", "limit"),
        ("/jobs?limit=x", "limit"),
        ("/jobs?limit=%D9%A1", "limit"),
        ("/jobs?cursor=0", "cursor"),
        ("/jobs?cursor=abc", "cursor"),
        ("/jobs?cursor=99999999999999999999", "cursor"),
        ("/jobs?status=lost", "status"),
        ("/jobs?status=", "status"),
        ("/jobs?outcome=lost", "outcome"),
        ("/jobs?outcome=", "outcome"),
        ("/jobs?outcome=dead&status=queued", "outcome"),
        ("/jobs/none/events?after=-1", "after"),
        ("/jobs/none/events?after=x", "after"),
        ("/jobs/none/events?limit=0", "limit"),
        ("/jobs/none/events?limit=201", "limit"),
        ("/jobs/none/events?wait=26", "wait"),
        ("/jobs?agent=a%20b", "agent"),
        ("/jobs?agent=%00", "agent"),
        ("/jobs?agent=%FF", "agent"),
    ],
)
def test_a_query_that_cannot_be_understood(broker: Endpoint, path: str, name: str) -> None:
    client = broker.worker() if path.startswith("/jobs/next") else broker.bot()
    response = client.get(path)
    assert response.status_code == 400
    assert response.json()["detail"].startswith(f"{name} ")


@pytest.mark.parametrize(
    ("header", "value"),
    [
        ("X-Worker-Id", "a b"),
        ("X-Worker-Id", "x" * 129),
        ("X-Worker-Id", b"\xff"),
        ("X-Runner-Version", "1 2"),
        ("X-Runner-Version", "x" * 65),
        ("X-Lease-Epoch", "x"),
        ("X-Lease-Epoch", "-1"),
        ("X-Lease-Epoch", "9" * 30),
    ],
)
def test_a_header_that_cannot_be_understood(broker: Endpoint, header: str, value: str | bytes) -> None:
    raw = value if isinstance(value, bytes) else value.encode()
    response = broker.worker().post("/jobs/none/heartbeat", headers=[(header.encode(), raw)])
    assert response.status_code == 400
    assert response.json()["detail"].startswith(f"{header} ")


def test_strange_bytes_in_a_token_are_a_wrong_token(broker: Endpoint) -> None:
    for token in (b"\xff\xfe", b"\xc3\xa9", b"x" * 10000):
        response = broker.client().get("/jobs", headers=[(b"X-Bot-Token", token)])
        assert response.status_code == 401


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"\x00\x01\x02\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET /\x00 HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET / HTTP/1.1\r\nA\x00: b\r\n\r\n",
        b"GET / HTTP/1.1\r\nA: b\x00\r\n\r\n",
        b"POST /jobs HTTP/1.1\r\nContent-Length: x\r\n\r\n",
        b"POST /jobs HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        b"POST /jobs HTTP/1.1\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"CONNECT x HTTP/1.1\r\n\r\n",
    ],
)
def test_a_request_that_is_not_http(broker: Endpoint, request_bytes: bytes) -> None:
    """Each comes with a token, so that no 401 hides that it would be taken."""
    token = f" HTTP/1.1\r\nX-Bot-Token: {broker.bot_token}\r\n".encode()
    with broker.socket() as sock:
        sock.sendall(request_bytes.replace(b" HTTP/1.1\r\n", token))
        assert sock.recv(4096).startswith((b"HTTP/1.1 400 ", b"HTTP/1.1 404 "))
    assert broker.client().get("/health").status_code == 200
