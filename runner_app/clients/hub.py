"""The hub dialect as an agent speaks it: one WebSocket, over which tasks come and reports go."""

import asyncio
import json
import logging
import time
import uuid
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, WebSocketException

from runner_app.clients.backoff import Backoff
from runner_app.clients.client import (
    BrokerError,
    LeaseLostError,
    RefusedError,
    Tell,
    UnauthorizedError,
    UnavailableError,
)
from runner_app.clients.identity import Identity
from runner_app.clients.objects import kept
from runner_app.job import Job
from runner_app.live import Live

HEALTH_SECONDS = 30
_HUB = "hub"
_ANSWER_SECONDS = 10
_LOG_SECONDS = 1  # no job waits longer for its lines to be sent
_AT_LEAST_SECONDS = 2  # a job that waits is on its way when the line opens, and no call asks for it
_MOST_BYTES = 4 * 1024 * 1024
_MOST_SENT_BYTES = 512 * 1024  # more than the hub takes ends the line, and each that follows
_REVOKED = 128  # more than an agent can be given at once
_LEASE_SECONDS = 60  # where a task does not say
_REFUSALS = {4401, 4403}
_OURS = {"type", "taskId", "leaseEpoch", "leaseSeconds", "maxDeliveries"}

_CUT = "the line to the broker was cut"

_log = logging.getLogger(__name__)


class Line:
    """One WebSocket: envelopes go out, and each is answered by one with its id."""

    def __init__(self, socket: ClientConnection, name: str, slots: int, revoke: Callable[[list[Any]], None]) -> None:
        self._socket = socket
        self._name = name
        self._revoke = revoke
        self._asked: dict[str, asyncio.Future[dict[str, Any]]] = {}
        self.slots = slots
        self.told = False
        self.tasks: deque[tuple[float, dict[str, Any]]] = deque()
        self.news = asyncio.Event()

    @property
    def is_open(self) -> bool:
        """Whether anything may come yet."""
        return self._socket.close_code is None

    async def close(self) -> None:
        """Close it; what comes next is another one."""
        await self._socket.close()
        self.news.set()

    async def listen(self) -> None:
        """Take what comes until the line ends.

        Raises:
            ConnectionClosed: Always.
        """
        try:
            while True:
                self._take(await self._socket.recv())
        finally:
            self.news.set()
            for answer in self._asked.values():
                if not answer.done():
                    answer.set_exception(UnavailableError(_CUT))

    async def send(self, kind: str, payload: dict[str, Any]) -> str:
        """Send an envelope to the hub, and return its id.

        Raises:
            RefusedError: It is larger than an envelope may be.
            UnavailableError: The line is cut.
        """
        envelope = {"id": str(uuid.uuid4()), "from": self._name, "to": _HUB, "type": kind}
        text = json.dumps({**envelope, "timestamp": int(time.time() * 1000), "payload": payload}, ensure_ascii=False)
        if (size := len(text.encode())) > _MOST_SENT_BYTES:
            raise RefusedError(f"a {kind} of {size} bytes is larger than an envelope may be", 413)
        try:
            await self._socket.send(text)
        except ConnectionClosed as error:
            raise UnavailableError(_CUT) from error
        return envelope["id"]

    async def ask(self, kind: str, payload: dict[str, Any], seconds: float = _ANSWER_SECONDS) -> dict[str, Any]:
        """Send an envelope, and return what the hub's ack says.

        Raises:
            BrokerError: It says something else, or nothing in time.
        """
        answer: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        sent = ""
        try:
            async with asyncio.timeout(seconds):
                sent = await self.send(kind, payload)
                self._asked[sent] = answer
                return await answer
        except TimeoutError as error:
            raise UnavailableError(f"the broker did not answer a {kind} within {seconds:g} s") from error
        finally:
            self._asked.pop(sent, None)

    async def log(self, job: Job, lines: list[str]) -> None:
        """Tell what a job has written; where the line is cut just now, nobody hears it."""
        with suppress(UnavailableError, TimeoutError):
            async with asyncio.timeout(_LOG_SECONDS):
                await self.send("log", {"taskId": job.id, "lines": lines})

    def _take(self, text: str | bytes) -> None:
        try:
            envelope = json.loads(text)
            kind, payload = envelope["type"], envelope["payload"]
            sender = envelope["from"]
            answered = payload.get("id") if kind in {"ack", "error"} else None
        except (ValueError, LookupError, TypeError, AttributeError):
            _log.warning("something that is no envelope came from the broker")
            return
        if sender != _HUB:
            _log.info("%s sent a message; there is nobody here to read it", str(sender)[:100])
        elif kind == "task":
            self.tasks.append((_now(), payload))
            self.news.set()
        elif kind == "cancel":
            self._revoke([payload])
        elif (answer := self._asked.get(str(answered))) and not answer.done():
            if kind == "ack":
                answer.set_result(payload)
            else:
                answer.set_exception(_error(payload))


