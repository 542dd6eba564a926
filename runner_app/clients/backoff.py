"""Waiting between attempts at the broker: longer each time, and never in step with other runners."""

from dataclasses import dataclass
from secrets import SystemRandom

_RANDOM = SystemRandom()


@dataclass(slots=True)
class Backoff:
    """Delays in seconds that double from ``first`` up to ``most``, each taken at random from its upper half."""

    first: float
    most: float
    _failures: int = 0

    def next(self, *, at_least: float = 0) -> float:
        """Return how long to wait now; ``at_least`` is what the broker asked for."""
        delay = min(self.most, self.first * (1 << min(self._failures, 16)))
        self._failures += 1
        return max(at_least, delay * _RANDOM.uniform(0.5, 1))

    def reset(self) -> None:
        """Begin again at ``first``."""
        self._failures = 0
