"""One claim from its record to the broker's answer: execute, renew, report."""

import asyncio
import logging
from contextlib import suppress
from dataclasses import dataclass

from runner_app import execution, records
from runner_app.clients.backoff import Backoff
from runner_app.clients.client import Client, LeaseLostError, RefusedError, UnavailableError
from runner_app.execution import ExecutionError, Executor, StartError
from runner_app.handlers import catalogue, output
from runner_app.handlers.inline import InlineCommands
from runner_app.job import JobFailedError
from runner_app.journal import Claim
from runner_app.live import look_seconds
from runner_app.outcome import STOP_LEASE, STOP_OUTPUT, STOP_RUNNER, Stage, Verdict, describe, judge
from runner_app.selftest import Selftest
from runner_app.settings import SYSTEMD, Settings
from runner_app.watch import Watcher

OUTPUT_BYTES = 64 * 1024 * 1024  # both streams of a job together, on disk
_OUTPUT_LOOK_SECONDS = 1
_LAST_WORDS_SECONDS = 2  # for which a report waits until what the job said last is told

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Services:
    """What an attempt works with."""

    settings: Settings
    client: Client
    watcher: Watcher
    inline: InlineCommands
    executors: dict[str, Executor]
    selftest: Selftest


@dataclass(frozen=True, slots=True)
class Report:
    """What the broker is to be told."""

    verdict: Verdict
    text: str


