"""Times as a person writes and reads them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime

from fleet.errors import FleetError

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_DELAY = re.compile(r"([0-9]{1,9})([smhd])")


@dataclass(frozen=True)
class Later:
    """A time: so many seconds from now if it is a delay, else since the epoch."""

    seconds: float
    is_delay: bool

    def at(self, now: float) -> float:
        """Return it in seconds since the epoch."""
        return now + self.seconds if self.is_delay else self.seconds


def later(text: str) -> Later:
    """Read a delay such as 30s, 10m, 2h or 1d, or a time in ISO 8601, here's where it names no zone.

    Raises:
        FleetError: it is neither.
    """
    if delay := _DELAY.fullmatch(text):
        return Later(float(delay[1]) * _UNITS[delay[2]], is_delay=True)
    try:
        return Later(datetime.fromisoformat(text).astimezone().timestamp(), is_delay=False)
    except (ValueError, OverflowError) as error:
        example = "30s, 10m, 2h, 1d or a time such as 2026-12-24T18:00"
        raise FleetError(f"{text!r} is no time to begin at: say {example}") from error


def moment(seconds: float) -> str:
    """Return a time since the epoch as a clock here shows it."""
    return f"{datetime.fromtimestamp(seconds).astimezone():%Y-%m-%d %H:%M:%S}"


def span(seconds: float) -> str:
    """Return how long something is, to the whole of its largest unit: 45s, 12m, 3h, 5d."""
    whole = max(0, int(seconds))
    unit = max((unit for unit, size in _UNITS.items() if size <= whole), key=_UNITS.__getitem__, default="s")
    return f"{whole // _UNITS[unit]}{unit}"
