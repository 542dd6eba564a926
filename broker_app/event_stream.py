"""What a job reports, as it comes: server-sent events (https://html.spec.whatwg.org/multipage/server-sent-events.html).

Reports have an id, after which a stream that was cut goes on (`Last-Event-ID`). A `state` event says what has become
of the job, first and at each change; the one with an outcome is the last.
"""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from starlette.responses import StreamingResponse

from broker_app.dialects.jobs_answers import event_object
from broker_app.errors import BrokerError

if TYPE_CHECKING:
    import asyncio
    from collections.abc import AsyncIterator

    from broker_app.auth import Caller
    from broker_app.broker import Broker
    from broker_app.queue.commands import Follow
    from broker_app.queue.job import Job
    from broker_app.queue.store import Event

MEDIA_TYPE = "text/event-stream"
_WAIT_SECONDS = 15.0


async def open_stream(
    broker: Broker, command: Follow, caller: Caller, hangup: asyncio.Future[None]
) -> StreamingResponse:
    """Begin a stream.

    Raises:
        JobNotFoundError: There is no such job.
    """
    first = await broker.perform(replace(command, wait=0.0), caller, hangup)
    headers = {"cache-control": "no-store"}
    return StreamingResponse(_events(broker, command, caller, hangup, first), media_type=MEDIA_TYPE, headers=headers)


async def _events(
    broker: Broker,
    command: Follow,
    caller: Caller,
    hangup: asyncio.Future[None],
    page: tuple[Job, tuple[Event, ...], int],
) -> AsyncIterator[str]:
    told: tuple[str, str | None] | None = None
    while True:
        job, events, after = page
        for event in events:
            yield _written(event_object(event), event.n)
        state = (job.status, job.outcome)
        is_last = job.finished and len(events) < command.limit
        if state != told and (is_last or not job.finished):
            told = state
            yield _written({"type": "state", "status": job.status, "outcome": job.outcome})
        elif not events:
            yield ": still here\n\n"
        if is_last or broker.queue.stopped:
            return
        try:
            further = replace(command, after=after, wait=_WAIT_SECONDS, status=job.status)
            page = await broker.perform(further, caller, hangup)
            await broker.recheck(caller)
        except BrokerError:
            return


def _written(shown: dict[str, Any], number: int | None = None) -> str:
    head = "" if number is None else f"id: {number}\n"
    return f"{head}event: {shown['type']}\ndata: {json.dumps(shown, separators=(',', ':'))}\n\n"
