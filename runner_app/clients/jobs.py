"""The jobs dialect as a worker speaks it: ``GET /jobs/next``, held, heartbeat, result, fail, release."""

import asyncio
import http
import json
import logging
import socket
import ssl
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import httpx

from runner_app.job import Job

_CONNECT_SECONDS = 3
_TIMEOUT = httpx.Timeout(10, connect=_CONNECT_SECONDS)
# A connection that nobody answers on is given up after three seconds, also while it only waits; the kernel's own
# retries would bring what was lost on it much later than that. One that is closed forgets what it has not sent yet:
# a claim that arrived after its runner had given it up would take a job for nobody.
_TCP_OPTIONS = {"TCP_KEEPIDLE": 1, "TCP_KEEPINTVL": 1, "TCP_KEEPCNT": 2, "TCP_USER_TIMEOUT": 3000}
_SOCKET_OPTIONS: list[tuple[int, int, Any]] = [
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)),
    *(
        (socket.IPPROTO_TCP, getattr(socket, name), value)
        for name, value in _TCP_OPTIONS.items()
        if hasattr(socket, name)
    ),
]
_log = logging.getLogger(__name__)
_SPOKEN = 300  # characters of a broker's error text that are worth repeating


class BrokerError(Exception):
    """No success from the broker.

    BrokerError
    ├── UnavailableError    no answer, or one that says "later": try again
    │   └── UnauthorizedError   the token is not accepted (now)
    ├── LeaseLostError      the attempt is not ours any more
    └── RefusedError        the call itself is wrong; again would not help
    """


class UnavailableError(BrokerError):
    """Try again; ``retry_after`` is what the broker asked for, in seconds."""

    def __init__(self, message: str, retry_after: float = 0) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class UnauthorizedError(UnavailableError):
    """The token was refused. An operator can mend that while the job goes on."""


class LeaseLostError(BrokerError):
    """The broker gave the job to someone else, finished it or forgot it."""


class RefusedError(BrokerError):
    """A call the broker will never take; ``status`` is its HTTP status."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True, slots=True)
class Identity:
    """Who asks; sent with every call."""

    token: str
    worker_id: str
    capabilities: tuple[str, ...]
    version: str

    def headers(self) -> dict[str, str]:
        """Return the headers of the dialect."""
        return {
            "X-Worker-Token": self.token,
            "X-Worker-Id": self.worker_id,
            "X-Worker-Caps": json.dumps(self.capabilities),
            "X-Runner-Version": self.version,
        }


class JobsClient:
    """Calls to one broker over kept connections. No proxy and nothing else is taken from the environment.

    ``doubt`` is set when the broker may think that we hold more than we do: by the first success about a job after a
    call that got no answer, and by whoever lets go of a job without telling.
    """

    def __init__(self, url: str, identity: Identity) -> None:
        # Without https there is nothing to verify, and loading the machine's certificates costs 10 ms and memory.
        secure = url.startswith("https:")
        verify = ssl.create_default_context() if secure else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        transport = httpx.AsyncHTTPTransport(verify=verify, trust_env=False, socket_options=_SOCKET_OPTIONS)
        self._http = httpx.AsyncClient(
            base_url=url, headers=identity.headers(), timeout=_TIMEOUT, trust_env=False, transport=transport
        )
        self._broken = False
        self.doubt = asyncio.Event()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._http.aclose()

    async def next_job(self, wait: float) -> Job | None:
        """Claim a job, waiting up to ``wait`` seconds (at most 25) for one.

        Where this raises or is broken off, a job may have been claimed all the same: call ``held`` before the next.

        Raises:
            BrokerError: See there.
            ValueError: The answer is not a job; the text names the key.
        """
        timeout = httpx.Timeout(10, connect=_CONNECT_SECONDS, read=wait + 10)
        answer = await self._call("GET", "/jobs/next", again=False, params={"wait": f"{wait:g}"}, timeout=timeout)
        raw = answer.get("job")
        return None if raw is None else Job.parse(raw)

    async def held(self, leases: Iterable[tuple[str, int]]) -> None:
        """Say which leases (job id, epoch) we hold: the broker takes back what else it thinks we run.

        No claim may be on its way meanwhile. A broker that does not know the call leaves that to the leases' end.

        Raises:
            BrokerError: See there.
        """
        body = {"held": [{"id": job_id, "lease_epoch": epoch} for job_id, epoch in leases]}
        self._broken = False
        try:
            await self._call("POST", "/jobs/held", json=body)
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
        # After a later answer the dead-man timer, set anew from then, could outlast the lease.
        timeout = min(10.0, job.lease_seconds / 12)
        await self._tell(job, "heartbeat", limit=httpx.Timeout(timeout))

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

    async def probe(self) -> None:
        """Find out whether the broker answers and takes the token, without claiming anything.

        Raises:
            BrokerError: See there.
        """
        try:
            await self._call("GET", "/jobs/runner-check")
        except LeaseLostError:
            return  # "no such job" was said to someone whose token was accepted

    async def _tell(self, job: Job, what: str, limit: httpx.Timeout = _TIMEOUT, **fields: str) -> None:
        body = {**fields, "lease_epoch": job.lease_epoch}
        await self._call("POST", f"/jobs/{job.id}/{what}", json=body, timeout=limit)
        if self._broken:
            self._broken = False
            self.doubt.set()
            _log.info("the broker answers again")

    async def _call(self, method: str, path: str, *, again: bool = True, **options: Any) -> dict[str, Any]:
        try:
            if again:
                answer = await self._once_more(method, path, options)
            else:
                answer = await self._http.request(method, path, **options)
        except httpx.HTTPError as error:
            self._broken = True
            message = f"the broker at {self._http.base_url} does not answer: {error or type(error).__name__}"
            raise UnavailableError(message) from error
        if answer.is_success:
            return _object(answer)
        raise _error(answer)

    async def _once_more(self, method: str, path: str, options: dict[str, Any]) -> httpx.Response:
        """Send, and again at once if a kept connection turned out to be dead: no server can rule that out."""
        opened = False

        async def trace(event: str, _: Any) -> None:
            nonlocal opened
            opened = opened or event.startswith("connection.connect")

        extensions = {"trace": trace}
        try:
            return await self._http.request(method, path, extensions=extensions, **options)
        except (httpx.RemoteProtocolError, httpx.ReadError, httpx.WriteError):
            if opened:
                raise
            return await self._http.request(method, path, **options)


def _object(answer: httpx.Response) -> dict[str, Any]:
    try:
        value = answer.json()
    except ValueError:
        value = None
    if not isinstance(value, dict):
        message = f"the answer to {answer.request.url.path} is not a JSON object: is this a broker?"
        raise UnavailableError(message)
    return value


def _error(answer: httpx.Response) -> BrokerError:
    message = f"{answer.status_code} {_detail(answer)}"
    if answer.status_code in {401, 403}:
        return UnauthorizedError(f"the broker refuses this worker: {message}")
    if answer.status_code in {404, 409, 410}:
        return LeaseLostError(message)
    if answer.status_code in {408, 425, 429} or answer.status_code >= 500:
        return UnavailableError(f"the broker says {message}", _retry_after(answer))
    return RefusedError(f"the broker says {message}", answer.status_code)


def _detail(answer: httpx.Response) -> str:
    try:
        return str(answer.json()["detail"])[:_SPOKEN]
    except (ValueError, LookupError, TypeError):
        return answer.text[:_SPOKEN]


def _retry_after(answer: httpx.Response) -> float:
    text = answer.headers.get("Retry-After", "")
    return min(60.0, float(text)) if text.isascii() and text.isdigit() else 0
