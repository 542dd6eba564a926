"""The shape of a step."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from lab.hetzner_api.driver import Driver
from lab.hetzner_api.store import Record, Records, Store

Drive = Callable[[Store, Driver, Record], Any]
Settle = Callable[[Records, Record, Any], None]


def _nothing(*_: object) -> None:
    pass


@dataclass(frozen=True, slots=True)
class Step:
    """What an action of one command does.

    A crash between the two has both run again, so `drive` must bear being repeated.

    Attributes:
        drive: Has the driver do its part, from the action's arguments, and returns what came of it.
        settle: Writes that down, in the transaction that ends the action.
    """

    drive: Drive = _nothing
    settle: Settle = _nothing
