"""The queue: the transitions of `job.py` on a store, with a clock, waiters, and its own timer for leases."""

from __future__ import annotations

import asyncio
import dataclasses
import hashlib
import logging
import operator
import uuid
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from secrets import SystemRandom
from typing import TYPE_CHECKING

from broker_app.errors import BatchTooLargeError
from broker_app.queue import job as transitions
from broker_app.queue.job import Job, Lease, Route, Worker
from broker_app.queue.rate import RateLimit
from broker_app.queue.store import Event, Pause
from broker_app.queue.waiting import Waiter, Waiters

if TYPE_CHECKING:
    from collections.abc import Iterator

    from broker_app.queue.commands import Browse, Follow, Report, Submit
    from broker_app.queue.store import Counts, Listener, Page, Store

_RANDOM = SystemRandom()
_LOG = logging.getLogger(__name__)
_LONGEST_SLEEP = 1.0
_SHORTEST_SLEEP = 0.02
_JITTER = 0.1

Clock = Callable[[], float]


class Queue:
    """One queue over one store.

    Args:
        store: Where jobs are kept.
        clock: Seconds since the epoch.
        max_unfinished: How many jobs may be queued or running, 0 for any number.
        per_minute: How many jobs one submitter may submit a minute, 0 for any number.
        retention_seconds: How long after their end jobs are kept, 0 for ever.

    Attributes:
        tally: What happened since the start, for the metrics.
    """

    def __init__(
        self,
        store: Store,
        clock: Clock,
        *,
        max_unfinished: int = 0,
        per_minute: int = 0,
        retention_seconds: int = 0,
    ) -> None:
        self._store = store
        self._clock = clock
        self._retention_seconds = retention_seconds
        self._max_unfinished = max_unfinished
        self._max_batch = min(filter(None, (max_unfinished, per_minute)), default=0)
        self._rate = RateLimit(per_minute)
        self._waiters = Waiters()
        self.tally: Counter[str] = Counter()
        self._loss_listeners: list[Callable[[frozenset[str | None]], None]] = []
        store.listen(self._on_change)

    async def submit(self, order: Submit, submitter: str | None = None) -> Job:
        """Queue a job. It is on disk when this returns.

        Raises:
            QueueFullError: As many jobs as allowed are unfinished.
            TooManySubmissionsError: The submitter used up its minute's share.
            KeyReusedError: Its idempotency key stands for another submission.
        """
        (job,) = await self.submit_all((order,), submitter)
        return job

    async def submit_all(self, orders: tuple[Submit, ...], submitter: str | None = None) -> tuple[Job, ...]:
        """Queue jobs, all or none. They are on disk when this returns.

        Raises:
            QueueFullError: More jobs than allowed would be unfinished.
            TooManySubmissionsError: The submitter used up its minute's share.
            KeyReusedError: An idempotency key of the submitter's stands for another submission.
            BatchTooLargeError: However often they are submitted, a limit is below their number.
        """
        if 0 < self._max_batch < len(orders):
            raise BatchTooLargeError(self._max_batch)
        now = self._clock()
        self._rate.admit(submitter, now, len(orders))
        new = tuple(_job(order, submitter, now) for order in orders)
        kept = await self._store.add(new, limit=self._max_unfinished)
        self.tally["jobs_submitted"] += sum(map(operator.is_, new, kept))
        return kept

    async def claim(
        self,
        worker: Worker,
        *,
        wait: float = 0.0,
        lease_seconds: int | None = None,
        hangup: asyncio.Future[None] | None = None,
    ) -> Job | None:
        """Lease the oldest job that the worker may run.

        Args:
            worker: Who asks.
            wait: Seconds to wait for a job.
            lease_seconds: How long the lease is, if not as long as the job says.
            hangup: Ends the wait when done.

        Returns:
            The job, or None when there was none.
        """
        if wait <= 0:
            return await self._take(worker, lease_seconds)
        deadline = asyncio.get_running_loop().time() + wait
        with self._waiters.for_work(worker) as waiter:
            _stop_on(hangup, waiter)
            offer = job = None
            try:
                while True:
                    # The waiter is known before each look: a job that comes after the look rings it.
                    offer = waiter.answer()
                    job = await self._take(worker, lease_seconds)
                    if waiter.dismissed:
                        await self._give_back(job)
                        return None
                    if job is not None or not await waiter.wait(deadline):
                        return job
            finally:
                waiter.stop()
                for missed in (offer, waiter.offer):
                    if missed is not None and (job is None or job.id != missed.id):
                        self._waiters.offer(missed)

    async def look(self, job_id: str, *, wait: float = 0.0, hangup: asyncio.Future[None] | None = None) -> Job:
        """Read a job, waiting up to `wait` seconds for its end or for `hangup`.

        Raises:
            JobNotFoundError: There is no such job.
        """
        if wait <= 0:
            return await self._store.get(job_id)
        deadline = asyncio.get_running_loop().time() + wait
        with self._waiters.for_job(job_id) as waiter:
            _stop_on(hangup, waiter)
            while True:
                waiter.answer()
                job = await self._store.get(job_id)
                if job.finished or not await waiter.wait(deadline):
                    return job

    async def follow(
        self, query: Follow, *, hangup: asyncio.Future[None] | None = None
    ) -> tuple[Job, tuple[Event, ...], int]:
        """Read what a job reported after an event, waiting up to `query.wait` seconds for more, its end or `hangup`.

        It waits no longer when the job's status has changed either. With the events comes the number after which to
        go on.

        Raises:
            JobNotFoundError: There is no such job.
        """
        deadline = asyncio.get_running_loop().time() + query.wait
        known = query.status
        with self._waiters.for_job(query.job_id) as waiter:
            _stop_on(hangup, waiter)
            while True:
                waiter.answer()
                job = await self._store.get(query.job_id)
                known = known or job.status
                events = await self._store.events(query.job_id, query.after, query.limit)
                if events or job.finished or job.status is not known or not await waiter.wait(deadline):
                    return job, events, events[-1].n if events else query.after

    async def report(self, command: Report, lease: Lease) -> Job:
        """Keep what a job's worker reports. Raises as `job.report`, and JobNotFoundError."""
        return await self._store.report(
            command.job_id,
            lambda job: transitions.report(job, lease, command.percent, command.note),
            tuple(_events(command, self._clock())),
        )

    async def renew(self, job_id: str, lease: Lease, lease_seconds: int | None = None) -> Job:
        """Extend a lease. Raises as `job.renew`, and JobNotFoundError."""
        now = self._clock()
        return await self._store.change(
            job_id, lambda job: transitions.renew(job, lease, now, lease_seconds), durable=False
        )

    async def release(self, job_id: str, lease: Lease, reason: str = "") -> Job:
        """Put a job back at the head. Raises as `job.release`, and JobNotFoundError."""
        job = await self._store.change(job_id, lambda job: transitions.release(job, lease))
        _LOG.info("job %s given back by %s: %s", job_id, lease.worker, reason or "no reason given")
        return job

    async def hold(self, worker: str, leases: frozenset[tuple[str, int]]) -> tuple[Job, ...]:
        """Take back what a worker runs beside these leases, as at the lease's end; returns those jobs.

        Its waiting claims end first, without a job: whoever waits there has no ear any more. What one of them took
        just then is not charged, since it reached nobody.
        """
        await self._waiters.dismiss({worker})
        now = self._clock()
        jobs = await self._store.take_back(worker, leases, partial(transitions.expire, now=now))
        self.tally["leases_lost"] += len(jobs)
        for job in jobs:
            _LOG.warning("not held by %s: job %s (%s) is %s", worker, job.id, job.command, job.outcome or job.status)
        return jobs

    async def finish(self, job_id: str, lease: Lease, result: str) -> Job:
        """End a job with its result. Raises as `job.finish`, and JobNotFoundError."""
        now = self._clock()
        job = await self._store.change(job_id, lambda job: transitions.finish(job, lease, result, now))
        self.tally["jobs_done"] += job.finished_at == now
        return job

    async def fail(self, job_id: str, lease: Lease, error: str, *, undelivered: bool = False) -> Job:
        """End a job with an error, or put it off. Raises as `job.fail`, and JobNotFoundError."""
        now, stretch = self._clock(), _RANDOM.uniform(1 - _JITTER, 1 + _JITTER)
        return await self._store.change(
            job_id, lambda job: transitions.fail(job, lease, error, now, stretch, undelivered=undelivered)
        )

    async def cancel(self, job_id: str, reason: str) -> Job:
        """End a job that nobody wants any more; its worker hears of it at its next call. Raises JobNotFoundError."""
        now = self._clock()
        return await self._store.change(job_id, lambda job: transitions.cancel(job, reason, now))

    async def requeue(self, job_id: str) -> Job:
        """Queue a dead job again. Raises as `job.requeue`, and JobNotFoundError."""
        return await self._store.change(job_id, transitions.requeue)

    async def disown(self, agent: str, reason: str, *, requeue: bool) -> tuple[Job, ...]:
        """Cancel the queued jobs that name an agent, or leave them to others if `requeue`; returns those jobs."""
        now = self._clock()
        change = transitions.open_up if requeue else partial(transitions.cancel, reason=reason, now=now)
        disowned: list[Job] = []
        while jobs := await self._store.disown(agent, change):
            disowned += jobs
        return tuple(disowned)

    async def pause(self, reason: str) -> None:
        """Deliver nothing until `resume`. What is running goes on."""
        await self._store.pause(Pause(self._clock(), reason))

    async def resume(self) -> None:
        """Deliver jobs again, to whoever waits first."""
        await self._store.pause(None)
        self._waiters.look_again()

    def paused(self) -> Pause | None:
        """The pause, if there is one."""
        return self._store.paused()

    async def forget(self) -> None:
        """Remove the jobs that ended longer ago than they are kept."""
        if self._retention_seconds:
            while await self._store.forget(self._clock() - self._retention_seconds):
                pass

    async def browse(self, query: Browse) -> Page:
        """Read jobs, newest first."""
        return await self._store.browse(query)

    async def counts(self) -> Counts:
        """How much there is to do."""
        return await self._store.counts()

    async def running(self) -> dict[str, list[str]]:
        """Ids of the running jobs of each named worker."""
        return await self._store.running()

    async def dismiss(self, worker: str) -> None:
        """End what a worker waits for, without a job."""
        await self._waiters.dismiss({worker})

    def listen(self, listener: Listener) -> None:
        """Have every changed job announced, once the change is committed."""
        self._store.listen(listener)

    def on_loss(self, listener: Callable[[frozenset[str | None]], None]) -> None:
        """Have the workers announced whose leases have ended, before the jobs are anybody else's."""
        self._loss_listeners.append(listener)

    @property
    def stopped(self) -> bool:
        """Whether nobody can wait any more."""
        return self._waiters.stopped

    def stop_waiting(self) -> None:
        """Answer everybody who waits, and let nobody wait from now on."""
        self._waiters.stop()

    async def keep_time(self) -> None:
        """Take back lost leases when they end, and bring jobs back for their next try, for ever."""
        while True:
            try:
                pause = await self.reclaim()
            except Exception as error:
                # Without this timer jobs would be stuck, so nothing may end it.
                _LOG.error("cannot take back lost leases, trying again: %r", error)
                pause = _LONGEST_SLEEP
            await asyncio.sleep(pause)

    async def reclaim(self) -> float:
        """Take back the leases that have ended, and make ready what is tried again; returns the time to the next look.

        The waiting claims of the workers that lost them end first, without a job: the kernel keeps the connection of
        a worker that hangs, or is cut off, so a call from before the loss is no sign of life. Who lives calls again.

        The pause is at most one second, the shortest lease: one granted after the look is seen in time.
        """
        while True:
            now = self._clock()
            due = await self._store.next_due()
            if due is None:
                return _LONGEST_SLEEP
            if due > now:
                return min(max(due - now, _SHORTEST_SLEEP), _LONGEST_SLEEP)
            losers = await self._store.losers(now)
            for listener in self._loss_listeners:
                listener(losers)
            await self._waiters.dismiss(losers)
            for job in await self._store.take_due(now, partial(transitions.fall_due, now=now)):
                if job.finished or (
                    job.lease_epoch and job.error is None
                ):  # a failed try leaves its error; one for later was never leased
                    self.tally["leases_lost"] += 1
                    _LOG.warning("lease lost: job %s (%s) is %s", job.id, job.command, job.outcome or job.status)

    async def _take(self, worker: Worker, lease_seconds: int | None) -> Job | None:
        now = self._clock()
        job = await self._store.claim(worker, lambda job: transitions.deliver(job, worker.name, now, lease_seconds))
        self.tally["jobs_delivered"] += job is not None
        return job

    async def _give_back(self, job: Job | None) -> None:
        if job is not None:
            await self.release(job.id, Lease(job.worker, job.lease_epoch), "its worker waits for it no longer")

    def _on_change(self, job: Job) -> None:
        if job.ready:
            self._waiters.offer(job)
        self._waiters.changed(job)


