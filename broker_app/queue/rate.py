"""How often each submitter may submit."""

from __future__ import annotations

from collections import deque

from broker_app.errors import TooManySubmissionsError

_WINDOW_SECONDS = 60.0


class RateLimit:
    """At most `per_minute` submissions of one submitter in any 60 seconds; 0 means no limit."""

    def __init__(self, per_minute: int) -> None:
        self._per_minute = per_minute
        self._times: dict[str | None, deque[float]] = {}

    def admit(self, submitter: str | None, now: float, count: int = 1) -> None:
        """Count submissions, all or none; no more at once than are allowed in a minute.

        Raises:
            TooManySubmissionsError: They are more than is left of the minute's share.
        """
        if self._per_minute == 0:
            return
        times = self._times.setdefault(submitter, deque())
        if times and times[-1] > now:
            # The clock was set back: until it is there again these would be in the way.
            times.clear()
        while times and times[0] <= now - _WINDOW_SECONDS:
            times.popleft()
        if len(times) + count > self._per_minute:
            last_in_the_way = times[len(times) + count - self._per_minute - 1]
            raise TooManySubmissionsError(last_in_the_way + _WINDOW_SECONDS - now)
        times.extend([now] * count)
