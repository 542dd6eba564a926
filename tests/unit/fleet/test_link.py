"""Calls to a broker that does not answer each of them."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import httpx
import pytest

from fleet.errors import BrokerError, ConnectError, UnansweredError
from fleet.link import Link

if TYPE_CHECKING:
    from collections.abc import Iterator

Answer = httpx.Response | Exception
OK = httpx.Response(200, json={"ok": True})
REFUSED = httpx.ConnectError("connection refused")
BUSY = httpx.Response(429, json={"detail": "rate limit exceeded"}, headers={"retry-after": "7"})


class Line:
    """A link whose answers are given; it notes the calls that were sent, how often it was dialled, and each rest."""

    def __init__(self, *answers: Answer, dials: tuple[Exception | None, ...] = ()) -> None:
        self._answers = list(answers)
        self._troubles = list(dials)
        self.sent: list[httpx.Request] = []
        self.dialled = 0
        self.closed = 0
        self.link = Link(self._dial)

    @contextmanager
    def _dial(self) -> Iterator[httpx.Client]:
        self.dialled += 1
        if self._troubles and (trouble := self._troubles.pop(0)):
            raise trouble
        with httpx.Client(base_url="http://broker", transport=httpx.MockTransport(self._answer)) as client:
            yield client
        self.closed += 1

    def _answer(self, request: httpx.Request) -> httpx.Response:
        self.sent.append(request)
        answer = self._answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


@pytest.fixture(autouse=True)
def rests(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    rests: list[float] = []
    monkeypatch.setattr("fleet.link.time.sleep", rests.append)
    return rests


def test_a_call_without_an_answer_is_made_again_in_the_same_words_over_a_new_connection(rests: list[float]) -> None:
    line = Line(REFUSED, httpx.ReadTimeout("timed out"), OK)
    assert line.link.call("POST", "/jobs", body={"command": "ping"}).json() == {"ok": True}
    assert len({(request.method, request.url, request.content) for request in line.sent}) == 1
    assert (len(line.sent), line.dialled, line.closed, rests) == (3, 3, 2, [0.5, 2.0])


def test_the_tries_of_a_call_come_to_an_end(rests: list[float]) -> None:
    line = Line(*[REFUSED] * 9)
    with pytest.raises(UnansweredError, match="the broker does not answer: connection refused"):
        line.link.call("GET", "/queue")
    assert (len(line.sent), sum(rests)) == (4, 7.5)


def test_what_must_not_be_done_twice_is_sent_once(rests: list[float]) -> None:
    line = Line(REFUSED, OK)
    with pytest.raises(UnansweredError):
        line.link.call("POST", "/api/tasks", body={}, repeat=False)
    assert (len(line.sent), rests) == (1, [])


def test_a_node_that_cannot_be_reached_again_is_tried_again(rests: list[float]) -> None:
    line = Line(REFUSED, OK, dials=(None, ConnectError("no SSH"), None))
    assert line.link.call("GET", "/queue").json() == {"ok": True}
    assert (line.dialled, rests) == (3, [0.5, 2.0])


def test_a_node_that_could_not_be_reached_at_first_is_told_at_once(rests: list[float]) -> None:
    line = Line(dials=(ConnectError("no SSH"),))
    with pytest.raises(ConnectError, match="no SSH"):
        line.link.open()
    assert (line.dialled, rests) == (1, [])


def test_a_busy_broker_is_called_again_when_it_says_so(rests: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    line = Line(BUSY, OK)
    assert line.link.call("POST", "/jobs", body={}).json() == {"ok": True}
    assert (line.dialled, rests) == (1, [7.0])
    assert "fleet: POST /jobs: 429: rate limit exceeded; trying again in 7 s" in capsys.readouterr().err


def test_a_broker_that_is_busy_for_long_is_not_waited_for(rests: list[float]) -> None:
    line = Line(httpx.Response(503, json={"detail": "out of order"}, headers={"retry-after": "61"}))
    with pytest.raises(BrokerError, match="503: out of order"):
        line.link.call("GET", "/queue")
    assert rests == []


@pytest.mark.parametrize(
    ("response", "said"),
    [
        (httpx.Response(404, json={"detail": "job not found"}), "GET /x: 404: job not found"),
        (httpx.Response(507, json={"detail": "no room"}), "GET /x: 507: no room"),
        (httpx.Response(503, json={"detail": "out of order"}), "GET /x: 503: out of order"),
        (httpx.Response(400, json={"error": "what?"}), "GET /x: 400: what?"),
        (httpx.Response(502, text="<html>"), "GET /x: 502: <html>"),
        (
            httpx.Response(422, json={"detail": [{"loc": ["body", "reason"], "msg": "must be text", "input": 1}]}),
            "GET /x: 422: reason: must be text",
        ),
        (httpx.Response(422, json={"detail": [{"loc": ["body"], "msg": "no JSON"}]}), "GET /x: 422: no JSON"),
    ],
)
def test_a_refusal_is_final_and_told_in_a_line(response: httpx.Response, said: str, rests: list[float]) -> None:
    with pytest.raises(BrokerError) as refusal:
        Line(response).link.call("GET", "/x")
    assert (str(refusal.value), refusal.value.status, rests) == (said, response.status_code, [])


def test_a_call_that_the_broker_may_hold_back_is_waited_for_longer() -> None:
    line = Line(OK, OK)
    line.link.call("GET", "/jobs/1", wait=25, query={"after": None})
    line.link.call("GET", "/jobs/1")
    held, plain = line.sent
    assert (held.url.query, held.extensions["timeout"]["read"]) == (b"wait=25", 35)
    assert (plain.url.query, plain.extensions["timeout"]["read"]) == (b"", 10)