def _job(order: Submit, submitter: str | None, now: float) -> Job:
    later = order.not_before is not None and order.not_before > now
    return Job(
        id=str(uuid.uuid4()),
        dialect=order.dialect,
        command=order.command,
        payload=order.payload,
        requires=order.requires,
        route=order.route,
        created_at=now,
        lease_seconds=order.lease_seconds,
        max_deliveries=order.max_deliveries,
        retry_seconds=order.retry_seconds,
        priority=order.priority,
        not_before=order.not_before if later else None,
        submitter=submitter,
        idempotency_key=order.idempotency_key,
        fingerprint=None if order.idempotency_key is None else _fingerprint(order),
    )


def _fingerprint(order: Submit) -> str:
    """A digest of all that a submission says; how long leases and back-offs are comes from the settings."""
    words = replace(order, route=Route(), lease_seconds=0, retry_seconds=0)
    said = (*dataclasses.astuple(words), order.route.agent, sorted(order.route.needs))
    return hashlib.sha256(repr(said).encode()).hexdigest()


def _events(report: Report, now: float) -> Iterator[Event]:
    """What others can follow of a report: a text, a progress, both or neither."""
    if report.text:
        yield Event(now, text=report.text, offset=report.offset)
    if report.percent is not None or report.note is not None:
        yield Event(now, percent=report.percent, note=report.note)


def _stop_on(hangup: asyncio.Future[None] | None, waiter: Waiter) -> None:
    if hangup is not None:
        hangup.add_done_callback(lambda _: waiter.stop())
