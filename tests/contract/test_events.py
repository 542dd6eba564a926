"""What jobs report while they run, and who follows them."""

from __future__ import annotations

import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from tests.contract.harness import TLS, caps, claim, submit

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.contract.harness import Broker, Endpoint

# Seconds: far longer than any answer takes that comes before its wait is over.
WAIT = 8


def say(worker: httpx.Client, job: Any, **report: Any) -> httpx.Response:
    response = worker.post(f"/jobs/{job['id']}/log", json=report)
    assert (response.status_code, response.json()) == (200, {"ok": True})
    return response


def read(bot: httpx.Client, job: Any, **query: Any) -> Any:
    response = bot.get(f"/jobs/{job['id']}/events", params=query)
    assert response.status_code == 200
    return response.json()


def texts(bot: httpx.Client, job: Any, **query: Any) -> list[str]:
    return [event["text"] for event in read(bot, job, **query)["events"] if event["type"] == "log"]


class Stream:
    """A stream of server-sent events, as a client of them reads it."""

    def __init__(self, response: httpx.Response) -> None:
        assert (response.status_code, response.headers["content-type"].partition(";")[0]) == (200, "text/event-stream")
        self.lines = response.iter_lines()

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Each event's fields, `data` as the object that it is."""
        fields: dict[str, Any] = {}
        for line in self.lines:
            name, _, value = line.partition(": ")
            if name and value:
                fields[name] = value
            if not line and "data" in fields:
                yield {**fields, "data": json.loads(fields["data"])}
                fields = {}


@pytest.fixture
def follow(broker: Endpoint) -> Callable[..., Any]:
    """Open a stream."""

    def open_stream(job: Any, query: str = "", **headers: str) -> Any:
        asked = {"X-Bot-Token": broker.bot_token, "Accept": "text/event-stream", **headers}
        url = f"{broker.url}/jobs/{job['id']}/events{query}"
        return httpx.stream("GET", url, headers=asked, timeout=WAIT, verify=TLS)

    return open_stream


def test_reports_are_read_from_any_event_on(bot: httpx.Client, worker: httpx.Client, job: Any) -> None:
    began = time.time()
    for n, text in enumerate("abc"):
        say(worker, job, text=text, offset=n)
    say(worker, job, progress=5, note="half way")
    first = read(bot, job, limit=2)
    assert list(first) == ["status", "outcome", "events", "after"]
    assert (first["status"], first["outcome"]) == ("running", None)
    assert [event["text"] for event in first["events"]] == ["a", "b"]
    assert first["after"] == first["events"][1]["id"] > first["events"][0]["id"]
    rest = read(bot, job, after=first["after"])
    log, progress = rest["events"]
    assert began - 1 <= log.pop("at") <= progress.pop("at") <= time.time() + 1
    assert first["after"] < log.pop("id") < progress.pop("id") == rest["after"]
    assert log == {"type": "log", "offset": 2, "text": "c"}
    assert progress == {"type": "progress", "progress": 5, "note": "half way"}
    assert read(bot, job, after=rest["after"]) == {**rest, "events": []}


def test_a_job_shows_how_far_it_is(bot: httpx.Client, worker: httpx.Client, job: Any) -> None:
    say(worker, job, progress=5, note="half way")
    say(worker, job, progress=6)
    shown = bot.get(f"/jobs/{job['id']}").json()
    assert (shown["progress"], shown["progress_note"]) == (6, "half way")
    worker.post(f"/jobs/{job['id']}/release")
    again = claim(worker)
    assert (again["progress"], again["progress_note"]) == (None, None)


def test_a_report_may_be_repeated(bot: httpx.Client, worker: httpx.Client, job: Any) -> None:
    for text, offset in (("a", 0), ("a", 0), ("b", 1), ("a", 0)):
        say(worker, job, text=text, offset=offset)
    worker.post(f"/jobs/{job['id']}/release")
    claim(worker)
    say(worker, job, text="again", offset=0)
    assert texts(bot, job) == ["a", "b", "again"]


