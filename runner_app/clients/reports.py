"""What a running job says, told to a broker while it runs: beside the work, which never waits for it."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from runner_app.clients.backoff import Backoff
from runner_app.clients.client import LeaseLostError, RefusedError, UnavailableError
from runner_app.pieces import Pieces
from runner_app.progress import Progress, progress

_FIRST_REST_SECONDS, _LONGEST_REST_SECONDS = 1, 30


class Reports:
    """Tells of one attempt, by calls that ``send`` makes. A call that fails costs nothing but time."""

    def __init__(self, directory: Path, send: Callable[[dict[str, Any]], Awaitable[None]]) -> None:
        self._directory = directory
        self._send = send
        self._pieces = Pieces(directory)
        self._told: Progress | None = None
        self._backoff = Backoff(_FIRST_REST_SECONDS, _LONGEST_REST_SECONDS)
        self._rests_until = 0.0
        self._unwanted = False

    async def tell(self, *, ended: bool) -> None:
        """Tell what is new: a piece of it or, once the job has ended, all."""
        now = asyncio.get_running_loop().time
        if self._unwanted or (now() < self._rests_until and not ended):
            return
        try:
            while await self._tell_next(ended=ended) and ended:
                pass
        except (LeaseLostError, RefusedError):
            self._unwanted = True  # the job is not ours, or the broker knows no such call
        except (UnavailableError, OSError):
            self._rests_until = now() + self._backoff.next()
        else:
            self._backoff.reset()

    async def _tell_next(self, *, ended: bool) -> bool:
        """Tell of one piece and of the progress, where there is something new; return whether there was."""
        fields: dict[str, Any] = {}
        if piece := self._pieces.next(ended=ended):
            fields |= {"text": piece.text, "offset": piece.offset}
        says = progress(self._directory)
        if says and says != self._told:
            fields |= {"progress": says.percent, "note": says.note}
        if not fields:
            return False
        await self._send(fields)
        self._told = says or self._told
        if piece:
            self._pieces.taken()
        return True
