"""What agents log: the last lines of each, in memory."""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass
from itertools import count

MAX_LINES = 1000
MAX_LINE = 4096
_MAX_AGENTS = 1000


@dataclass(frozen=True, slots=True)
class LogLine:
    """One line; `n` grows over all agents."""

    n: int
    at: float
    task_id: str | None
    text: str


class Logs:
    """The last lines of each agent, of those that logged last."""

    def __init__(self) -> None:
        self._lines: dict[str, deque[LogLine]] = {}
        self._numbers = count(1)

    def add(self, agent: str, task_id: str | None, texts: list[str]) -> None:
        """Keep some lines, each cut to a length."""
        kept = self._lines.pop(agent, None) or deque(maxlen=MAX_LINES)
        kept.extend(LogLine(next(self._numbers), time.time(), task_id, text[:MAX_LINE]) for text in texts)
        self._lines[agent] = kept
        if len(self._lines) > _MAX_AGENTS:
            del self._lines[next(iter(self._lines))]

    def since(self, agent: str, n: int, most: int) -> list[LogLine]:
        """The last lines of an agent, of those that came after a number."""
        return [line for line in self._lines.get(agent, ()) if line.n > n][-most:]

    def forget(self, agent: str) -> None:
        """Forget an agent's lines."""
        self._lines.pop(agent, None)
