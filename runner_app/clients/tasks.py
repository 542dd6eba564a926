"""The tasks dialect as an agent speaks it: pull, heartbeat, complete, under ``/api``."""

import asyncio
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx

from runner_app.clients.client import BrokerError, LeaseLostError, UnauthorizedError
from runner_app.clients.http import TIMEOUT, Http, claim_timeout, judge, renewal_timeout
from runner_app.clients.objects import kept, shown
from runner_app.job import Job

_LEASE_TOKEN = re.compile(r"epoch-(\d{1,15})")
_LOST = ("401 Invalid lease token", "403 Task is owned by a different agent")
_LEAST_LEASE_SECONDS = 30


@dataclass(frozen=True, slots=True)
class Agent:
    """Who asks; without a ``global_key`` the agent's own stands in for it."""

    name: str
    key: str = field(repr=False)
    global_key: str = field(repr=False)
    capabilities: tuple[str, ...]
    version: str

    def headers(self) -> dict[str, str]:
        """Return the headers of the dialect, with ours for capabilities and version."""
        return {
            "Authorization": f"Bearer {self.global_key or self.key}",
            "X-API-Key": self.key,
            "X-Worker-Caps": json.dumps(self.capabilities),
            "X-Runner-Version": self.version,
        }


class TasksClient:
    """A ``Client``. No call of the dialect says what is held, so a claim whose answer is lost waits for its lease."""

    def __init__(self, url: str, agent: Agent, lease_seconds: int) -> None:
        self._http = Http(url, agent.headers(), _judge)
        self._name = agent.name
        self._lease_seconds = lease_seconds
        self.doubt = asyncio.Event()  # never set: there would be nobody to tell

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._http.close()

    async def next_job(self, wait: float) -> Job | None:
        """Pull a task, waiting for one where the broker can.

        Raises:
            BrokerError: See there.
            ValueError: The answer is not a task; the text names the key.
        """
        params = self._params(lease_seconds=self._lease_seconds, wait=f"{wait:g}")
        timeout = claim_timeout(wait)
        answer = await self._http.call("GET", "/api/agents/tasks/pull", again=False, params=params, timeout=timeout)
        task = answer.get("task")
        return None if task is None else self._job(task)

    async def held(self, leases: Iterable[tuple[str, int]]) -> None:
        """Say nothing: the dialect has no words for it."""

    async def heartbeat(self, job: Job) -> None:
        """Renew the lease for its whole length.

        Raises:
            BrokerError: See there.
        """
        await self._renew(job, self._lease_seconds)

    async def revoked(self, job: Job) -> str:
        """Never return: no call of the dialect waits for a task's end."""
        never: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        return await never

    def live(self, job: Job, directory: Path, *, adopted: bool) -> None:
        """Return nothing: the dialect has no words for it."""

    async def result(self, job: Job, text: str) -> None:
        """Report success.

        Raises:
            BrokerError: See there.
        """
        await self._tell(job, "complete", self._params(), success=True, result=shown(text))

    async def fail(self, job: Job, text: str) -> None:
        """Report failure; the broker may have the task tried again later.

        Raises:
            BrokerError: See there.
        """
        await self._tell(job, "complete", self._params(), success=False, error=text)

    async def release(self, job: Job, reason: str) -> None:
        """Make the lease as short as can be: the dialect has no way to give a task back.

        Raises:
            BrokerError: See there.
        """
        await self._renew(job, _LEAST_LEASE_SECONDS)

    async def enough(self) -> None:
        """Do nothing: no job comes unasked."""

    def let_go(self) -> None:
        """Leave it to the lease's end."""

    async def probe(self) -> None:
        """Find out whether the broker answers and takes the keys, without claiming anything.

        Raises:
            BrokerError: See there.
        """
        try:
            await self._renew(Job("runner-check", "", "", 0, self._lease_seconds, 1), self._lease_seconds)
        except LeaseLostError:
            return  # "no such task" was said to someone whose keys were accepted

    async def _renew(self, job: Job, seconds: int) -> None:
        timeout = renewal_timeout(job.lease_seconds)
        await self._tell(job, "heartbeat", self._params(lease_seconds=seconds), limit=timeout)

    async def _tell(
        self, job: Job, what: str, params: dict[str, str], limit: httpx.Timeout = TIMEOUT, **fields: Any
    ) -> None:
        body = {**fields, "lease_token": f"epoch-{job.lease_epoch}"}
        await self._http.call("POST", f"/api/agents/tasks/{job.id}/{what}", json=body, params=params, timeout=limit)

    def _params(self, **more: object) -> dict[str, str]:
        return {"agent_id": self._name, **{key: str(value) for key, value in more.items()}}

    def _job(self, task: Any) -> Job:
        if not isinstance(task, dict) or not isinstance(task.get("payload"), dict):
            message = "the task or its payload is not an object"
            raise ValueError(message)
        epoch = _LEASE_TOKEN.fullmatch(str(task.get("lease_token")))
        if not epoch:
            message = "the task's lease_token is none of this broker's"
            raise ValueError(message)
        return Job.parse(
            {
                "id": task.get("id"),
                "command": task.get("type"),
                "payload": kept(task["payload"]),
                "lease_epoch": int(epoch[1]),
                "lease_seconds": self._lease_seconds,
                "max_deliveries": task.get("max_attempts"),
            }
        )


def _judge(answer: httpx.Response) -> BrokerError:
    """Tell a lease that is lost from keys that are wrong, which have the same statuses."""
    error = judge(answer)
    if not isinstance(error, UnauthorizedError):
        return error
    if str(error).endswith(_LOST):
        return LeaseLostError(str(error))
    remedy = (
        "AIDSEC_GLOBAL_API_KEY and AIDSEC_AGENT_API_KEY"
        if answer.status_code == httpx.codes.UNAUTHORIZED
        else ("AIDSEC_AGENT_ID, and that the broker knows this agent")
    )
    return UnauthorizedError(f"{error}: check {remedy}")