class Attempt:
    """One delivery of one job, on our side."""

    def __init__(self, claim: Claim, services: Services, *, adopted: bool) -> None:
        self._claim = claim
        self._services = services
        self._adopted = adopted
        self._reporting = False
        self._stop_ordered = asyncio.Event()

    @property
    def is_reporting(self) -> bool:
        """Whether only the broker's answer is missing."""
        return self._reporting

    @property
    def dies_with_runner(self) -> bool:
        """Whether the job is running and nobody would see to it: a unit is left to the next runner."""
        return not self._reporting and self._claim.backend != SYSTEMD

    def order_stop(self) -> None:
        """End the job because the runner ends: it is given back."""
        self._stop_ordered.set()

    async def settle(self) -> Verdict:
        """Bring the attempt to an end that the broker knows of, or leave it to redelivery: say which.

        Raises:
            ExecutionError: It stands where it stood; settle it again later.
        """
        if self._claim.backend not in self._services.executors:
            answer = self._answer()
            await self._deliver(answer)
            return answer.verdict
        executor = self._services.executors[self._claim.backend]
        try:
            report = await self._supervise(executor)
        except (JobFailedError, StartError) as error:
            report = Report(Verdict.FAILED, str(error))
        await self._deliver(report)
        await executor.close(self._claim)
        return report.verdict

    def _answer(self) -> Report:
        try:
            return Report(Verdict.DONE, self._services.inline.answer(self._claim.job))
        except JobFailedError as error:
            return Report(Verdict.FAILED, str(error))

    async def _supervise(self, executor: Executor) -> Report:
        stage = await executor.stage(self._claim)
        if stage is Stage.FRESH:
            self._require_walls()
            command = catalogue.command(self._claim.job, self._services.settings)
            if self._adopted and not await self._still_ours():
                return Report(Verdict.ABANDONED, "its lease was lost before it started")
            await executor.start(self._claim, command)
        if stage in {Stage.FRESH, Stage.RUNNING}:
            stage = await self._until_ended(executor)
        if stage is not Stage.ENDED:
            return Report(Verdict.ABANDONED, "it was started, and no end was recorded: the host or its manager died")
        return self._report()

    def _require_walls(self) -> None:
        """Have a claim of an earlier runner wait for the walls; its lease ends meanwhile if they do not hold."""
        fault = self._services.selftest.fault
        if self._claim.backend == SYSTEMD and fault:
            message = f"it is not started: {fault}"
            raise ExecutionError(message)

    async def _until_ended(self, executor: Executor) -> Stage:
        """Wait for the end, and bring it about when the lease, the output or the runner's own end asks for it."""
        ended = asyncio.create_task(execution.until_ended(executor, self._services.watcher, self._claim))
        reasons: dict[asyncio.Task[None], str] = {
            asyncio.create_task(self._lease_lost(executor)): STOP_LEASE,
            asyncio.create_task(self._revoked()): STOP_LEASE,
            asyncio.create_task(self._output_exceeded()): STOP_OUTPUT,
            asyncio.create_task(self._runner_ends()): STOP_RUNNER,
        }
        telling = asyncio.create_task(self._tell_output(ended))
        try:
            await asyncio.wait({ended, *reasons}, return_when=asyncio.FIRST_COMPLETED)
            if not ended.done():
                reason = next(task for task in reasons if task.done())
                reason.result()
                await self._stop(executor, reasons[reason])
            stage = await ended
            with suppress(TimeoutError):
                await asyncio.wait_for(telling, _LAST_WORDS_SECONDS)
            return stage
        finally:
            for task in (ended, telling, *reasons):
                task.cancel()

    async def _stop(self, executor: Executor, reason: str) -> None:
        _log.warning("%s: stopping it (%s)", self._claim.name, reason)
        records.write(self._claim.directory / records.STOP, {"why": reason})
        backoff = Backoff(first=0.2, most=5)
        while True:
            try:
                return await executor.stop(self._claim)
            except ExecutionError as error:
                _log.warning("%s: %s", self._claim.name, error)
                await asyncio.sleep(backoff.next())

    async def _lease_lost(self, executor: Executor) -> None:
        """Renew three times per lease; return when the broker says it is lost, or when it may be."""
        lease = self._claim.job.lease_seconds
        clock = asyncio.get_running_loop().time
        deadline = clock() + execution.giving_up_seconds(lease)
        backoff = Backoff(first=lease / 60, most=lease / 10)
        beat = min(lease / 3, self._services.settings.heartbeat_seconds)
        pause = 0 if self._adopted else beat
        while clock() < deadline:
            await asyncio.sleep(pause)
            asked = clock()
            try:
                await self._services.client.heartbeat(self._claim.job)
                deadline = asked + execution.giving_up_seconds(lease)
                await executor.renew(self._claim)
            except (LeaseLostError, RefusedError) as error:
                _log.warning("%s: the lease is lost: %s", self._claim.name, error)
                return
            except (UnavailableError, ExecutionError) as error:
                _log.warning("%s: the lease is not renewed yet: %s", self._claim.name, error)
                pause = backoff.next()
                continue
            backoff.reset()
            pause = beat

    async def _revoked(self) -> None:
        """Return when the broker says that the job was cancelled, or is not ours any more for another reason."""
        why = await self._services.client.revoked(self._claim.job)
        _log.warning("%s: it is not ours any more: %s", self._claim.name, why)

    async def _output_exceeded(self) -> None:
        while True:
            await asyncio.sleep(_OUTPUT_LOOK_SECONDS)
            if output.output_bytes(self._claim.directory) > OUTPUT_BYTES:
                return

    async def _tell_output(self, ended: asyncio.Task[Stage]) -> None:
        """Tell what the job says, where somebody wants to know."""
        tell = self._services.client.live(self._claim.job, self._claim.directory, adopted=self._adopted)
        over = False
        while tell and not over:
            # It may have ended before this is run for the first time; what it said is told all the same.
            await asyncio.wait({ended}, timeout=look_seconds(self._services.settings.max_jobs))
            over = ended.done()
            await tell(ended=over)

    async def _runner_ends(self) -> None:
        await self._stop_ordered.wait()

    async def _still_ours(self) -> bool:
        """Ask the broker before starting what an earlier runner claimed."""
        backoff = Backoff(first=0.2, most=5)
        while True:
            try:
                await self._services.client.heartbeat(self._claim.job)
            except (LeaseLostError, RefusedError):
                return False
            except UnavailableError as error:
                await asyncio.sleep(backoff.next(at_least=error.retry_after))
                continue
            return True

    def _report(self) -> Report:
        ending = execution.recorded_ending(self._claim)
        if ending is None:
            message = f"the record of {self._claim.name} vanished"
            raise ExecutionError(message)
        order = records.read(self._claim.directory / records.STOP)
        stop = str(order["why"]) if order else None
        duration_ms = execution.duration_ms(self._claim)
        verdict = judge(ending, stop=stop)
        if verdict is Verdict.DONE:
            try:
                text = catalogue.result(self._claim.job, self._claim.directory, duration_ms=duration_ms)
                return Report(verdict, text)
            except OSError as error:
                return Report(Verdict.FAILED, f"it ended well, but its output cannot be read: {error.strerror}")
        reason = describe(ending, stop=stop, duration_ms=duration_ms)
        return Report(verdict, output.error(self._claim.directory, reason))

    async def _deliver(self, report: Report) -> None:
        """Report until the broker has answered for this epoch."""
        self._reporting = True
        _log.info("%s: %s: %s", self._claim.name, report.verdict.name.lower(), _short(report))
        backoff = Backoff(first=0.2, most=30)
        while True:
            try:
                return await self._tell(report)
            except UnavailableError as error:
                _log.warning("%s: not reported yet: %s", self._claim.name, error)
                await asyncio.sleep(backoff.next(at_least=error.retry_after))
            except LeaseLostError as error:
                return _log.warning("%s: the report came too late: %s", self._claim.name, error)
            except RefusedError as error:
                if report.verdict is not Verdict.DONE:
                    return _log.error("%s: the report is refused: %s", self._claim.name, error)
                report = Report(Verdict.FAILED, f"it ended well, but its result was refused: {error}")

    async def _tell(self, report: Report) -> None:
        client, job = self._services.client, self._claim.job
        match report.verdict:
            case Verdict.DONE:
                await client.result(job, report.text)
            case Verdict.RELEASED if job.max_deliveries > 1:
                await client.release(job, report.text)
            case Verdict.FAILED | Verdict.RELEASED:
                await client.fail(job, report.text)
            case Verdict.ABANDONED:
                pass


def _short(report: Report) -> str:
    return "ok" if report.verdict is Verdict.DONE else report.text[:200]
