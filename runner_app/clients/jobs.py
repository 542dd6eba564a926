"""The jobs dialect as a worker speaks it: ``GET /jobs/next``, held, heartbeat, log, result, fail, release, a look."""

import asyncio
import http
import logging
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx

from runner_app.clients.backoff import Backoff
from runner_app.clients.client import WAIT_SECONDS, BrokerError, LeaseLostError, RefusedError, Tell
from runner_app.clients.http import TIMEOUT, Http, claim_timeout, judge, renewal_timeout
from runner_app.clients.identity import Identity
from runner_app.clients.reports import Reports
from runner_app.job import Job

_log = logging.getLogger(__name__)


class JobsClient:
    """The first ``Client``.

    ``doubt`` is set by the first success about a job after a call that got no answer, and by whoever lets go of a job.
    """

    def __init__(self, url: str, identity: Identity) -> None:
        self._http = Http(url, identity.headers(), judge)
        # What is asked and told while jobs run takes no connection from the calls that the work needs, and what goes
        # wrong there casts no doubt on it.
        self._aside = Http(url, identity.headers(), judge)
        self.doubt = asyncio.Event()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._http.close()
        await self._aside.close()

    async def next_job(self, wait: float) -> Job | None:
        """Claim a job, waiting up to ``wait`` seconds (at most 25) for one.

        Where this raises or is broken off, a job may have been claimed all the same: call ``held`` before the next.

        Raises:
            BrokerError: See there.
            ValueError: The answer is not a job; the text names the key.
        """
        params = {"wait": f"{wait:g}"}
        answer = await self._http.call("GET", "/jobs/next", again=False, params=params, timeout=claim_timeout(wait))
        raw = answer.get("job")
        return None if raw is None else Job.parse(raw)

    async def held(self, leases: Iterable[tuple[str, int]]) -> None:
        """Say which leases (job id, epoch) we hold: the broker takes back what else it thinks we run.

        No claim may be on its way meanwhile. A broker that does not know the call leaves that to the leases' end.

        Raises:
            BrokerError: See there.
        """
        body = {"held": [{"id": job_id, "lease_epoch": epoch} for job_id, epoch in leases]}
        self._http.broken = False
        try:
            await self._http.call("POST", "/jobs/held", json=body)
        except LeaseLostError:  # 404
            return
        except RefusedError as error:
            if error.status != http.HTTPStatus.METHOD_NOT_ALLOWED:
                raise

    async def heartbeat(self, job: Job) -> None:
        """Renew the lease for its whole length.

        Raises:
            BrokerError: See there.
        """
        await self._tell(job, "heartbeat", limit=renewal_timeout(job.lease_seconds))

    async def revoked(self, job: Job) -> str:
        """Wait until the job has ended or is somebody else's, and say so."""
        backoff = Backoff(first=1, most=10)
        now = asyncio.get_running_loop().time
        while True:
            asked = now()
            try:
                if why := _why_not_ours(job, await self._look(job)):
                    return why
            except LeaseLostError as error:
                return str(error)
            except BrokerError:
                pass
            if now() - asked < WAIT_SECONDS / 2:
                await asyncio.sleep(backoff.next())  # a broker that restarts answers early, or not at all
            else:
                backoff.reset()

    def live(self, job: Job, directory: Path, *, adopted: bool) -> Tell:
        """Return what tells the broker; the directory says where an earlier runner broke off."""
        return Reports(directory, partial(self._report, job)).tell

    async def result(self, job: Job, text: str) -> None:
        """Report success.

        Raises:
            BrokerError: See there.
        """
        await self._tell(job, "result", result=text)

    async def fail(self, job: Job, text: str) -> None:
        """Report failure, which is final.

        Raises:
            BrokerError: See there.
        """
        await self._tell(job, "fail", error=text)

    async def release(self, job: Job, reason: str) -> None:
        """Give the job back, to be delivered again without a charge.

        Raises:
            BrokerError: See there.
        """
        await self._tell(job, "release", reason=reason)

    async def enough(self) -> None:
        """Do nothing: no job comes unasked."""

    def let_go(self) -> None:
        """Doubt: the broker thinks that a job which was let go is ours."""
        self.doubt.set()

    async def probe(self) -> None:
        """Find out whether the broker answers and takes the token, without claiming anything.

        Raises:
            BrokerError: See there.
        """
        try:
            await self._http.call("GET", "/jobs/runner-check")
        except LeaseLostError:
            return  # "no such job" was said to someone whose token was accepted

    async def _look(self, job: Job) -> dict[str, Any]:
        params, timeout = {"wait": str(WAIT_SECONDS)}, claim_timeout(WAIT_SECONDS)
        return await self._aside.call("GET", f"/jobs/{job.id}", params=params, timeout=timeout)

    async def _report(self, job: Job, fields: dict[str, Any]) -> None:
        await self._aside.call("POST", f"/jobs/{job.id}/log", json={**fields, "lease_epoch": job.lease_epoch})

    async def _tell(self, job: Job, what: str, limit: httpx.Timeout = TIMEOUT, **fields: str) -> None:
        body = {**fields, "lease_epoch": job.lease_epoch}
        await self._http.call("POST", f"/jobs/{job.id}/{what}", json=body, timeout=limit)
        if self._http.broken:
            self._http.broken = False
            self.doubt.set()
            _log.info("the broker answers again")


def _why_not_ours(job: Job, shown: dict[str, Any]) -> str | None:
    """Return why the broker's job is not the one that we run; what is no job says nothing."""
    epoch, status = shown.get("lease_epoch"), shown.get("status")
    if not isinstance(epoch, int) or (epoch, status) == (job.lease_epoch, "running"):
        return None
    return f"it is {shown.get('outcome') or status} (lease {epoch}): {shown.get('error') or 'no reason given'}"
