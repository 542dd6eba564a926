"""``exec``: payload → command, and records and output files → what the broker is told.

The payload is a JSON object ``{"argv": [...]}`` or ``{"command": "shell line"}`` with an optional ``cwd`` (inside the
workspace) and ``timeout`` (milliseconds), or else a shell line as it stands. The result is a JSON object
``{"exit_code", "stdout", "stderr", "truncated", "duration_ms"}``.
"""

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

from runner_app.job import Command, JobFailedError
from runner_app.settings import Settings

DEFAULT_TIMEOUT_MS = 30 * 60 * 1000
KEPT_BYTES = 64 * 1024  # of each stream, from its end
RESULT_BYTES = 200_000  # below the broker's own limit for a result, also once it is escaped again
_TAIL_CHARACTERS = 1000  # of stderr in an error
_ARGUMENT_BYTES = 128 * 1024 - 1  # Linux refuses to start a program with a longer one
_KEYS = {"argv", "command", "cwd", "timeout"}
STDOUT, STDERR = "stdout", "stderr"


def parse(payload: str, settings: Settings) -> Command:
    """Read a payload.

    Raises:
        JobFailedError: A key is unknown or unusable; the text names it.
    """
    value = _decode(payload)
    if unknown := sorted(set(value) - _KEYS):
        message = f"exec: unknown key {unknown[0]!r}: use argv or command, cwd, timeout"
        raise JobFailedError(message)
    return Command(
        argv=_argv(value), cwd=str(_cwd(value, settings.workspace)), timeout_ms=_timeout(value, settings.max_timeout_ms)
    )


def result(directory: Path, *, duration_ms: int) -> str:
    """Return the result of a job that ended well and whose output lies in ``directory``.

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


def _decode(payload: str) -> dict[str, Any]:
    try:
        value = json.loads(payload)
    except ValueError:
        value = payload
    except RecursionError:
        value = []
    if isinstance(value, list):
        message = "exec: the payload is a JSON list: send an object with argv or command, or a shell line"
        raise JobFailedError(message)
    return value if isinstance(value, dict) else {"command": payload}


def _argv(value: dict[str, Any]) -> tuple[str, ...]:
    if ("argv" in value) == ("command" in value):
        message = "exec: give either argv or command"
        raise JobFailedError(message)
    if "command" in value:
        line = _argument(value["command"], "command")
        return ("/bin/sh", "-c", line)
    argv = value["argv"]
    if not isinstance(argv, list) or not argv:
        message = "exec: argv must be a list of strings with the program first"
        raise JobFailedError(message)
    return tuple(_argument(item, f"argv[{index}]", empty=index > 0) for index, item in enumerate(argv))


def _argument(value: object, name: str, *, empty: bool = False) -> str:
    if not isinstance(value, str) or "\0" in value or not (value.strip() or empty):
        message = f"exec: {name} must be a string{'' if empty else ' that is not empty'}, without NUL"
        raise JobFailedError(message)
    try:
        size = len(value.encode())
    except UnicodeEncodeError:
        message = f"exec: {name} has half of a surrogate pair in it, which is no text"
        raise JobFailedError(message) from None
    if size > _ARGUMENT_BYTES:
        message = f"exec: {name} is longer than {_ARGUMENT_BYTES} bytes, which no program can be given"
        raise JobFailedError(message)
    return value


def _cwd(value: dict[str, Any], workspace: Path) -> Path:
    cwd = value.get("cwd", ".")
    if not isinstance(cwd, str) or "\0" in cwd:
        message = "exec: cwd must be a string, without NUL"
        raise JobFailedError(message)
    try:
        root = workspace.resolve()
        path = (root / cwd).resolve()
        usable = path.is_dir()
    except (OSError, RuntimeError, ValueError) as error:
        message = f"exec: cwd cannot be used: {error}"
        raise JobFailedError(message) from error
    if not path.is_relative_to(root):
        message = f"exec: cwd {cwd!r} leads out of the workspace"
        raise JobFailedError(message)
    if not usable:
        message = f"exec: cwd {cwd!r} is not a directory in the workspace"
        raise JobFailedError(message)
    return path


def _timeout(value: dict[str, Any], ceiling: int) -> int:
    timeout = value.get("timeout", min(DEFAULT_TIMEOUT_MS, ceiling))
    if isinstance(timeout, bool) or not isinstance(timeout, int) or not 1 <= timeout <= ceiling:
        message = f"exec: timeout must be a whole number of milliseconds from 1 to {ceiling}"
        raise JobFailedError(message)
    return timeout


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
