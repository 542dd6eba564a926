"""The hub's WebSocket: each agent's line, over which it gets jobs and messages and says what became of them.

A job over this line is one of the queue's: handed out by a claim, renewed, finished and failed by the same commands
as over HTTP. So it survives the line: an agent that comes back says which leases it holds, and keeps them.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from starlette.websockets import WebSocketDisconnect

from broker_app.dialects import hub_envelopes as envelopes
from broker_app.dialects.hub import HUB
from broker_app.dialects.jobs_answers import malformed
from broker_app.errors import BrokerError, DatabaseError, JobError, MalformedError, RefusedError
from broker_app.queue.commands import Claim, Hold, Post, Renew
from broker_app.queue.job import Lease, Outcome, Status

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    from starlette.websockets import WebSocket

    from broker_app.auth import Caller
    from broker_app.broker import Broker
    from broker_app.dialects.hub_envelopes import Envelope
    from broker_app.queue.job import Job
    from broker_app.settings import Settings

    Confirm = Callable[[], Awaitable[None]]

MAX_MESSAGE_BYTES = 65536
BAD_TOKEN, OTHER_NAME, SILENT, REPLACED, REMOVED, RESTART = 4401, 4403, 4408, 4409, 4410, 1012
_CLAIM_SECONDS = 25.0
_MAIL_AT_ONCE = 16
_PER_SECOND = 50.0
_BURST = 100.0
_LOG = logging.getLogger(__name__)


class Hub:
    """Every agent's line: one at most for each.

    Attributes:
        counts: Envelopes that came and went, by direction and type.
    """

    def __init__(self, broker: Broker, settings: Settings) -> None:
        self.broker = broker
        self.settings = settings
        self.counts: dict[tuple[str, str], int] = {}
        self._lines: dict[str, Line] = {}
        self._holders: dict[str, Line] = {}
        self._closing = False
        broker.queue.listen(self._on_change)
        broker.queue.on_loss(self._on_loss)

    async def serve(self, line: Line) -> None:
        """Serve an agent's line until either side closes it. An earlier line of the same agent gives way."""
        earlier = self._lines.get(line.name)
        self._lines[line.name] = line
        if self._closing:
            line.close(RESTART, "the broker restarts")
        if earlier is not None:
            earlier.close(REPLACED, "the agent has another connection")
        try:
            await line.run()
        finally:
            if self._lines.get(line.name) is line:
                del self._lines[line.name]
            self._holders = {job_id: holder for job_id, holder in self._holders.items() if holder is not line}

    def connected(self, name: str) -> bool:
        """Whether an agent's line is open."""
        return name in self._lines

    def mail(self, name: str) -> None:
        """Look for messages of an agent, if it is here."""
        if line := self._lines.get(name):
            line.mail.set()

    def remove(self, name: str) -> None:
        """Close the line of an agent that is no more."""
        if line := self._lines.get(name):
            line.close(REMOVED, "the agent was removed")

    def close(self) -> None:
        """Close every line; agents come back to the next broker."""
        self._closing = True
        for line in self._lines.values():
            line.close(RESTART, "the broker restarts")

    def watch(self, job_ids: Iterable[str], line: Line) -> None:
        """Have a line told when one of these jobs is its agent's no more.

        Not one that gave way while it took a job: its agent's new line is told of that, or would have no room for it.
        """
        if self._lines.get(line.name) is line:
            self._holders.update(dict.fromkeys(job_ids, line))

    def count(self, direction: str, kind: str) -> None:
        """Count one envelope."""
        self.counts[direction, kind] = self.counts.get((direction, kind), 0) + 1

    def _on_loss(self, names: frozenset[str | None]) -> None:
        """Close the lines of agents that let a lease end: they may be cut off, and who lives comes back."""
        for name in names:
            if name is not None and (line := self._lines.get(name)):
                line.close(SILENT, "a lease ended without a word")

    def _on_change(self, job: Job) -> None:
        line = self._holders.get(job.id)
        if line is not None and (job.status is not Status.RUNNING or job.worker != line.name):
            del self._holders[job.id]
            line.free(job.id)
            if job.outcome is Outcome.CANCELLED:
                line.cancelled.put_nowait(job)