class HubClient:
    """A ``Client`` that keeps a line open, with growing pauses between its tries.

    A line begins with what is held (``leases`` says it), and the broker takes back the rest. Until ``held`` was called
    first it has no slots: reports go over it, and no task comes.
    """

    def __init__(
        self,
        url: str,
        identity: Identity,
        *,
        slots: int,
        leases: Callable[[], Iterable[tuple[str, int]]],
        health: Callable[[], dict[str, float]],
    ) -> None:
        self._url = f"{url.replace('http', 'ws', 1)}/agent/{identity.worker_id}"
        self._identity = identity
        self._wanted_slots = slots
        self._slots = 0
        self._leases = leases
        self._health = health
        self._measures: dict[str, float] = {}
        self._line: Line | None = None
        self._open_since: float | None = None
        self._tried = asyncio.Event()
        # Kept for a while: a job may be cancelled before anybody asks.
        self._revoked: deque[tuple[Any, Any]] = deque(maxlen=_REVOKED)
        self._revocation = asyncio.Event()
        self._why: UnavailableError = UnavailableError(f"there is no line to the broker at {url} yet")
        self.doubt = asyncio.Event()

    async def __aenter__(self) -> Self:
        self._group = await asyncio.TaskGroup().__aenter__()  # a fault that ends the keeper ends its user, too
        self._keeper = self._group.create_task(self._keep())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.enough()
        while self._line and self._line.tasks:
            with suppress(BrokerError, ValueError):
                await self.release(_job(self._line.tasks.popleft()[1]), "its runner was stopped before it took it")
        self._keeper.cancel()
        await self._group.__aexit__(None, None, None)

    async def next_job(self, wait: float) -> Job | None:
        """Take a task that came, waiting for one.

        Raises:
            BrokerError: The line is cut, or what came waited here too long and cannot be given back.
            ValueError: What came is no task; the text names the key.
        """
        line = self._open_line()
        with suppress(TimeoutError):
            async with asyncio.timeout(max(wait, _AT_LEAST_SECONDS)):
                while line.is_open and not line.tasks:
                    line.news.clear()
                    await line.news.wait()
        if not line.is_open:
            raise UnavailableError(_CUT)
        if not line.tasks:
            return None
        # From here on nothing is awaited before a job that is taken: it must be in the journal before another line says
        # what is held.
        came, task = line.tasks.popleft()
        job = _job(task)
        if _now() - came > job.lease_seconds / 12:
            await self.release(job, "it waited in its runner too long")
            return await self.next_job(wait)  # over this line: another one would lose what is given anew
        return job

    async def held(self, leases: Iterable[tuple[str, int]]) -> None:
        """Have a line that has begun with what is held, which ``leases`` repeats, since this was called last.

        Raises:
            UnavailableError: There is none.
        """
        self._slots = self._wanted_slots
        line = await self._until_open()
        if line.told or line.slots != self._slots:
            await line.close()
            line = await self._until_open()
        line.told = True

    async def heartbeat(self, job: Job) -> None:
        """Renew the lease for its whole length.

        Raises:
            BrokerError: See there.
        """
        health = {**self._measures, "tasks": _listed([(job.id, job.lease_epoch)])}
        # After a later answer the dead-man timer, set anew from then, could outlast the lease.
        answer = await self._open_line().ask("health", health, min(_ANSWER_SECONDS, job.lease_seconds / 12))
        if job.id not in answer.get("held", ()):
            raise LeaseLostError("the broker holds the lease to be lost")

    async def revoked(self, job: Job) -> str:
        """Wait until the hub says that the job was cancelled, or that it does not count as held."""
        while (job.id, job.lease_epoch) not in self._revoked:
            self._revocation.clear()
            await self._revocation.wait()
        return "the hub says so"

    def live(self, job: Job, directory: Path, *, adopted: bool) -> Tell:
        """Return what tells the lines that a job writes, while there is a line; what was not told waits for one."""
        live = Live(directory, from_now=adopted)

        async def tell(*, ended: bool) -> None:
            if (line := self._line) and (new := live.lines(ended=ended)):
                await line.log(job, new)

        return tell

    async def result(self, job: Job, text: str) -> None:
        """Report success.

        Raises:
            BrokerError: See there.
        """
        await self._respond(job, success=True, result=text)

    async def fail(self, job: Job, text: str) -> None:
        """Report failure, which is final unless the job says otherwise.

        Raises:
            BrokerError: See there.
        """
        await self._respond(job, success=False, error=text)

    async def release(self, job: Job, reason: str) -> None:
        """Give the job back, to be delivered again without a charge.

        Raises:
            BrokerError: See there.
        """
        await self._respond(job, released=True, reason=reason[:200])

    async def enough(self) -> None:
        """Have no more tasks sent over this line, nor over a later one."""
        self._wanted_slots = self._slots = 0
        if self._line is not None:
            with suppress(BrokerError):  # a line that is cut brings nothing either
                await self._line.ask("health", {**self._measures, "tasks": [], "slots": 0})

    def let_go(self) -> None:
        """Doubt: the broker thinks that a job which was let go is ours."""
        self.doubt.set()

    async def _respond(self, job: Job, **facts: Any) -> None:
        await self._open_line().ask("response", {"taskId": job.id, "leaseEpoch": job.lease_epoch, **facts})

    def _revoke(self, tasks: list[dict[str, Any]]) -> None:
        """Note tasks that are ours no more."""
        self._revoked.extend((task.get("taskId"), task.get("leaseEpoch")) for task in tasks)
        self._revocation.set()

    def _open_line(self) -> Line:
        if self._line is None:
            raise self._why
        return self._line

    async def _until_open(self) -> Line:
        """Wait until a try succeeds, or say why it did not."""
        if self._line is None or not self._line.is_open:
            self._tried.clear()
            with suppress(TimeoutError):
                await asyncio.wait_for(self._tried.wait(), _ANSWER_SECONDS)
        return self._open_line()

    async def _keep(self) -> None:
        backoff = Backoff(first=0.5, most=HEALTH_SECONDS)
        while True:
            self._open_since = None
            try:
                await self._converse()
            except (WebSocketException, OSError, TimeoutError, BrokerError) as error:
                self._why = _cut(error, self._url)
                _log.warning("%s", self._why)
            if self._open_since is None:
                self._tried.set()
            elif _now() - self._open_since > HEALTH_SECONDS:
                backoff.reset()
            await asyncio.sleep(backoff.next())

    async def _converse(self) -> None:
        """Open a line, say what is held, and keep it until it ends."""
        slots = self._slots  # `held` may change it meanwhile
        headers = self._identity.headers() | {"Authorization": f"Bearer {self._identity.token}"}
        async with connect(
            f"{self._url}?slots={slots}",
            additional_headers=headers,
            proxy=None,
            compression=None,
            max_size=_MOST_BYTES,
            ping_interval=5,
            ping_timeout=5,
            close_timeout=2,
        ) as socket:
            line = Line(socket, self._identity.worker_id, slots, self._revoke)
            parts = [asyncio.create_task(line.listen()), asyncio.create_task(self._tell_health(line))]
            try:
                done, _ = await asyncio.wait(parts, return_when=asyncio.FIRST_COMPLETED)
                # Why the line ended goes before what could not be said over it.
                (parts[0] if parts[0] in done or not line.is_open else done.pop()).result()
            finally:
                self._line = None
                for part in parts:
                    part.cancel()
                await asyncio.gather(*parts, return_exceptions=True)

    async def _tell_health(self, line: Line) -> None:
        listed = _listed(self._leases())
        while True:
            self._measures = self._health()
            answer = await line.ask("health", {**self._measures, "tasks": listed})
            self._revoke([task for task in listed if task["taskId"] in answer.get("lost", ())])
            listed = []  # whoever sees to a claim renews it; one that nobody sees to is to be lost
            if self._line is None:
                _log.info("the broker knows what is held")
                self._line, self._open_since = line, _now()
                self._tried.set()
            await asyncio.sleep(HEALTH_SECONDS)


