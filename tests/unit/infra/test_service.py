from __future__ import annotations

import pytest

from infra.errors import ServiceError
from infra.service import ATTEMPTS, Service
from infra.settings import TailscaleAccess
from infra.tailscale import Tailscale
from tests.support.infra import Answer, Request, serving


def test_what_fails_for_a_while_is_asked_again_and_with_longer_pauses() -> None:
    answers: list[Answer | None] = [(503, "later"), None, (429, "slower", {"Retry-After": "7"}), (200, {"fine": True})]
    pauses: list[float] = []
    with serving(lambda _: answers.pop(0)) as server:
        answer = Service("it", server.url, sleep=pauses.append).ask("GET", "x")
    assert answer.json() == {"fine": True}
    assert pauses == [0.5, 1.0, 7.0]


def test_it_gives_up_and_says_what_happened_last() -> None:
    pauses: list[float] = []
    with (
        serving(lambda _: (500, "broken")) as server,
        pytest.raises(ServiceError, match="it: GET x failed 5 times, at last with: 500 broken") as raised,
    ):
        Service("it", server.url, sleep=pauses.append).ask("GET", "x")
    assert (len(server.requests), len(pauses), raised.value.status) == (ATTEMPTS, ATTEMPTS - 1, 500)


def test_nobody_there_is_an_error_of_ours() -> None:
    with pytest.raises(ServiceError, match="ConnectError"):
        Service("it", "http://127.0.0.1:9", sleep=lambda _: None).ask("GET", "x")


@pytest.mark.parametrize("answer", ["<html>a login page</html>", "", "[]", "null", '{"other": 1}'])
def test_what_is_not_the_apis_answer_is_an_error_of_ours(answer: str) -> None:
    with (
        serving(lambda _: (200, answer)) as server,
        pytest.raises(ServiceError, match=r"it: the answer to GET x is not this API's: .*check the URL http://127"),
    ):
        Service("it", server.url).read("GET", "x", "wanted")


def test_an_address_that_is_none_is_an_error_of_ours() -> None:
    with pytest.raises(ServiceError, match="is no URL"):
        Service("it", "http://127.0.0.1:port").ask("GET", "x")


@pytest.mark.parametrize(("status", "hint"), [(401, True), (403, True), (404, False), (409, False)])
def test_a_refusal_is_not_asked_again(status: int, hint: bool) -> None:
    with serving(lambda _: (status, "no")) as server, pytest.raises(ServiceError) as raised:
        Service("it", server.url).ask("GET", "x")
    assert len(server.requests) == 1
    assert ("check the token and its scopes" in str(raised.value)) is hint


def test_the_longest_pause_is_bounded() -> None:
    answers: list[Answer] = [(429, "", {"Retry-After": "86400"}), (200, {})]
    pauses: list[float] = []
    with serving(lambda _: answers.pop(0)) as server:
        Service("it", server.url, sleep=pauses.append).ask("GET", "x")
    assert pauses == [20.0]


def test_an_oauth_token_is_asked_for_once_while_it_lasts() -> None:
    def answer(request: Request) -> Answer:
        if request.path == "/api/v2/oauth/token":
            assert request.form == {
                "grant_type": "client_credentials",
                "client_id": "id",
                "client_secret": "tskey-client-s",
            }
            return 200, {"access_token": "token-1", "expires_in": 3600}
        assert request.headers["Authorization"] == "Bearer token-1"
        return 200, {"devices": []}

    with serving(answer) as server:
        access = TailscaleAccess(
            url=server.url, tailnet="example.com", api_key=None, client_id="id", client_secret="tskey-client-s"
        )
        tailscale = Tailscale(access)
        tailscale.devices()
        tailscale.devices()
    assert server.asked() == [
        "POST /api/v2/oauth/token",
        "GET /api/v2/tailnet/example.com/devices",
        "GET /api/v2/tailnet/example.com/devices",
    ]


def test_a_device_that_is_gone_already_is_no_error() -> None:
    with serving(lambda request: (404, {}) if request.method == "DELETE" else (200, {"devices": [DEVICE]})) as server:
        tailscale = Tailscale(
            TailscaleAccess(url=server.url, tailnet="-", api_key="k", client_id=None, client_secret=None)
        )
        (device,) = tailscale.devices()
        tailscale.delete_device(device)
    assert (device.label, device.tags, device.connected) == ("agents-1", frozenset({"tag:runner"}), False)


DEVICE = {"id": "7", "name": "agents-1.tail1234.ts.net", "hostname": "agents-1", "tags": ["tag:runner"]}