def test_a_report_is_as_many_events_as_it_says_things(bot: httpx.Client, worker: httpx.Client, job: Any) -> None:
    say(worker, job)
    say(worker, job, text="", offset=0)
    say(worker, job, text="a", offset=0, progress=0)
    assert texts(bot, job) == ["a"]
    assert [event["type"] for event in read(bot, job)["events"]] == ["log", "progress"]


def test_only_the_holder_reports(broker: Endpoint, bot: httpx.Client, worker: httpx.Client, job: Any) -> None:
    path, report = f"/jobs/{job['id']}/log", {"text": "x", "progress": 9}
    assert broker.worker("other").post(path, json=report).status_code == 409
    assert worker.post(path, json={**report, "lease_epoch": 2}).status_code == 409
    assert worker.post(path, json=report, headers={"X-Lease-Epoch": "0"}).status_code == 409
    assert bot.get(f"/jobs/{job['id']}").json() == job
    assert read(bot, job)["events"] == []
    worker.post(f"/jobs/{job['id']}/release")
    late = worker.post(path, json=report)
    assert (late.status_code, late.json()) == (409, {"detail": "job not in running state: queued"})


@pytest.mark.parametrize(
    ("report", "status", "field"),
    [
        ({"text": 1}, 422, "text"),
        ({"text": "x" * 65537}, 413, "text"),
        ({"offset": -1}, 422, "offset"),
        ({"offset": "0"}, 422, "offset"),
        ({"progress": 101}, 422, "progress"),
        ({"progress": True}, 422, "progress"),
        ({"progress": 1.5}, 422, "progress"),
        ({"note": []}, 422, "note"),
        ({"note": "x" * 1025}, 413, "note"),
    ],
)
def test_a_report_that_cannot_be_understood_is_none(
    *, bot: httpx.Client, worker: httpx.Client, job: Any, report: dict[str, Any], status: int, field: str
) -> None:  # fmt: skip
    response = worker.post(f"/jobs/{job['id']}/log", json={"text": "x", **report})
    assert response.status_code == status
    assert field in str(response.json()["detail"])
    assert read(bot, job)["events"] == []


def test_what_one_job_reports_is_bounded(bot: httpx.Client, worker: httpx.Client, job: Any) -> None:
    for n in range(24):
        say(worker, job, text="x" * 65536, offset=n * 65536)
    say(worker, job, progress=99)
    assert 15 <= len(texts(bot, job)) <= 16
    assert bot.get(f"/jobs/{job['id']}").json()["progress"] == 99
    worker.post(f"/jobs/{job['id']}/result", json={"result": "r"})


@pytest.mark.parametrize("news", ["log", "release", "result"])
def test_a_follower_waits_for_news(bot: httpx.Client, worker: httpx.Client, job: Any, news: str) -> None:
    reports = {"log": {"text": "x"}, "release": {}, "result": {"result": "r"}}
    with ThreadPoolExecutor() as pool:
        waiting = pool.submit(read, bot, job, wait=WAIT)
        time.sleep(0.2)
        worker.post(f"/jobs/{job['id']}/heartbeat")
        time.sleep(0.1)
        assert not waiting.done()
        began = time.monotonic()
        worker.post(f"/jobs/{job['id']}/{news}", json=reports[news])
        found = waiting.result(WAIT)
        assert time.monotonic() - began < 2
    status = {"log": "running", "release": "queued", "result": "done"}[news]
    assert (found["status"], len(found["events"])) == (status, int(news == "log"))


def test_a_followers_wait_ends(bot: httpx.Client, job: Any) -> None:
    began = time.monotonic()
    assert read(bot, job, wait=0.3)["events"] == []
    assert 0.25 < time.monotonic() - began < 5
    assert bot.get("/jobs/none/events", params={"wait": WAIT}).status_code == 404


