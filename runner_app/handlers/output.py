"""Records and output files → what the broker is told."""

import json
from contextlib import suppress
from pathlib import Path

KEPT_BYTES = 64 * 1024  # of each stream, from its end
RESULT_BYTES = 200_000  # below the broker's own limit for a result, also once it is escaped again
_TAIL_CHARACTERS = 1000  # of stderr in an error
STDOUT, STDERR = "stdout", "stderr"


def streams(directory: Path, duration_ms: int) -> str:
    """Return the result of a program of the submitter's that ended well, and whose output lies in ``directory``.

    It is a JSON object ``{"exit_code", "stdout", "stderr", "truncated", "duration_ms"}``.

    Raises:
        OSError: The output cannot be read.
    """
    kept = KEPT_BYTES
    while True:
        stdout, cut_stdout = _tail(directory / STDOUT, kept)
        stderr, cut_stderr = _tail(directory / STDERR, kept)
        facts = {
            "exit_code": 0,
            "stdout": stdout,
            "stderr": stderr,
            "truncated": cut_stdout or cut_stderr,
            "duration_ms": duration_ms,
        }
        text = json.dumps(facts, ensure_ascii=False)
        if len(text.encode()) <= RESULT_BYTES:
            return text
        kept //= 2  # what has to be escaped takes up to six times its size


def answer(directory: Path, _: int) -> str:
    """Return the result of a program of ours that ended well: the one JSON object that it printed.

    Raises:
        OSError: The output cannot be read.
    """
    text, _cut = _tail(directory / STDOUT, RESULT_BYTES)
    return text


def error(directory: Path, reason: str) -> str:
    """Return the error of a job: why, and the last it said on stderr."""
    try:
        stderr, _ = _tail(directory / STDERR, 4 * _TAIL_CHARACTERS)
    except OSError as unreadable:
        stderr = f"(its stderr cannot be read: {unreadable.strerror})"
    tail = stderr.strip()[-_TAIL_CHARACTERS:]
    return f"{reason}: {tail}" if tail else reason


def output_bytes(directory: Path) -> int:
    """Return how much a job has written so far, or has reserved."""
    total = 0
    for name in (STDOUT, STDERR):
        with suppress(FileNotFoundError):
            status = (directory / name).stat()
            total += max(status.st_size, status.st_blocks * 512)
    return total


def _tail(path: Path, limit: int) -> tuple[str, bool]:
    try:
        path.chmod(0o600)  # a job can take everybody's rights away, by the file that it was given
        with path.open("rb") as file:
            size = file.seek(0, 2)
            file.seek(max(0, size - limit))
            data = file.read(limit)
    except FileNotFoundError:
        return "", False
    return data.decode("utf-8", "replace"), size > limit
