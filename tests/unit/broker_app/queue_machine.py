"""Several clients on the real queue and store, step by step beside the model.

A step is a call of a client, a jump of the clock, a restart or a kill. Between `together` and `apart` calls are sent
and not answered, and then committed as one; a restart or a kill may come in between. A lost reply is a call that is
made again.
"""

from __future__ import annotations

import asyncio
import shutil
import tempfile
import threading
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from unittest import mock

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from broker_app.database import Database
from broker_app.errors import BrokerError
from broker_app.queue import queue as queue_module
from broker_app.queue.commands import Browse, Report, Submit
from broker_app.queue.job import Job, Lease, Route, Worker
from broker_app.queue.queue import Queue
from broker_app.queue.sqlite import SqliteStore
from broker_app.queue.store import Counts
from tests.unit.broker_app.conftest import Clock
from tests.unit.broker_app.queue_model import Model, RefusalError, seen

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Awaitable, Callable, Coroutine

LIMIT = 8
RETENTION = 500
_HANG_SECONDS = 100  # more than any step takes on a busy machine
_WAITERS = 3
_ALL = Browse(status=None, agent=None, limit=1000, before=None)

ORDERS = st.builds(
    Submit,
    command=st.just("ping"),
    payload=st.sampled_from(["", "p"]),
    requires=st.none(),
    route=st.builds(
        Route, st.sampled_from([None, None, None, "w1", "w2"]), st.sampled_from([frozenset(), frozenset("a")])
    ),
    max_deliveries=st.sampled_from([1, 1, 2, 5]),
    lease_seconds=st.sampled_from([60, 10]),
    dialect=st.just("jobs"),
    retry_seconds=st.sampled_from([0, 100]),
    priority=st.sampled_from([0, 0, 1, -1]),
    not_before=st.sampled_from([None, None, None, 999_000.0, 1_000_100.0]),
    idempotency_key=st.sampled_from([None, None, "k1", "k2"]),
)
SUBMITTERS = st.sampled_from([None, "bot"])
WORKERS = st.builds(
    Worker,
    name=st.sampled_from(["w1", "w2", None]),
    capabilities=st.sampled_from([frozenset("a"), frozenset("a"), frozenset()]),
    cordoned=st.sampled_from([False, False, False, False, True]),
)
JOBS = st.sampled_from([0, 0, 0, 1, 2, 5])
# What a worker says of the lease it holds: all that is true, nothing, an older epoch, another's name, no epoch.
HELD = st.sampled_from(["lease", "lease", "nothing", "older", "other", "name"])
LEASE_SECONDS = st.sampled_from([None, 30])


class Call(NamedTuple):
    """What a client asks, in the model's words."""

    name: str
    arguments: tuple[Any, ...]
    options: dict[str, Any]


class Sent(NamedTuple):
    """A call that is not answered yet (None: no client's), and when it was made."""

    task: asyncio.Future[Any]
    call: Call | None
    now: float


@dataclass
class Waiting:
    """A worker that waits for work; `over` once it must go without."""

    worker: Worker
    task: asyncio.Task[Job | None]
    hangup: asyncio.Future[None]
    over: bool = False


class Store(SqliteStore):
    """Knows whether somebody looks for work."""

    looking = 0

    async def claim(self, worker: Worker, transition: Callable[[Job], Job]) -> Job | None:
        self.looking += 1
        try:
            return await super().claim(worker, transition)
        finally:
            self.looking -= 1