def test_a_stream_has_every_event_under_its_number_and_ends_with_the_job(
    bot: httpx.Client, worker: httpx.Client, cap: str, follow: Callable[..., Any]
) -> None:
    job = {"id": submit(bot, requires=caps(cap))}
    with follow(job) as response:
        stream = iter(Stream(response))
        state = {"type": "state", "status": "queued", "outcome": None}
        assert next(stream) == {"event": "state", "data": state}
        claim(worker)
        assert next(stream)["data"] == {**state, "status": "running"}
        say(worker, job, text="two\nlines", offset=0, progress=5)
        log, progress = read(bot, job)["events"]
        assert next(stream) == {"id": str(log["id"]), "event": "log", "data": log}
        assert next(stream) == {"id": str(progress["id"]), "event": "progress", "data": progress}
        worker.post(f"/jobs/{job['id']}/result", json={"result": "r"})
        assert next(stream) == {"event": "state", "data": {**state, "status": "done", "outcome": "done"}}
        assert list(stream) == []


def test_a_stream_goes_on_after_the_last_event(
    bot: httpx.Client, worker: httpx.Client, job: Any, follow: Callable[..., Any]
) -> None:
    for n, text in enumerate("abc"):
        say(worker, job, text=text, offset=n)
    first, second, _ = read(bot, job)["events"]
    bot.post(f"/jobs/{job['id']}/cancel")
    for query, headers in (
        (f"?after={second['id']}", {}),
        ("", {"Last-Event-ID": str(second["id"])}),
        (f"?after={first['id']}", {"Last-Event-ID": str(second["id"])}),
    ):
        with follow(job, query, **headers) as response:
            events = [event["data"] for event in Stream(response)]
        assert [event.get("text") for event in events] == ["c", None]
        assert events[-1] == {"type": "state", "status": "failed", "outcome": "cancelled"}


def test_a_stream_of_many_events_has_them_all(worker: httpx.Client, job: Any, follow: Callable[..., Any]) -> None:
    with follow(job) as response:
        for n in range(250):
            say(worker, job, text=f"{n}\n", offset=n)
        worker.post(f"/jobs/{job['id']}/result", json={"result": "r"})
        events = [event["data"] for event in Stream(response)]
    assert [event["text"] for event in events if event["type"] == "log"] == [f"{n}\n" for n in range(250)]
    with follow(job) as response:
        assert len(list(Stream(response))) == 251


def test_a_stream_ends_as_the_broker_does(new_broker: Callable[..., Broker]) -> None:
    broker = new_broker().start()
    job_id = submit(broker.bot())
    url = f"{broker.url}/jobs/{job_id}/events"
    headers = {"X-Bot-Token": broker.bot_token, "Accept": "text/event-stream"}
    with httpx.stream("GET", url, headers=headers, timeout=WAIT, verify=TLS) as response:
        stream = iter(Stream(response))
        next(stream)
        stopping = threading.Thread(target=broker.restart)
        stopping.start()
        assert list(stream) == []
        stopping.join()
    assert "ERROR" not in broker.log.read_text(encoding="utf-8")


def test_a_revoked_token_ends_a_stream(new_broker: Callable[..., Broker]) -> None:
    broker = new_broker().start()
    token = broker.command("token", "mint", "one", "--role", "bot").stdout.strip()
    job_id = submit(broker.bot())
    headers = {"X-Bot-Token": token, "Accept": "text/event-stream"}
    with httpx.stream("GET", f"{broker.url}/jobs/{job_id}/events", headers=headers, timeout=WAIT, verify=TLS) as answer:
        stream = iter(Stream(answer))
        next(stream)
        broker.command("token", "revoke", "one")
        time.sleep(1)
        claim(broker.worker("w"))
        assert list(stream) == []


def test_a_stream_that_is_refused_says_why(broker: Endpoint) -> None:
    for token, status, detail in (("wrong", 401, "bad bot token"), (broker.bot_token, 404, "job not found")):
        client = broker.client({"X-Bot-Token": token, "Accept": "text/event-stream"})
        response = client.get("/jobs/none/events")
        assert (response.status_code, response.json()) == (status, {"detail": detail})
