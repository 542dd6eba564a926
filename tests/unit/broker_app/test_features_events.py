"""What jobs report: kept, bounded, followed and streamed."""

from __future__ import annotations

import asyncio
import json
import time
from typing import TYPE_CHECKING, Any

import pytest

from broker_app import event_stream
from broker_app.agents import Role, mint, revoke
from broker_app.app import build_app
from broker_app.broker import Broker
from broker_app.dialects import Identity
from broker_app.errors import JobNotFoundError, LeaseLostError, NotRunningError
from broker_app.queue import sqlite
from broker_app.queue.commands import Follow, Report, Submit
from broker_app.queue.job import Lease, Route, Status, Worker
from broker_app.schema import connect
from broker_app.settings import Settings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from tests.unit.broker_app.conftest import Bench

W1 = Worker("w1")
PING = Submit("ping", "", None, Route(), max_deliveries=5, lease_seconds=60, dialect="jobs")


async def running(b: Bench) -> str:
    """The id of a job that w1 runs."""
    await b.queue.submit(PING)
    job = await b.queue.claim(W1)
    assert job is not None
    return job.id


async def say(b: Bench, job_id: str, text: str = "", offset: int | None = None, **more: Any) -> None:
    await b.queue.report(Report(job_id, None, text, offset, **more), Lease("w1"))


async def texts(b: Bench, job_id: str, after: int = 0) -> list[str | None]:
    return [event.text for event in await b.store.events(job_id, after, 200)]


def test_events_are_read_from_any_on(bench: Callable[..., Any], run: Callable[[Any], Any]) -> None:
    async def work() -> None:
        async with bench() as b:
            job_id, other = await running(b), await running(b)
            for text in "abc":
                await say(b, job_id, text)
                await say(b, other, text * 2)
            job, (first, second), after = await b.queue.follow(Follow(job_id, 0, 2))
            assert (job.status, first.text, first.at, second.text, after) == (
                "running", "a", b.clock.now, "b", second.n,
            )  # fmt: skip
            assert first.n < second.n
            _, (third,), last = await b.queue.follow(Follow(job_id, after, 2))
            assert third.text == "c"
            assert (await b.queue.follow(Follow(job_id, last, 2)))[1:] == ((), last)
        async with bench() as b:
            assert await texts(b, job_id, first.n) == ["b", "c"]
            with pytest.raises(JobNotFoundError):
                await b.queue.follow(Follow("none", 0, 2))

    run(work())


def test_a_text_is_kept_once_for_each_offset_and_lease(bench: Callable[..., Any], run: Callable[[Any], Any]) -> None:
    async def work() -> None:
        async with bench() as b:
            job_id, other = await running(b), await running(b)
            for text, offset in (("a", 0), ("a", 0), ("b", 1), ("a", 0), ("", 2), ("c", 2)):
                await say(b, job_id, text, offset)
            await say(b, other, "mine", 0)
            await b.queue.release(job_id, Lease("w1"))
            await b.queue.claim(W1)
            await say(b, job_id, "again", 0)
            await say(b, job_id, "x")
            await say(b, job_id, "x")
            assert await texts(b, job_id) == ["a", "b", "c", "again", "x", "x"]
            assert await texts(b, other) == ["mine"]

    run(work())


def test_a_report_is_as_many_events_as_it_says_things(bench: Callable[..., Any], run: Callable[[Any], Any]) -> None:
    async def work() -> None:
        async with bench() as b:
            job_id = await running(b)
            await say(b, job_id)
            await say(b, job_id, "a", 0, percent=5, note="half way")
            await say(b, job_id, percent=0)
            await say(b, job_id, note="")
            seen = [
                (event.text, event.offset, event.percent, event.note) for event in await b.store.events(job_id, 0, 9)
            ]
            assert seen == [
                ("a", 0, None, None), (None, None, 5, "half way"), (None, None, 0, None), (None, None, None, ""),
            ]  # fmt: skip

    run(work())


def test_a_job_shows_its_progress_until_it_is_handed_out_again(
    bench: Callable[..., Any], run: Callable[[Any], Any]
) -> None:
    async def work() -> None:
        async with bench() as b:
            job_id = await running(b)
            await say(b, job_id, percent=5, note="half way")
            await say(b, job_id, "text")
            await say(b, job_id, percent=6)
            job = await b.queue.look(job_id)
            assert (job.progress, job.progress_note) == (6, "half way")
            await b.queue.release(job_id, Lease("w1"))
            again = await b.queue.claim(W1)
            assert (again.progress, again.progress_note) == (None, None)

    run(work())