class QueueMachine(RuleBasedStateMachine):
    """The steps, and what must be true after each."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.path = self.folder / "0" / "db"
        self.path.parent.mkdir()
        self.clock = Clock()
        self.model = Model(LIMIT, RETENTION)
        self.model.now = self.clock.now
        self.ids: dict[int, str] = {}
        self.before: dict[str, Job] = {}
        self.calls: list[Call] = []
        self.waiting: list[Waiting] = []
        self.answered: list[Waiting] = []
        self.gate: threading.Event | None = None
        self.sent: list[Sent] = []
        self.patches = ExitStack()
        # Nothing else is left to chance, and nothing waits for a disk: what a power cut leaves is for other tests.
        self.patches.enter_context(mock.patch.object(queue_module, "_RANDOM", mock.Mock(uniform=lambda *_: 1.0)))
        self.patches.enter_context(mock.patch.object(Database, "_synchronise", _never))
        self.runner = asyncio.Runner()
        self.run(self._open())

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        return self.runner.run(asyncio.wait_for(work, _HANG_SECONDS))

    def teardown(self) -> None:
        try:
            self.run(self._close())
        finally:
            self.runner.close()
            self.patches.close()
            shutil.rmtree(self.folder)

    # ─── Clients ───

    @initialize(orders=st.lists(ORDERS, min_size=1, max_size=3))
    def begin(self, orders: list[Submit]) -> None:
        self.ask("submit_all", tuple(orders), None)

    @rule(orders=st.lists(ORDERS, min_size=1, max_size=3), submitter=SUBMITTERS)
    def submit(self, orders: list[Submit], submitter: str | None) -> None:
        self.ask("submit_all", tuple(orders), submitter)

    @rule(worker=WORKERS, lease_seconds=LEASE_SECONDS)
    def claim(self, worker: Worker, lease_seconds: int | None) -> None:
        self.ask("claim", worker, lease_seconds=lease_seconds)

    @rule(worker=st.sampled_from(["w1", "w2"]))
    def claim_anything(self, worker: str) -> None:
        self.ask("claim", Worker(worker, frozenset("a")))

    @precondition(lambda self: self.ids)
    @rule(job=JOBS, held=HELD, lease_seconds=LEASE_SECONDS)
    def renew(self, job: int, held: str, lease_seconds: int | None) -> None:
        self.ask("renew", *self._held(job, held), lease_seconds)

    @precondition(lambda self: self.ids)
    @rule(
        job=JOBS,
        held=HELD,
        text=st.sampled_from(["", "t"]),
        offset=st.sampled_from([0, 1, None]),
        percent=st.sampled_from([None, 50]),
        note=st.sampled_from([None, "n"]),
    )
    def report(self, job: int, held: str, **said: Any) -> None:
        self.ask("report", *self._held(job, held), Report("", None, **said))

    @precondition(lambda self: self.ids)
    @rule(job=JOBS, held=HELD)
    def release(self, job: int, held: str) -> None:
        self.ask("release", *self._held(job, held))

    @precondition(lambda self: self.ids)
    @rule(job=JOBS, held=HELD, result=st.sampled_from(["r", "s"]))
    def finish(self, job: int, held: str, result: str) -> None:
        self.ask("finish", *self._held(job, held), result)

    @precondition(lambda self: self.ids)
    @rule(job=JOBS, held=HELD)
    def fail(self, job: int, held: str) -> None:
        self.ask("fail", *self._held(job, held), "e")

    @precondition(lambda self: self.ids)
    @rule(job=JOBS)
    def cancel(self, job: int) -> None:
        self.ask("cancel", self._pick(job, "running", "queued"), "enough")

    @precondition(lambda self: self.ids)
    @rule(job=JOBS)
    def requeue(self, job: int) -> None:
        self.ask("requeue", self._pick(job, "dead"))

    @rule(paused=st.sampled_from([False, False, True]))
    def pause(self, paused: bool) -> None:
        self.ask(*("pause", "why") if paused else ("resume",))

    @precondition(lambda self: not self.gate)
    @rule(agent=st.sampled_from(["w1", "w2"]), way=st.sampled_from(["hold", "hold some", "requeue", "cancel"]))
    def take_from(self, agent: str, way: str) -> None:
        if way.startswith("hold"):
            kept = {(job.n, job.lease_epoch) for job in self.model.jobs.values() if "some" in way and job.n % 2}
            self.ask("hold", agent, frozenset(kept))
        else:
            self.ask("disown", agent, "gone", requeue=way == "requeue")

    @precondition(lambda self: self.calls)
    @rule(number=st.integers(0, 3))
    def say_again(self, number: int) -> None:
        """The reply to one of the last calls was lost."""
        call = self.calls[-1 - number % len(self.calls)]
        if not (self.gate and call.name in ("hold", "disown")):
            self.ask(call.name, *call.arguments, **call.options)

    @precondition(lambda self: not self.gate and len(self.waiting) < _WAITERS)
    @rule(worker=WORKERS)
    def wait(self, worker: Worker) -> None:
        self.run(self._wait(worker))

    @precondition(lambda self: not self.gate and self.waiting)
    @rule(number=st.integers(0, _WAITERS - 1))
    def hang_up(self, number: int) -> None:
        waiting = self.waiting[number % len(self.waiting)]
        waiting.over = True
        self.run(self._hang_up(waiting))

    # ─── Time, and the broker itself ───

    @rule(seconds=st.sampled_from([1.0, 10.0, 60.0, 100.0, 501.0, -1.0, -60.0, -1000.0]))
    def jump(self, seconds: float) -> None:
        self.clock.now += seconds
        self.model.now = self.clock.now

    @precondition(lambda self: not self.gate)
    @rule()
    def reclaim(self) -> None:
        self._dismiss(self.model.losers())
        self.model.reclaim()
        self.run(self._settled(self.queue.reclaim()))

    @precondition(lambda self: not self.gate)
    @rule(late=st.sampled_from([0.0, 1.0, 500.0]))
    def wait_for_what_is_due(self, late: float) -> None:
        times = [job.lease_until or job.not_before for job in self.model.jobs.values() if not job.finished]
        self.jump(min(filter(None, times), default=self.clock.now) - self.clock.now + late)
        self.reclaim()

    @precondition(lambda self: not self.gate)
    @rule(later=st.sampled_from([0.0, RETENTION, RETENTION + 1.0]))
    def forget(self, later: float) -> None:
        self.jump(later)
        self.model.forget()
        self.run(self.queue.forget())

    @precondition(lambda self: not self.gate)
    @rule()
    def together(self) -> None:
        """Hold the writer up: what is asked now waits and is committed as one."""
        self.gate = threading.Event()
        self.run(self._hold_up(self.gate))

    @precondition(lambda self: self.gate)
    @rule(spoilt=st.booleans())
    def apart(self, spoilt: bool) -> None:
        """Commit what waits; spoilt, one more fails and ends the transaction for all."""
        self.run(self._settled(self._answers(spoilt=spoilt)))

    @rule(killed=st.booleans(), really=st.sampled_from([False, False, True]))
    def restart(self, killed: bool, really: bool) -> None:
        """Stopped, it answers what was sent. Killed, there is what is in its files: nothing of what waits."""
        if really:
            self.run(self._kill() if killed else self._restart())

    # ─── What must be true ───

    @invariant()
    def it_is_as_the_model_says(self) -> None:
        if not self.gate:
            self.run(self._compare())

    # ─── How ───

    def ask(self, name: str, *arguments: Any, **options: Any) -> None:
        call = Call(name, arguments, options)
        if not self.calls or self.calls[-1] != call:
            self.calls.append(call)
        if name == "hold":
            self._dismiss({arguments[0]})
        work = self._on_queue(call)
        if self.gate:
            self.run(self._send(work, call))
        else:
            self.run(self._settled(self._answer(work, self._expected(call, self.model.now))))

    def _expected(self, call: Call, now: float) -> Any:
        """What the model answers to a call that was made then."""
        with mock.patch.object(self.model, "now", now):
            try:
                return _told(getattr(self.model, call.name)(*call.arguments, **call.options))
            except RefusalError as refusal:
                return str(refusal)

    def _on_queue(self, call: Call) -> Awaitable[Any]:
        """The call in the real queue's words."""
        arguments = list(call.arguments)
        if call.name in ("renew", "report", "release", "finish", "fail", "cancel", "requeue"):
            arguments[0] = self.ids[arguments[0]]
        if call.name == "report":
            job_id, lease, report = arguments
            arguments = [replace(report, job_id=job_id), lease]
        if call.name == "hold":
            arguments[1] = frozenset((self.ids[n], epoch) for n, epoch in arguments[1])
        work: Awaitable[Any] = getattr(self.queue, call.name)(*arguments, **call.options)
        return self._in_order(work) if call.name in ("hold", "disown") else work

    async def _in_order(self, work: Awaitable[tuple[Job, ...]]) -> tuple[Job, ...]:
        """The jobs by their numbers: in which order they come is not promised."""
        numbers = {job_id: n for n, job_id in self.ids.items()}
        return tuple(sorted(await work, key=lambda job: numbers[job.id]))

    def _pick(self, number: int, *states: str) -> int:
        """Of the jobs that a client knows: first those in such a state, then the others, also those gone since."""

        def other(n: int) -> bool:
            job = self.model.jobs.get(n)
            return job is None or not {job.status, job.outcome} & {*states}

        known = sorted(self.ids, key=lambda n: (other(n), -n))
        return known[number % len(known)]

    def _held(self, number: int, held: str) -> tuple[int, Lease]:
        n = self._pick(number, "running")
        job = self.model.jobs.get(n)
        worker, epoch = (job.worker, job.lease_epoch) if job else ("w1", 1)
        leases = {
            "lease": Lease(worker, epoch),
            "nothing": Lease(),
            "older": Lease(worker, epoch - 1),
            "other": Lease("w3", epoch),
            "name": Lease(worker),
        }
        return n, leases[held]

    async def _open(self) -> None:
        self.database = Database(self.path)
        self.store = await Store.open(self.database)
        self.queue = Queue(self.store, self.clock, max_unfinished=LIMIT, retention_seconds=RETENTION)

    async def _close(self) -> None:
        self._dismiss({waiting.worker.name for waiting in self.waiting})
        self.queue.stop_waiting()
        closing = asyncio.create_task(self.database.close())
        await asyncio.sleep(0)
        if self.gate:
            self.gate.set()
        await closing
        await asyncio.gather(*(sent.task for sent in self.sent), return_exceptions=True)

    async def _restart(self) -> None:
        await self._settled(self._close())
        await self._answers()
        await self._open()

    async def _kill(self) -> None:
        copy = self.folder / str(int(self.path.parent.name) + 1) / "db"
        copy.parent.mkdir()
        for end in ("", "-wal"):
            shutil.copy(f"{self.path}{end}", f"{copy}{end}")
        await self._close()
        await self._settled(asyncio.sleep(0))
        self.sent, self.gate, self.path = [], None, copy
        await self._open()

    async def _send(self, work: Awaitable[Any], call: Call | None) -> None:
        self.sent.append(Sent(asyncio.ensure_future(work), call, self.clock.now))
        # Until it is with the writer.
        for _ in range(3):
            await asyncio.sleep(0)

    async def _hold_up(self, gate: threading.Event) -> None:
        loop, held = asyncio.get_running_loop(), asyncio.Event()

        def hold(_: sqlite3.Connection) -> None:
            loop.call_soon_threadsafe(held.set)
            gate.wait(_HANG_SECONDS)

        await self._send(self._write(hold), None)
        # Else it would be committed with what follows, or not, as the threads have it.
        await held.wait()

    async def _answers(self, *, spoilt: bool = False) -> None:
        if spoilt:
            await self._send(self._write(_fail), None)
        if self.gate:
            self.gate.set()
        sent, self.sent, self.gate = self.sent, [], None
        for task, call, now in sent:
            if call is None:
                await asyncio.wait([task])
                assert task.exception() is None or spoilt
            else:
                await self._answer(task, self._expected(call, now))

    async def _answer(self, work: Awaitable[Any], expected: Any) -> None:
        try:
            answer = _told_real(await work)
        except BrokerError as error:
            answer = type(error).__name__
        if not isinstance(expected, list) or not isinstance(answer, list):
            assert answer == expected
            return
        assert len(answer) == len(expected)
        for job, (n, facts) in zip(answer, expected, strict=True):
            self._know(n, job)
            assert seen(job) == facts

    async def _write(self, operation: Callable[[sqlite3.Connection], Any]) -> Any:
        return await self.database.write(operation)

    def _know(self, n: int, job: Job) -> None:
        """That job is the model's of that number, and no other's."""
        assert self.ids.setdefault(n, job.id) == job.id
        assert len(set(self.ids.values())) == len(self.ids)

    def _dismiss(self, names: set[str | None]) -> None:
        for waiting in self.waiting:
            waiting.over |= waiting.worker.name in names

    async def _wait(self, worker: Worker) -> None:
        hangup: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        task = asyncio.create_task(self.queue.claim(worker, wait=1e6, hangup=hangup))
        waiting = Waiting(worker, task, hangup)
        task.add_done_callback(lambda _: self.answered.append(waiting))
        self.waiting.append(waiting)
        await self._settled(asyncio.sleep(0))

    async def _hang_up(self, waiting: Waiting) -> None:
        waiting.hangup.set_result(None)
        await self._settled(asyncio.sleep(0))

    async def _settled(self, work: Awaitable[Any]) -> None:
        """Do the work, wait until nobody looks for a job any more, and see that each who waits was served rightly."""
        await work
        idle = 0
        while idle < 10:
            await asyncio.sleep(0)
            idle = 0 if self.store.looking else idle + 1
        answered, self.answered = self.answered, []
        for waiting in answered:
            self.waiting.remove(waiting)
            job = waiting.task.result()
            if not waiting.over:
                assert job is not None
                await self._answer(_ready(job), _told(self.model.claim(waiting.worker)))
            else:
                assert job is None
        for waiting in self.waiting:
            assert not waiting.over
            assert self.gate or self.model.first(waiting.worker) is None

    async def _compare(self) -> None:
        page = await self.queue.browse(_ALL)
        jobs = {job.id: job for job in reversed(page.jobs)}
        assert list(jobs) == [self.ids[n] for n in self.model.jobs]
        assert {job.id: seen(job) for job in page.jobs} == {
            self.ids[job.n]: job.seen() for job in self.model.jobs.values()
        }
        await self._compare_counts(list(jobs.values()))
        for job in self.model.jobs.values():
            events = await self.store.events(self.ids[job.n], 0, 100) if job.told else ()
            assert [event[1:] for event in job.told] == [(e.offset, e.text, e.percent, e.note) for e in events]
        self._compare_before(jobs)

    async def _compare_counts(self, jobs: list[Job]) -> None:
        ready = [job for job in jobs if job.ready]
        running = [job for job in jobs if job.status == "running"]
        counted = Counts(
            ready=len(ready),
            delayed=sum(job.status == "queued" for job in jobs) - len(ready),
            running=len(running),
            dead=sum(job.outcome == "dead" for job in jobs),
            oldest=ready[0].created_at if ready else None,
        )
        assert await self.queue.counts() == counted
        assert {id_ for ids in (await self.queue.running()).values() for id_ in ids} == {
            job.id for job in running if job.worker
        }
        assert (self.queue.paused() is not None) == self.model.paused

    def _compare_before(self, jobs: dict[str, Job]) -> None:
        """What holds whatever the model says: of ends, epochs and charges."""
        for old in self.before.values():
            job = jobs.get(old.id)
            if job is None:
                assert old.finished
                continue
            assert job.lease_epoch >= old.lease_epoch
            if old.finished:
                assert job == old or (old.outcome == "dead" and job.attempts == job.lease_epoch - old.lease_epoch)
            if job.status == "running" and job.lease_epoch == old.lease_epoch:
                assert (old.status, old.worker, old.started_at) == ("running", job.worker, job.started_at)
            assert 0 <= job.attempts <= min(job.max_deliveries, job.lease_epoch)
        self.before = jobs


def _told(answer: Any) -> Any:
    """What the model answers, as it is now: the number and the looks of each job."""
    if answer is None:
        return None
    return [(job.n, job.seen()) for job in (answer if isinstance(answer, list) else [answer])]


def _told_real(answer: Any) -> Any:
    if isinstance(answer, Job):
        return [answer]
    return list(answer) if isinstance(answer, tuple) else answer


def _never(database: Database, _level: str) -> None:
    database._writer.execute("PRAGMA synchronous=OFF")


def _fail(connection: sqlite3.Connection) -> None:
    connection.execute("UPDATE jobs SET status = 'queued', not_before = 5, worker = NULL")
    raise ZeroDivisionError


async def _ready(job: Job) -> Job:
    return job
