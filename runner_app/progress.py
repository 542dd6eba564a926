"""How far a job says it is: the last line of a file that it was named, ``PERCENT`` or ``PERCENT note``."""

import os
import re
from dataclasses import dataclass
from pathlib import Path

VARIABLE = "JOB_PROGRESS"
FILE = "progress"  # in the attempt's directory, where it may be a link to where the job can write
_LINE = re.compile(r"([0-9]{1,2}|100)(?: +(.*))?")
_LOOKED_AT = 4096  # bytes at its end
_NOTE_CHARACTERS = 200


@dataclass(frozen=True, slots=True)
class Progress:
    """A percentage, and a note that may be empty."""

    percent: int
    note: str


def progress(directory: Path) -> Progress | None:
    """Return how far an attempt says it is; None where it does not say, or says what is no such line."""
    try:
        end = _end(directory / FILE)
    except OSError:
        return None
    line = end.decode("utf-8", "replace").strip().rpartition("\n")[2].strip()
    match = _LINE.fullmatch(line) if line.isprintable() else None
    return Progress(int(match[1]), (match[2] or "")[:_NOTE_CHARACTERS]) if match else None


def _end(path: Path) -> bytes:
    """Read the end of a file. The job may have put anything there: a link to what only we may read, or a pipe."""
    if path.is_symlink():
        path = path.readlink()
    handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        return os.pread(handle, _LOOKED_AT, max(0, os.fstat(handle).st_size - _LOOKED_AT))
    finally:
        os.close(handle)
