"""A running job's output, line by line, for a broker that keeps the latest of it."""

from contextlib import suppress
from pathlib import Path

from runner_app.handlers.output import STDERR, STDOUT

LOOK_SECONDS = 1  # between two looks, of few jobs
_MOST_PER_SECOND = 25  # of all jobs; a hub reads 50 envelopes a second, and behind more than that heartbeats come late
MOST_BYTES = 16 * 1024  # of each stream at each look; what is left of more is its end
MOST_CHARACTERS = 1000  # of a line


class Live:
    """Follows both streams of one attempt, from now on where it was adopted."""

    def __init__(self, directory: Path, *, from_now: bool) -> None:
        self._files = [directory / name for name in (STDOUT, STDERR)]
        self._read = {file: _size(file) if from_now else 0 for file in self._files}

    def lines(self, *, ended: bool) -> list[str]:
        """Return what is new; a line without its end is left for later, unless the job has ended or it is too long."""
        return [line for file in self._files for line in self._new(file, ended=ended)]

    def _new(self, file: Path, *, ended: bool) -> list[str]:
        start = self._read[file]
        skipped = max(0, _size(file) - start - MOST_BYTES)
        try:
            with file.open("rb") as stream:
                stream.seek(start + skipped)
                data = stream.read(MOST_BYTES)
        except OSError:
            return []  # it is not there yet, or the job took our rights away: its end tells
        whole = data if ended or len(data) == MOST_BYTES else data[: data.rfind(b"\n") + 1]
        self._read[file] = start + skipped + len(whole)
        note = [f"({skipped} bytes are left out)"] if skipped else []
        return note + [line[:MOST_CHARACTERS] for line in whole.decode("utf-8", "replace").splitlines()]


def look_seconds(jobs: int) -> float:
    """Return how long to wait between two looks at each of so many jobs."""
    return max(LOOK_SECONDS, jobs / _MOST_PER_SECOND)


def _size(file: Path) -> int:
    with suppress(OSError):
        return file.stat().st_size
    return 0