def _listed(leases: Iterable[tuple[str, int]]) -> list[dict[str, Any]]:
    return [{"taskId": job_id, "leaseEpoch": epoch} for job_id, epoch in leases]


def _job(task: dict[str, Any]) -> Job:
    return Job.parse(
        {
            "id": task.get("taskId"),
            "command": task.get("type"),
            "payload": kept({key: value for key, value in task.items() if key not in _OURS}),
            "lease_epoch": task.get("leaseEpoch"),
            "lease_seconds": task.get("leaseSeconds", _LEASE_SECONDS),
            "max_deliveries": task.get("maxDeliveries"),
        }
    )


def _error(payload: dict[str, Any]) -> BrokerError:
    text = str(payload.get("error"))[:300]
    return LeaseLostError(text) if "taskId" in payload else RefusedError(f"the broker says {text}", 0)


def _cut(error: Exception, url: str) -> UnavailableError:
    if isinstance(error, ConnectionClosed):
        if error.rcvd is None or not error.rcvd_then_sent:
            return UnavailableError(f"the line to the broker at {url} was cut")
        if error.rcvd.code in _REFUSALS:
            return UnauthorizedError(f"the broker refuses this worker: {error.rcvd.reason}")
        return UnavailableError(f"the broker closed the line: {error.rcvd.code} {error.rcvd.reason}")
    if isinstance(error, BrokerError):
        return UnavailableError(f"the line to the broker at {url} does not hold: {error}")
    return UnavailableError(f"the broker at {url} does not answer: {error or type(error).__name__}")


def _now() -> float:
    """Return seconds that go on while this process or the machine is stopped."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)
