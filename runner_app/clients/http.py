"""Calls to a broker over kept connections: what the dialects over HTTP share."""

import socket
import ssl
import struct
from collections.abc import Callable, Mapping
from typing import Any

import httpx

from runner_app.clients.client import BrokerError, LeaseLostError, RefusedError, UnauthorizedError, UnavailableError

CONNECT_SECONDS = 3
TIMEOUT = httpx.Timeout(10, connect=CONNECT_SECONDS)
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
_SPOKEN = 300  # characters of a broker's error text that are worth repeating


class Http:
    """One broker. No proxy and nothing else is taken from the environment.

    ``broken`` is set by a call that gets no answer. ``judge`` makes an error of an answer that is no success.
    """

    def __init__(self, url: str, headers: Mapping[str, str], judge: Callable[[httpx.Response], BrokerError]) -> None:
        # Without https there is nothing to verify, and loading the machine's certificates costs 10 ms and memory.
        secure = url.startswith("https:")
        verify = ssl.create_default_context() if secure else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        transport = httpx.AsyncHTTPTransport(verify=verify, trust_env=False, socket_options=_SOCKET_OPTIONS)
        self._http = httpx.AsyncClient(
            base_url=url, headers=headers, timeout=TIMEOUT, trust_env=False, transport=transport
        )
        self._judge = judge
        self.broken = False

    async def close(self) -> None:
        """Let go of the connections."""
        await self._http.aclose()

    async def call(self, method: str, path: str, *, again: bool = True, **options: Any) -> dict[str, Any]:
        """Return the JSON object that is answered.

        Args:
            method: GET or POST.
            path: Below the broker's address.
            again: Whether the call may be repeated where it is not known whether it arrived.
            options: As httpx takes them.

        Raises:
            BrokerError: See there.
        """
        try:
            if again:
                answer = await self._once_more(method, path, options)
            else:
                answer = await self._http.request(method, path, **options)
        except httpx.HTTPError as error:
            self.broken = True
            message = f"the broker at {self._http.base_url} does not answer: {error or type(error).__name__}"
            raise UnavailableError(message) from error
        if answer.is_success:
            return _object(answer)
        raise self._judge(answer)

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


def claim_timeout(wait: float) -> httpx.Timeout:
    """Return how long to wait for the answer to a claim that waits so long for a job."""
    return httpx.Timeout(10, connect=CONNECT_SECONDS, read=wait + 10)


def renewal_timeout(lease_seconds: float) -> httpx.Timeout:
    """Return how long an answer to a heartbeat counts."""
    # After a later answer the dead-man timer, set anew from then, could outlast the lease.
    return httpx.Timeout(min(10.0, lease_seconds / 12))


def _object(answer: httpx.Response) -> dict[str, Any]:
    try:
        value = answer.json()
    except ValueError:
        value = None
    if not isinstance(value, dict):
        message = f"the answer to {answer.request.url.path} is not a JSON object: is this a broker?"
        raise UnavailableError(message)
    return value


def judge(answer: httpx.Response) -> BrokerError:
    """Return what an answer that is no success means."""
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
