"""What agents log: the last lines of each, in memory."""

from __future__ import annotations

import sys
import time
from collections import deque
from dataclasses import dataclass
from itertools import count

MAX_LINES = 1000
MAX_LINE = 4096
MAX_BYTES = 64 * 2**20
# Of a line, beside its text.
_LINE_BYTES = 256


@dataclass(frozen=True, slots=True)
class LogLine:
    """One line; `n` grows over all agents."""

    n: int
    at: float
    task_id: str | None
    text: str

    @property
    def size(self) -> int:
        """About how much memory it takes, in bytes."""
        return sys.getsizeof(self.text) + _LINE_BYTES


class Logs:
    """The last lines of each agent. Where all are too much, the oldest go of the agent that has logged nothing longest.

    Args:
        most: Bytes of memory that they may take.
    """

    def __init__(self, *, most: int = MAX_BYTES) -> None:
        self._most = most
        self._size = 0
        self._lines: dict[str, deque[LogLine]] = {}
        self._numbers = count(1)

    def add(self, agent: str, task_id: str | None, texts: list[str]) -> None:
        """Keep some lines, each cut to a length."""
        if not texts:
            return
        kept = self._lines[agent] = self._lines.pop(agent, deque())
        for text in texts:
            kept.append(LogLine(next(self._numbers), time.time(), task_id, text[:MAX_LINE]))
            self._size += kept[-1].size
        while len(kept) > MAX_LINES:
            self._drop(agent)
        while self._size > self._most:
            self._drop(next(iter(self._lines)))

    def since(self, agent: str, n: int, most: int) -> list[LogLine]:
        """The last lines of an agent, of those that came after a number."""
        return [line for line in self._lines.get(agent, ()) if line.n > n][-most:]

    def forget(self, agent: str) -> None:
        """Forget an agent's lines."""
        while agent in self._lines:
            self._drop(agent)

    def _drop(self, agent: str) -> None:
        lines = self._lines[agent]
        self._size -= lines.popleft().size
        if not lines:
            del self._lines[agent]
