"""The loop: claim → record → execute → renew → report, for as long as the runner is wanted."""

import asyncio
import logging
import time
from collections.abc import Callable, Iterable
from typing import Any

from runner_app import __version__
from runner_app.attempt import Attempt, Services
from runner_app.clients.backoff import Backoff
from runner_app.clients.client import WAIT_SECONDS, BrokerError, UnavailableError
from runner_app.execution import LOOK_SECONDS, TERM_SECONDS, ExecutionError, deadman_seconds
from runner_app.handlers.catalogue import COMMANDS
from runner_app.job import Job
from runner_app.journal import Claim, Journal
from runner_app.notify import notify
from runner_app.outcome import Verdict

_INLINE = "inline"
_FINISH_SECONDS = 5  # for reports on their way, and for jobs that do not live on under systemd

_log = logging.getLogger(__name__)


class Runner:
    """One worker: what it holds is in the journal, and in ``_tasks`` by the attempt's name while it is seen to."""

    def __init__(self, services: Services, journal: Journal) -> None:
        self._services = services
        self._journal = journal
        self._settings = services.settings
        self._attempts: dict[str, Attempt] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}

    async def run(self, stopping: asyncio.Event, *, once: bool) -> None:
        """Work until ``stopping`` is set; then claim no more, leave units running, and end other jobs in order.

        Args:
            stopping: Set by whoever wants the runner to end.
            once: Finish what an earlier runner left, then take one job if there is one, finish it, and return.

        Raises:
            BrokerError: ``once``, and the broker cannot be asked.
            ExecutionError: ``once``, and what came is no job, or a job's end is not known or not reported.
        """
        self._adopt()
        helpers = [asyncio.create_task(self._once())] if once else self._helpers()
        stop = asyncio.create_task(stopping.wait())
        notify("READY=1")
        worker, backend = self._settings.worker_id, self._settings.backend
        _log.info("runner %s is worker %s; jobs run by %s", __version__, worker, backend)
        done, _ = await asyncio.wait({stop, *helpers}, return_when=asyncio.FIRST_COMPLETED)
        notify("STOPPING=1")
        await _cancel([stop, *helpers])
        await self._services.client.enough()
        await self._drain()
        for task in done:
            task.result()

    def _helpers(self) -> list[asyncio.Task[None]]:
        return [asyncio.create_task(self._poll()), asyncio.create_task(self._look_after())]

    async def _once(self) -> None:
        if fault := await self._services.selftest.run():
            raise ExecutionError(fault)
        self._adopt()
        await self._all_settled()
        await self._services.client.held(self._journal.leases())
        asked = _now()
        try:
            job = await self._services.client.next_job(0)
        except ValueError as error:
            message = f"what the broker gave is no job: {error}"
            raise ExecutionError(message) from error
        if job is None:
            _log.info("no job is waiting")
            return
        await self._take(job, asked)
        await self._services.client.enough()
        await self._all_settled()
        if self._journal.claims():
            message = "not every job could be brought to its end; run again"
            raise ExecutionError(message)

    async def _poll(self) -> None:
        """Claim, and begin anew, by saying what we hold, when the broker may think that we hold more."""
        await self._until_fit()
        doubt = self._services.client.doubt
        while True:
            doubt.clear()
            claiming, doubting = asyncio.create_task(self._claim_for_ever()), asyncio.create_task(doubt.wait())
            try:
                await asyncio.wait({claiming, doubting}, return_when=asyncio.FIRST_COMPLETED)
                if claiming.done():
                    claiming.result()
            finally:
                await _cancel([claiming, doubting])

    async def _until_fit(self) -> None:
        """Wait until jobs can be run here; what is taken before would only be failed, or run without walls."""
        backoff = Backoff(first=1, most=LOOK_SECONDS)
        status = ""
        while fault := await self._services.selftest.run():
            status = f"no job is taken until this is mended: {fault}"
            _log.error("%s", status)
            notify(f"STATUS={status}")
            await asyncio.sleep(backoff.next())
        if status:
            notify("STATUS=")
        self._adopt()  # what an earlier runner had not started yet

    async def _claim_for_ever(self) -> None:
        backoff = Backoff(first=0.2, most=self._settings.poll_interval)
        told = False
        while True:
            try:
                if not told:
                    await self._services.client.held(self._journal.leases())
                    told = True
                    _log.info("the broker knows what is held")
                await self._free_slot()
                asked = _now()
                job = await self._services.client.next_job(WAIT_SECONDS)
                if job is not None:
                    await self._take(job, asked)
            except (BrokerError, ValueError, OSError) as error:
                _log.warning("no job can be taken now: %s", error)
                told = False
                retry_after = error.retry_after if isinstance(error, UnavailableError) else 0
                await asyncio.sleep(backoff.next(at_least=retry_after))
                continue
            if job is None and _now() - asked < WAIT_SECONDS / 2:
                # A broker that restarts answers early; one that does not know the wait always does.
                await asyncio.sleep(backoff.next())
            else:
                backoff.reset()

    async def _take(self, job: Job, asked: float) -> None:
        """See to a job that was claimed by a call of that time."""
        backend = self._settings.backend if job.command in COMMANDS else _INLINE
        try:
            claim = self._journal.record(job, backend)
        except FileExistsError:
            _log.warning("%s was delivered twice; it is being seen to", job.name)
            return
        except OSError as error:
            await self._services.client.release(job, f"the runner cannot record it: {error}")
            raise
        _log.info("%s: claimed: %s", claim.name, job.command)
        # The lease may have begun when we asked. Where that leaves less than its margin, it is looked at first.
        margin = job.lease_seconds - deadman_seconds(job.lease_seconds)
        self._see_to(claim, adopted=_now() - asked > margin)

    def _adopt(self) -> None:
        """See to every open claim that nobody sees to."""
        for claim in self._journal.claims():
            if claim.name not in self._tasks:
                _log.info("%s: adopted", claim.name)
                self._see_to(claim, adopted=True)

    def _see_to(self, claim: Claim, *, adopted: bool) -> None:
        attempt = Attempt(claim, self._services, adopted=adopted)
        self._attempts[claim.name] = attempt
        self._tasks[claim.name] = asyncio.create_task(self._settle(claim, attempt))

    async def _settle(self, claim: Claim, attempt: Attempt) -> None:
        try:
            verdict = await attempt.settle()
            self._journal.forget(claim)
            if verdict is Verdict.ABANDONED:
                self._services.client.let_go()
            if claim.backend != _INLINE:
                await self._tidy()
        except (ExecutionError, OSError, ValueError) as error:
            _log.error("%s: %s; it is looked at again within %s s", claim.name, error, LOOK_SECONDS)
        finally:
            del self._attempts[claim.name], self._tasks[claim.name]

    async def _look_after(self) -> None:
        while True:
            await self._tidy()
            await asyncio.sleep(LOOK_SECONDS)
            self._adopt()

    async def _tidy(self) -> None:
        try:
            await self._services.executors[self._settings.backend].tidy(self._is_open)
        except (ExecutionError, OSError) as error:
            _log.warning("%s", error)

    def _is_open(self, name: str) -> bool:
        probe = self._services.selftest.claim
        return self._journal.holds(name) or (probe is not None and probe.name == name)

    async def _free_slot(self) -> None:
        while len(self._tasks) >= self._settings.max_jobs:
            await asyncio.wait(self._tasks.values(), return_when=asyncio.FIRST_COMPLETED)

    async def _all_settled(self) -> None:
        while self._tasks:
            await asyncio.wait(self._tasks.values())

    async def _drain(self) -> None:
        """Let what needs this process finish, then order the end of what is left of it."""
        await self._finish(lambda attempt: attempt.is_reporting or attempt.dies_with_runner, _FINISH_SECONDS)
        for attempt in self._attempts.values():
            if attempt.dies_with_runner:
                attempt.order_stop()
        await self._finish(lambda attempt: attempt.dies_with_runner, TERM_SECONDS)
        await self._finish(lambda attempt: attempt.is_reporting, _FINISH_SECONDS)
        await _cancel(self._tasks.values())

    async def _finish(self, concerns: Callable[[Attempt], bool], seconds: float) -> None:
        tasks = [self._tasks[name] for name, attempt in self._attempts.items() if concerns(attempt)]
        if tasks:
            await asyncio.wait(tasks, timeout=seconds)


def _now() -> float:
    """Return seconds that go on while this process or the machine is stopped."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


async def _cancel(tasks: Iterable[asyncio.Task[Any]]) -> None:
    pending = list(tasks)
    for task in pending:
        task.cancel()
    await asyncio.gather(*pending, return_exceptions=True)
