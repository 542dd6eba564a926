"""The connection to the Hetzner Cloud API, and what all kinds do with it."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any, TypeVar

from hcloud import APIException, Client
from hcloud.actions import ActionFailedException

from lab.providers.kinds import ProviderError, require_loopback

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from hcloud.actions import BoundAction

_CALL_SECONDS = 30
_ACTION_SECONDS = 15 * 60
_TRIES = 10

T = TypeVar("T")


class Api:
    """Hetzner's client, with waits that end: by themselves, or when the engine cancels.

    Args:
        settings: the plugin's configuration: token, endpoint, pollInterval (500ms by default, as the plugin has it).

    Raises:
        ProviderError: no token, or an endpoint that is not on this machine.
    """

    def __init__(self, settings: Mapping[str, str]) -> None:
        require_loopback("hcloud:endpoint", settings.get("endpoint", ""))
        if not settings.get("token"):
            raise ProviderError("hcloud:token: missing; set it with `pulumi config set --secret hcloud:token`")
        self.client = Client(
            settings["token"], settings["endpoint"], application_name="openclaw-lab", timeout=_CALL_SECONDS
        )
        self._poll = _seconds(settings.get("pollInterval") or "500ms")
        self._cancelled = threading.Event()

    def cancel(self) -> None:
        """Let every wait give up."""
        self._cancelled.set()

    def wait(self, *actions: BoundAction | None) -> None:
        """Wait until these actions are done.

        Raises:
            ActionFailedException: one of them failed.
            ProviderError: the engine cancelled, or one takes too long.
        """
        deadline = time.monotonic() + _ACTION_SECONDS
        for action in filter(None, actions):
            while action.status == "running":
                self.pause()
                if time.monotonic() > deadline:
                    raise ProviderError(f"{action.command}: action {action.id} runs for {_ACTION_SECONDS} s; given up")
                action.reload()
            if action.status == "error":
                raise ActionFailedException(action)

    def retry(self, call: Callable[[], T], *codes: str) -> T:
        """Make a call again for as long as it fails with one of these codes, ten times at the most."""
        for left in range(_TRIES - 1, -1, -1):
            try:
                return call()
            except APIException as error:
                if error.code not in codes or not left:
                    raise
                self.pause(_TRIES - left)
        raise AssertionError

    def pause(self, times: int = 1) -> None:
        """Wait for one or more poll intervals, five seconds at the most.

        Raises:
            ProviderError: the engine cancelled.
        """
        if self._cancelled.wait(min(self._poll * times, 5)):
            raise ProviderError("cancelled")


def found(get: Callable[[int], Any], object_id: str | int) -> Any:
    """Return what `get` returns for an id, or None if the API has no such object.

    Untyped, because in the client's models everything may be None, and the API tells everything that is read here.
    """
    try:
        return get(int(object_id))
    except APIException as error:
        if error.code != "not_found":
            raise
        return None


def without_missing(call: Callable[[], object]) -> None:
    """Make a call, and take it for done where the API has no such object."""
    try:
        call()
    except APIException as error:
        if error.code != "not_found":
            raise


def _seconds(duration: str) -> float:
    """Return the seconds of a duration as Go writes them, with one unit: 500ms, 2s.

    Raises:
        ProviderError: it is none.
    """
    for unit, factor in (("ms", 0.001), ("s", 1.0)):
        if duration.endswith(unit) and duration.removesuffix(unit).replace(".", "", 1).isdigit():
            return float(duration.removesuffix(unit)) * factor
    raise ProviderError(f"hcloud:pollInterval: {duration!r} is no duration; write 500ms or 2s")