class Line:
    """One agent's WebSocket.

    Args:
        hub: Whose line it is.
        websocket: Accepted already.
        caller: Who is at the other end.
        slots: How many jobs the agent runs at once.
        confirm: Returns when the other end has read all that was sent to it.
    """

    def __init__(self, hub: Hub, websocket: WebSocket, caller: Caller, *, slots: int, confirm: Confirm) -> None:
        self._hub = hub
        self._broker = hub.broker
        self._websocket = websocket
        self._caller = caller
        self._slots = slots
        self._confirm = confirm
        self.name = caller.worker.name or ""
        self.mail = asyncio.Event()
        self.mail.set()
        self.cancelled: asyncio.Queue[Job] = asyncio.Queue()
        self._held: set[str] = set()
        self._given: dict[str, int] = {}
        self._room = asyncio.Event()
        self._greeted = False
        # Held from a claim until its job is the agent's, so that a greeting takes back nothing in between.
        self._handing = asyncio.Lock()
        self._may_claim = asyncio.Event()
        self._may_claim.set()
        self._pace = Pace(_PER_SECOND, _BURST)
        self._over: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._interrupted: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._farewell = (1000, "")

    def close(self, code: int, reason: str) -> None:
        """End the line; what the agent holds stays its own."""
        if not self._over.done():
            self._farewell = (code, reason)
            self._over.set_result(None)
            self._interrupt()

    def free(self, job_id: str) -> None:
        """Note that the agent holds a job no more."""
        self._held.discard(job_id)
        self._given.pop(job_id, None)
        self._room.set()

    async def run(self) -> None:
        """Hand out jobs and messages, and take what comes, until the line ends."""
        parts = (self._hand_out, self._listen, self._bring_mail, self._tell_of_cancelled)
        work = [asyncio.create_task(self._guard(part())) for part in parts]
        await self._over
        self._room.set()
        self._may_claim.set()
        self.mail.set()
        # A claim that is under way ends by itself, so that what it took is given back.
        for task in work[1:]:
            task.cancel()
        with suppress(WebSocketDisconnect, RuntimeError):
            await self._websocket.close(*self._farewell)
        await asyncio.gather(*work, return_exceptions=True)

    async def _guard(self, part: Any) -> None:
        """Run one part; whatever ends it ends the line."""
        try:
            await part
        except RefusedError as error:
            self.close(BAD_TOKEN, str(error) or "bad worker token")
        except WebSocketDisconnect:
            pass
        except BrokerError as error:
            self.close(1011, str(error)[:100])
        except Exception as error:
            if not self._over.done():
                _LOG.error("the line of %s broke", self.name, exc_info=error)
            self.close(1011, "internal error")
        finally:
            self.close(1000, "")

    async def _recall(self) -> None:
        """Remember what the agent runs. Whatever of it ends after the first look is announced."""
        ids = (await self._broker.queue.running()).get(self.name, [])
        self._held.update(ids)
        self._hub.watch(ids, self)
        still = (await self._broker.queue.running()).get(self.name, [])
        for job_id in set(ids) - set(still):
            self.free(job_id)

    async def _listen(self) -> None:
        while True:
            message = await self._websocket.receive()
            if message["type"] == "websocket.disconnect":
                return
            await self._pace.take()
            await self._answer(message.get("text"))

    async def _answer(self, text: str | None) -> None:
        answered = None
        await self._recheck()
        try:
            if text is None:
                raise MalformedError("an envelope is a text, not bytes")
            envelope = envelopes.read(text, self.name)
            answered = envelope.id
            self._hub.count("in", envelope.type)
            self._broker.agents.saw(self.name)
            facts = await (self._hear(envelope) if envelope.to == HUB else self._pass_on(envelope))
        except (RefusedError, DatabaseError):
            raise  # this ends the line: of a database that failed for now an `error` would be taken for an answer
        except BrokerError as error:
            job = {"taskId": error.job.id, "status": envelopes.word(error.job)} if hasattr(error, "job") else {}
            text = str(malformed(error) if isinstance(error, MalformedError) else error)
            await self._send(envelopes.error(self.name, answered, text, time.time(), **job))
            return
        if facts is not None:
            await self._send(envelopes.ack(self.name, envelope.id, time.time(), **facts))

    async def _hear(self, envelope: Envelope) -> dict[str, Any] | None:
        """Do what an envelope to the hub asks for; what comes back is for its ack."""
        match envelope.type:
            case "response":
                job = await self._perform(envelopes.report(envelope, self._hub.settings))
                return {"taskId": job.id, "status": envelopes.word(job)}
            case "health":
                self._resize(envelopes.slots(envelope))
                self._broker.agents.report(self.name, envelopes.health(envelope))
                return await self._renew(envelopes.leases(envelope))
            case "log":
                self._broker.logs.add(self.name, *envelopes.lines(envelope))
                return None
            case _:
                raise MalformedError("the hub runs no tasks; name the agent that the message is for in `to`")

    def _resize(self, slots: int | None) -> None:
        """Hand out up to so many jobs from now on; what the agent has more of is left to it."""
        if slots is not None:
            self._slots = slots
            self._room.set()

    async def _renew(self, listed: frozenset[tuple[str, int]] | None) -> dict[str, Any]:
        """Renew the leases that an agent lists or, where it lists none, those that it was given over this line."""
        if listed is not None and not self._greeted:
            self._greeted = True
            await self._take_back(listed)
        given = frozenset(self._given.items())
        held, lost = [], []
        for job_id, epoch in sorted(given if listed is None else listed):
            try:
                await self._perform(Renew(job_id, epoch))
                held.append(job_id)
            except JobError:
                lost.append(job_id)
        return {"held": held, "lost": lost}

    async def _take_back(self, listed: frozenset[tuple[str, int]]) -> None:
        """Take back what the agent neither lists nor was given over this line, which may still be on its way to it."""
        self._may_claim.clear()
        self._interrupt()
        async with self._handing:
            await self._perform(Hold(listed | frozenset(self._given.items())))
        if not self._over.done():
            self._interrupted = asyncio.get_running_loop().create_future()
        self._may_claim.set()

    def _interrupt(self) -> None:
        """End a claim that waits; what it takes just now is given back."""
        if not self._interrupted.done():
            self._interrupted.set_result(None)

    async def _pass_on(self, envelope: Envelope) -> dict[str, Any]:
        """Keep a message for another agent."""
        text = envelopes.message(envelope, self.name, time.time())
        if len(text) > MAX_MESSAGE_BYTES:
            raise MalformedError("message too large", status=413)
        await self._perform(Post(envelope.to, envelope.id, text))
        return {"status": "sent"}

    async def _hand_out(self) -> None:
        await self._recall()
        while not self._over.done():
            await self._recheck()
            self._room.clear()
            if len(self._held) >= self._slots:
                await self._room.wait()
                continue
            await self._may_claim.wait()
            async with self._handing:
                if job := await self._perform(Claim(_CLAIM_SECONDS), self._interrupted):
                    await self._give(job)

    async def _still_mine(self, job: Job) -> bool:
        """Whether a job is still the agent's: it may have been cancelled meanwhile."""
        now = await self._broker.queue.look(job.id)
        return now.status is Status.RUNNING and now.lease_epoch == job.lease_epoch

    async def _give(self, job: Job) -> None:
        if len(self._held) >= self._slots:
            await self._give_back(job, "its agent takes no more")
            return
        self._held.add(job.id)
        self._given[job.id] = job.lease_epoch
        self._hub.watch([job.id], self)
        if not await self._still_mine(job):
            self.free(job.id)
            return
        try:
            await self._send(envelopes.task(job, time.time()))
        except (WebSocketDisconnect, RuntimeError):  # Starlette's word for a line that we closed
            await self._give_back(job, "its agent had gone before it was sent")
            raise

    async def _give_back(self, job: Job, reason: str) -> None:
        with suppress(BrokerError):
            await self._broker.queue.release(job.id, Lease(job.worker, job.lease_epoch), reason)

    async def _tell_of_cancelled(self) -> None:
        while True:
            await self._send(envelopes.cancel(await self.cancelled.get(), time.time()))

    async def _bring_mail(self) -> None:
        while True:
            await self.mail.wait()
            self.mail.clear()
            while messages := await self._broker.messages.waiting(self.name, _MAIL_AT_ONCE):
                await self._recheck()
                for message in messages:
                    self._hub.count("out", "message")
                    await self._websocket.send_text(message.envelope)
                await self._confirm()
                await self._broker.messages.received(self.name, messages)

    async def _recheck(self) -> None:
        """See that the token is good still: before anything is taken, handed out or claimed."""
        await self._broker.recheck(self._caller)

    async def _perform(self, command: Any, hangup: asyncio.Future[None] | None = None) -> Any:
        # What has begun is done and noted, also where the line ends meanwhile.
        return await asyncio.shield(self._broker.perform(command, self._caller, hangup or self._over))

    async def _send(self, envelope: dict[str, Any]) -> None:
        self._hub.count("out", envelope["type"])
        await self._websocket.send_text(json.dumps(envelope))


class Pace:
    """Lets so many a second pass, with a burst; who is faster waits."""

    def __init__(self, per_second: float, burst: float) -> None:
        self._per_second = per_second
        self._burst = burst
        self._left = burst
        self._then = time.monotonic()

    async def take(self) -> None:
        """Wait for one's turn."""
        now = time.monotonic()
        self._left = min(self._burst, self._left + (now - self._then) * self._per_second) - 1
        self._then = now
        if self._left < 0:
            await asyncio.sleep(-self._left / self._per_second)
