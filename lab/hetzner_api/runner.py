"""Runs actions in threads, and takes up again what a crash cut short."""

from __future__ import annotations

import logging
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from lab.hetzner_api import actions
from lab.hetzner_api.errors import ApiError
from lab.hetzner_api.steps import STEPS

if TYPE_CHECKING:
    from lab.hetzner_api.driver import Driver
    from lab.hetzner_api.store import Record, Store

_LOG = logging.getLogger(__name__)
_AT_ONCE = 16
_SLICES = 4


class Runner:
    """Does what running actions say, oldest first; those that share a resource one after the other.

    Args:
        store: Where the actions are.
        driver: What makes machines.
        seconds: How long an action takes at the least.
    """

    def __init__(self, store: Store, driver: Driver, seconds: float) -> None:
        self._store = store
        self._driver = driver
        self._seconds = seconds
        self._pool = ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="action")
        self._choosing = threading.Lock()
        self._in_hand: set[int] = set()
        self._stopping = threading.Event()

    def look(self) -> None:
        """Take up every action that may run now."""
        with self._choosing:
            if self._stopping.is_set():
                return
            with self._store.transaction() as records:
                running = records.running()
            held: set[tuple[str, int]] = set()
            for action in running:
                resources = {(item["type"], item["id"]) for item in action["resources"]}
                if held.isdisjoint(resources) and action["id"] not in self._in_hand:
                    self._in_hand.add(action["id"])
                    self._pool.submit(self._take, action)
                held |= resources

    def stop(self) -> None:
        """Let what a driver does come to its end, and leave the rest to the next start."""
        with self._choosing:
            self._stopping.set()
        self._pool.shutdown()

    def _take(self, action: Record) -> None:
        try:
            self._run(action)
        except Exception:
            _LOG.exception("%s %s: cannot be recorded", action["command"], action["id"])
        with self._choosing:
            self._in_hand.discard(action["id"])
        self.look()

    def _run(self, action: Record) -> None:
        if not self._wait(action):
            return
        try:
            self._perform(action)
        except ApiError as error:
            self._fail(action, error)
        except Exception as error:
            _LOG.exception("%s %s failed", action["command"], action["id"])
            self._fail(action, ApiError("action_failed", str(error)))

    def _wait(self, action: Record) -> bool:
        """Let the action take its time; False if the stand-in stops meanwhile."""
        seconds = self._seconds if action["seconds"] is None else action["seconds"]
        for part in range(1, _SLICES + 1):
            if self._stopping.wait(seconds / _SLICES):
                return False
            action["progress"] = 95 * part // _SLICES
            with self._store.transaction() as records:
                records.save("action", action)
        return True

    def _perform(self, action: Record) -> None:
        if action["failure"]:
            raise ApiError(action["failure"]["code"], action["failure"]["message"])
        step = STEPS[action["command"]]
        result = step.drive(self._store, self._driver, action["arguments"])
        with self._store.transaction() as records:
            step.settle(records, action["arguments"], result)
            actions.end(records, action)

    def _fail(self, action: Record, error: ApiError) -> None:
        with self._store.transaction() as records:
            actions.end(records, action, error)
