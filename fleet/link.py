"""A way to the broker that lasts: a call that got no answer is made again, over a new connection."""

from __future__ import annotations

import json
import time
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING, Any

import httpx
import paramiko
from invoke.exceptions import ThreadException

from fleet.console import err
from fleet.errors import BrokerError, ConnectError, UnansweredError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from contextlib import AbstractContextManager

# Seconds between the tries of one call.
_PAUSES = (0.5, 2.0, 5.0)
# As long as the broker may ask for: its rate limit is a minute's.
_LONGEST_PAUSE = 60.0
_PAUSE_WORTH_A_WORD = 2.0
_ANSWER_SECONDS = 10.0
_BUSY = (429, 503)


class Link:
    """Calls over a connection that is opened at the first of them, and anew after it broke.

    Args:
        dial: Opens a client with the broker's address and a token, while its context lasts.
    """

    def __init__(self, dial: Callable[[], AbstractContextManager[httpx.Client]]) -> None:
        self._dial = dial
        self._opened = ExitStack()
        self._client: httpx.Client | None = None

    def open(self) -> httpx.Client:
        """Return the client, dialled if there is none."""
        if self._client is None:
            self._client = self._opened.enter_context(self._dial())
        return self._client

    def close(self) -> None:
        """Let the connection go; one that broke may say so once more."""
        self._client = None
        with suppress(ThreadException, paramiko.SSHException, OSError, EOFError):
            self._opened.close()

    def call(
        self,
        method: str,
        path: str,
        *,
        body: object = None,
        query: Mapping[str, Any] | None = None,
        wait: float = 0,
        repeat: bool = True,
    ) -> httpx.Response:
        """Make a call, a few times where it is not answered.

        Args:
            method: Of HTTP.
            path: Of the call.
            body: Sent as JSON, unless None.
            query: What is not None of it goes behind the path.
            wait: Seconds for which the broker may hold the answer back.
            repeat: Whether a call that was heard, without an answer, does no harm when it is made again.

        Raises:
            BrokerError: it was refused; UnansweredError where there was no answer to any try.
        """
        known = {name: value for name, value in (query or {}).items() if value is not None}
        request: dict[str, Any] = {
            "params": {**known, "wait": wait} if wait else known,
            # The escapes of JSON's own form carry what no encoding does.
            "content": None if body is None else json.dumps(body).encode(),
            "headers": None if body is None else {"Content-Type": "application/json"},
            "timeout": httpx.Timeout(_ANSWER_SECONDS, read=wait + _ANSWER_SECONDS),
        }
        for pause in _PAUSES if repeat else ():
            try:
                return self._once(method, path, request)
            except UnansweredError as error:
                if error.seconds > _LONGEST_PAUSE:
                    raise
                _rest(max(pause, error.seconds), error)
        return self._once(method, path, request)

    def _once(self, method: str, path: str, request: dict[str, Any]) -> httpx.Response:
        try:
            response = self.open().request(method, path, **request)
        except (httpx.RequestError, ConnectError, paramiko.SSHException, EOFError) as error:
            self.close()
            raise UnansweredError(f"the broker does not answer: {str(error) or type(error).__name__}") from error
        if response.is_error:
            raise _refusal(method, path, response)
        return response


def _rest(seconds: float, trouble: UnansweredError) -> None:
    if seconds >= _PAUSE_WORTH_A_WORD:
        err.print(f"fleet: {trouble}; trying again in {seconds:g} s", markup=False)
    time.sleep(seconds)


def _refusal(method: str, path: str, response: httpx.Response) -> BrokerError:
    status, detail = response.status_code, _detail(response)
    message = f"{method} {path}: {status}: {detail}"
    seconds = response.headers.get("retry-after", "")
    if status in _BUSY and seconds.isdigit():
        return UnansweredError(message, status=status, detail=detail, seconds=float(seconds))
    return BrokerError(message, status=status, detail=detail)


def _detail(response: httpx.Response) -> str:
    try:
        said = response.json()
        detail = said.get("detail") or said["error"]
        return "; ".join(map(_complaint, detail)) if isinstance(detail, list) else str(detail)
    except (ValueError, KeyError, TypeError, AttributeError):
        return response.text[:200]


def _complaint(about: dict[str, Any]) -> str:
    """Return one entry of the list that a 422 has."""
    where = [str(place) for place in about["loc"][1:]]
    return ": ".join([*([".".join(where)] if where else []), about["msg"]])