def test_what_one_job_reports_is_bounded_and_its_progress_goes_on(
    bench: Callable[..., Any], run: Callable[[Any], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite, "_MAX_REPORTED", 1000)

    async def work() -> None:
        async with bench() as b:
            job_id, other = await running(b), await running(b)
            for _ in range(3):
                await say(b, job_id, "a" * 400, 0)
            await say(b, job_id, "b" * 400, 400)
            await say(b, job_id, "c" * 400, 800)
            await say(b, job_id, note="d" * 8)
            await say(b, job_id, "e", 1200, percent=9)
            await say(b, other, "mine")
            assert [text and text[0] for text in await texts(b, job_id)] == ["a", "b", None]
            assert (await b.queue.look(job_id)).progress == 9
            assert await texts(b, other) == ["mine"]

    run(work())


def test_only_the_holder_of_a_running_job_reports(bench: Callable[..., Any], run: Callable[[Any], Any]) -> None:
    async def work() -> None:
        async with bench() as b:
            queued = await b.queue.submit(PING)
            report = Report(queued.id, None, "x", percent=5)
            with pytest.raises(NotRunningError):
                await b.queue.report(report, Lease("w1"))
            claimed = await b.queue.claim(W1)
            for lease in (Lease("w2"), Lease("w1", 2), Lease("w1", 0)):
                with pytest.raises(LeaseLostError):
                    await b.queue.report(report, lease)
            assert (await b.queue.look(queued.id), await b.store.events(queued.id, 0, 9)) == (claimed, ())

    run(work())


@pytest.mark.parametrize("news", ["event", "status", "end"])
def test_a_follower_waits_for_more_another_status_or_an_end(
    bench: Callable[..., Any], run: Callable[[Any], Any], news: str
) -> None:
    async def work() -> None:
        async with bench() as b:
            job_id, other = await running(b), await running(b)
            waiting = asyncio.create_task(b.queue.follow(Follow(job_id, 0, 9, wait=8)))
            await asyncio.sleep(0.05)
            await say(b, other, "not mine")
            await b.queue.renew(job_id, Lease("w1"))
            await asyncio.sleep(0.05)
            assert not waiting.done()
            if news == "event":
                await say(b, job_id, "x")
            elif news == "status":
                await b.queue.release(job_id, Lease("w1"))
            else:
                await b.queue.cancel(job_id, "")
            job, events, _ = await asyncio.wait_for(waiting, 2)
            assert (job.status, len(events)) == {
                "event": ("running", 1), "status": ("queued", 0), "end": ("failed", 0),
            }[news]  # fmt: skip

    run(work())


def test_a_follower_that_knows_another_status_does_not_wait(
    bench: Callable[..., Any], run: Callable[[Any], Any]
) -> None:
    """So a change between two calls is not missed."""

    async def work() -> None:
        async with bench() as b:
            job_id = await running(b)
            job, _, _ = await asyncio.wait_for(b.queue.follow(Follow(job_id, 0, 9, wait=8, status=Status.QUEUED)), 2)
            assert job.status == "running"

    run(work())


class Stream:
    """A stream of a bot's, whose token can be revoked."""

    def __init__(self, b: Bench, path: Path) -> None:
        self.b = b
        self.broker = Broker(Settings.from_environment({}), b.database, b.store)
        self._path = path
        self._connection = connect(path)
        self._token = mint(self._connection, "bot", Role.BOT, time.time())

    async def open(self, command: Follow) -> AsyncIterator[str]:
        """Begin."""
        principal, token = await self.broker.admit({Role.BOT: self._token}, frozenset({Role.BOT}))
        caller = self.broker.identify(principal, token, Identity())
        never: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        response = await event_stream.open_stream(self.broker, command, caller, never)
        assert (response.media_type, response.headers["cache-control"]) == ("text/event-stream", "no-store")
        return response.body_iterator  # type: ignore[return-value]  # of texts

    def scope(self, job_id: str) -> dict[str, Any]:
        """A request for it, as the server has it."""
        headers = {"x-bot-token": self._token, "accept": "text/event-stream"}
        return {
            "type": "http",
            "asgi": {"spec_version": "2.3"},
            "method": "GET",
            "path": f"/jobs/{job_id}/events",
            "query_string": b"",
            "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
            "client": ("127.0.0.1", 1),
        }

    def revoke(self) -> None:
        """End the token."""
        revoke(self._connection, "bot", None)

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()


@pytest.fixture
def streaming(tmp_path: Path) -> Any:
    """Make a stream on a bench."""
    streams: list[Stream] = []

    def make(b: Bench) -> Stream:
        streams.append(Stream(b, tmp_path / "broker.db"))
        return streams[-1]

    yield make
    for stream in streams:
        stream.close()


def read(block: str) -> dict[str, Any]:
    """The fields of one server-sent event, `data` as the object that it is."""
    assert block.endswith("\n\n")
    fields = dict(line.split(": ", 1) for line in block.strip("\n").split("\n"))
    return {**fields, "data": json.loads(fields["data"])}


async def soon(stream: AsyncIterator[str]) -> str:
    return await asyncio.wait_for(anext(stream), 2)


async def ends(stream: AsyncIterator[str]) -> bool:
    try:
        await soon(stream)
    except StopAsyncIteration:
        return True
    return False


def test_a_stream_has_every_event_under_its_number_and_ends_with_the_jobs(
    bench: Callable[..., Any], run: Callable[[Any], Any], streaming: Callable[[Bench], Stream]
) -> None:
    async def work() -> None:
        async with bench() as b:
            job = await b.queue.submit(PING)
            stream = await streaming(b).open(Follow(job.id, 0, 200))
            state = {"type": "state", "status": "queued", "outcome": None}
            assert read(await soon(stream)) == {"event": "state", "data": state}
            await b.queue.claim(W1)
            assert read(await soon(stream))["data"] == {**state, "status": "running"}
            await say(b, job.id, "two\nlines\r", 0, percent=5)
            (log, progress) = await b.store.events(job.id, 0, 9)
            assert read(await soon(stream)) == {
                "id": str(log.n),
                "event": "log",
                "data": {"id": log.n, "at": log.at, "type": "log", "offset": 0, "text": "two\nlines\r"},
            }
            assert read(await soon(stream)) == {
                "id": str(progress.n),
                "event": "progress",
                "data": {"id": progress.n, "at": log.at, "type": "progress", "progress": 5, "note": None},
            }
            await b.queue.finish(job.id, Lease("w1"), "r")
            last = read(await soon(stream))
            assert last == {"event": "state", "data": {"type": "state", "status": "done", "outcome": "done"}}
            assert await ends(stream)

    run(work())


def test_a_stream_goes_on_after_an_event_and_has_what_came_before_the_end(
    bench: Callable[..., Any], run: Callable[[Any], Any], streaming: Callable[[Bench], Stream]
) -> None:
    """In pages that are full, too: the state comes after the last event, and once."""

    async def work() -> None:
        async with bench() as b:
            job_id = await running(b)
            for text in "abcde":
                await say(b, job_id, text)
            first = (await b.store.events(job_id, 0, 1))[0]
            await b.queue.cancel(job_id, "why")
            stream = await streaming(b).open(Follow(job_id, first.n, 2))
            blocks = [read(block) async for block in stream]
            assert [block["data"].get("text") for block in blocks] == [*"bcde", None]
            assert blocks[-1]["data"] == {"type": "state", "status": "failed", "outcome": "cancelled"}

    run(work())


def test_a_stream_says_that_it_is_there(
    bench: Callable[..., Any],
    run: Callable[[Any], Any],
    streaming: Callable[[Bench], Stream],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(event_stream, "_WAIT_SECONDS", 0.05)

    async def work() -> None:
        async with bench() as b:
            stream = await streaming(b).open(Follow(await running(b), 0, 2))
            await soon(stream)
            assert [(await soon(stream))[0] for _ in range(2)] == [":", ":"]

    run(work())


def test_a_stream_ends_when_the_broker_drains(
    bench: Callable[..., Any], run: Callable[[Any], Any], streaming: Callable[[Bench], Stream]
) -> None:
    async def work() -> None:
        async with bench() as b:
            made = streaming(b)
            stream = await made.open(Follow(await running(b), 0, 2))
            await soon(stream)
            waiting = asyncio.create_task(soon(stream))
            await asyncio.sleep(0.05)
            made.broker.queue.stop_waiting()
            assert (await waiting)[0] == ":"
            assert await ends(stream)

    run(work())


def test_a_revoked_token_ends_a_stream_before_anything_more_is_told(
    bench: Callable[..., Any], run: Callable[[Any], Any], streaming: Callable[[Bench], Stream]
) -> None:
    async def work() -> None:
        async with bench() as b:
            made = streaming(b)
            job_id = await running(b)
            stream = await made.open(Follow(job_id, 0, 2))
            await soon(stream)
            waiting = asyncio.create_task(ends(stream))
            await asyncio.sleep(0.05)
            made.revoke()
            await asyncio.sleep(0.6)  # how long a token is trusted without another look
            await say(b, job_id, "secret")
            assert await waiting

    run(work())


def test_a_stream_ends_with_its_client(
    bench: Callable[..., Any], run: Callable[[Any], Any], streaming: Callable[[Bench], Stream]
) -> None:
    async def work() -> None:
        async with bench() as b:
            made = streaming(b)
            app = build_app(made.broker, Settings.from_environment({}), ts_bound=True)
            gone = asyncio.Event()
            messages = iter([{"type": "http.request", "body": b""}])
            told: list[Any] = []

            async def receive() -> Any:
                for message in messages:
                    return message
                await gone.wait()
                return {"type": "http.disconnect"}

            async def send(message: Any) -> None:
                told.append(message)

            serving = asyncio.create_task(app(made.scope(await running(b)), receive, send))
            await asyncio.sleep(0.1)
            assert [message["type"] for message in told] == ["http.response.start", "http.response.body"]
            gone.set()
            await asyncio.wait_for(serving, 2)
            assert made.broker.queue._waiters._watchers == {}

    run(work())


def test_there_is_no_stream_of_no_job(
    bench: Callable[..., Any], run: Callable[[Any], Any], streaming: Callable[[Bench], Stream]
) -> None:
    async def work() -> None:
        async with bench() as b:
            with pytest.raises(JobNotFoundError):
                await streaming(b).open(Follow("none", 0, 2))

    run(work())
