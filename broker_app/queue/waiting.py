"""Callers that wait: for work, or for what becomes of a job."""

from __future__ import annotations

import asyncio
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from broker_app.queue.job import Job, Worker


class Waiter:
    """One waiting caller: rung with a job, or stopped for good.

    Attributes:
        offer: The last job it was rung with and has not looked for yet.
        dismissed: Whether its worker may wait no longer: what it took is given back.
        gone: Set when it has left.
    """

    def __init__(self, worker: Worker | None = None) -> None:
        self.worker = worker
        self.offer: Job | None = None
        self.stopped = False
        self.dismissed = False
        self.gone = asyncio.Event()
        self._rung = asyncio.Event()

    def ring(self, job: Job) -> None:
        """Wake the caller for a job."""
        self.offer = job
        self.look_again()

    def look_again(self) -> None:
        """Wake the caller without a job in mind."""
        self._rung.set()

    def stop(self) -> None:
        """Wake the caller: it shall wait no longer."""
        self.stopped = True
        self._rung.set()

    def dismiss(self) -> None:
        """Stop it, because its worker may wait no longer."""
        self.dismissed = True
        self.stop()

    def answer(self) -> Job | None:
        """Take the offer, so that a later ring is noticed."""
        offer, self.offer = self.offer, None
        if not self.stopped:
            self._rung.clear()
        return offer

    async def wait(self, deadline: float) -> bool:
        """Wait until rung; false when stopped or when the deadline (the loop's time) has come."""
        try:
            async with asyncio.timeout_at(deadline):
                await self._rung.wait()
        except TimeoutError:
            return False
        return not self.stopped


class Waiters:
    """Everybody who waits on one queue.

    Attributes:
        stopped: Whether nobody can wait any more.
    """

    def __init__(self) -> None:
        self._workers: dict[Waiter, None] = {}
        self._watchers: dict[str, set[Waiter]] = {}
        self.stopped = False

    @contextmanager
    def for_work(self, worker: Worker) -> Iterator[Waiter]:
        """Wait for a job that the worker may run."""
        waiter = self._enter(Waiter(worker))
        self._workers[waiter] = None
        try:
            yield waiter
        finally:
            del self._workers[waiter]
            waiter.gone.set()

    @contextmanager
    def for_job(self, job_id: str) -> Iterator[Waiter]:
        """Wait for a change of a job."""
        waiter = self._enter(Waiter())
        watchers = self._watchers.setdefault(job_id, set())
        watchers.add(waiter)
        try:
            yield waiter
        finally:
            watchers.discard(waiter)
            if not watchers:
                self._watchers.pop(job_id, None)

    def offer(self, job: Job) -> None:
        """Wake exactly one caller that may run the job and has no other offer, the longest waiting first."""
        for waiter in self._workers:
            if waiter.offer or waiter.stopped or waiter.worker is None or not job.route.open_to(waiter.worker):
                continue
            waiter.ring(job)
            return

    def look_again(self) -> None:
        """Wake every caller that waits for work."""
        for waiter in self._workers:
            waiter.look_again()

    def changed(self, job: Job) -> None:
        """Wake every caller that waits for a change of the job."""
        for waiter in self._watchers.get(job.id, ()):
            waiter.ring(job)

    async def dismiss(self, names: Collection[str | None]) -> None:
        """Wake every caller that waits for work under these names, let it go without, and wait until it has."""
        waiters = [waiter for waiter in self._workers if waiter.worker is not None and waiter.worker.name in names]
        for waiter in waiters:
            waiter.dismiss()
        for waiter in waiters:
            await waiter.gone.wait()

    def stop(self) -> None:
        """Wake everybody; nobody waits from now on."""
        self.stopped = True
        for waiter in (*self._workers, *(w for watchers in self._watchers.values() for w in watchers)):
            waiter.stop()

    def _enter(self, waiter: Waiter) -> Waiter:
        if self.stopped:
            waiter.stop()
        return waiter
