"""Asking an HTTP API: with time-outs, a bounded number of times, and errors a person can act on."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import httpx

from infra.errors import ServiceError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

ATTEMPTS = 5
_TIMEOUT = httpx.Timeout(20, connect=10)
_FIRST_PAUSE = 0.5
_LONGEST_PAUSE = 20.0
_WORTH_ANOTHER_TRY = frozenset({429, 500, 502, 503, 504})


class Service:
    """One HTTP API.

    Args:
        name: What messages call it.
        url: What stands before every path.
        sleep: Waits for so many seconds.
    """

    def __init__(self, name: str, url: str, *, sleep: Callable[[float], None] = time.sleep) -> None:
        self._name = name
        self._url = url.rstrip("/")
        self._sleep = sleep

    def ask(
        self,
        method: str,
        path: str,
        *,
        token: str | None = None,
        params: Mapping[str, str | int] | None = None,
        json: Any = None,
        form: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> httpx.Response:
        """Return the answer to a request that may be sent more than once.

        Raises:
            ServiceError: It was refused, or there was no answer after ATTEMPTS tries.
        """
        sent = {**(headers or {}), **({"Authorization": f"Bearer {token}"} if token else {})}
        pause = _FIRST_PAUSE
        for attempt in range(1, ATTEMPTS + 1):
            trouble, response = self._send(method, path, params=params, json=json, data=form, headers=sent)
            if response is not None and response.status_code not in _WORTH_ANOTHER_TRY:
                return self._checked(method, path, response)
            if attempt < ATTEMPTS:
                self._sleep(min(_retry_after(response) or pause, _LONGEST_PAUSE))
                pause *= 2
        status = None if response is None else response.status_code
        raise ServiceError(f"{self._name}: {method} {path} failed {ATTEMPTS} times, at last with: {trouble}", status)

    def read(self, method: str, path: str, *needed: str, **options: Any) -> dict[str, Any]:
        """Return the JSON object that `ask` is answered with; it has the fields that are needed.

        Raises:
            ServiceError: As `ask`; or something else answers there.
        """
        response = self.ask(method, path, **options)
        try:
            answer = response.json()
        except ValueError:
            answer = None
        if not isinstance(answer, dict) or not answer.keys() >= set(needed):
            trouble = f"the answer to {method} {path} is not this API's: {_said(response)}; check the URL {self._url}"
            raise ServiceError(f"{self._name}: {trouble}")
        return answer

    def _send(self, method: str, path: str, **arguments: Any) -> tuple[str, httpx.Response | None]:
        try:
            response = httpx.request(method, f"{self._url}/{path}", timeout=_TIMEOUT, **arguments)
        except httpx.TransportError as error:
            return f"{type(error).__name__}: {error}", None
        except httpx.InvalidURL as error:
            raise ServiceError(f"{self._name}: {self._url!r} is no URL: {error}") from None
        return _said(response), response

    def _checked(self, method: str, path: str, response: httpx.Response) -> httpx.Response:
        if response.is_success:
            return response
        hint = "; check the token and its scopes" if response.status_code in (401, 403) else ""
        raise ServiceError(f"{self._name}: {method} {path} refused: {_said(response)}{hint}", response.status_code)


def _said(response: httpx.Response) -> str:
    return f"{response.status_code} {response.text.strip()[:300]}"


def _retry_after(response: httpx.Response | None) -> float:
    value = response.headers.get("Retry-After", "") if response is not None else ""
    return float(value) if value.isdecimal() else 0.0
