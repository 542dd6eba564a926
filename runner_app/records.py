"""The records of one attempt at a job, and the script that systemd runs to write them.

A job's directory holds ``claim.json`` (the runner's), ``started.json`` and ``exit.json`` (written by this script or
by the supervisor, never by the job) and, when someone ordered the stop, ``stop.json``. This file needs nothing but
the standard library and is run by its path, so that an old job ends under the release that started it::

    python3 -I -S records.py started DIR   # ExecStartPre: exactly one start may own the directory
    python3 -I -S records.py ended DIR     # ExecStopPost: SERVICE_RESULT, EXIT_CODE, EXIT_STATUS from systemd
    python3 -I -S records.py stop DIR WHY  # the dead-man timer, before it kills
"""

import json
import os
import sys
import time
from pathlib import Path

STARTED = "started.json"
EXIT = "exit.json"
STOP = "stop.json"


def write(path: Path, record: dict[str, object], *, exclusive: bool = False) -> None:
    """Put a record on disk: whole or not at all, also after a crash.

    Args:
        path: The file; its directory exists.
        record: What to write, as a JSON object.
        exclusive: Refuse to replace a record that is there already.

    Raises:
        FileExistsError: ``exclusive`` and there is one.
        OSError: The disk did not take it.
    """
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with draft.open("w", encoding="utf-8") as file:
            json.dump(record, file)
            file.flush()
            os.fsync(file.fileno())
        if exclusive:
            os.link(draft, path)
        else:
            draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)
    sync_directory(path.parent)


def sync_directory(path: Path) -> None:
    """Make the entries of a directory durable. One that is gone was read to its end and closed meanwhile."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    except FileNotFoundError:
        return
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def read(path: Path) -> dict[str, object] | None:
    """Return a record, or None where there is none.

    Raises:
        ValueError: The file is not a JSON object.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    record = json.loads(text)
    if not isinstance(record, dict):
        message = f"{path}: not a JSON object"
        raise ValueError(message)
    return record


def moment() -> dict[str, object]:
    """Return this boot's identity and the seconds since it, which no clock change moves."""
    boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    return {"boot": boot, "uptime": time.clock_gettime(time.CLOCK_BOOTTIME)}


def main(arguments: list[str]) -> int:
    """Write one record for a unit; see the module's text for the calls."""
    verb, directory = arguments[0], Path(arguments[1])
    invocation = os.environ.get("INVOCATION_ID", "")
    if verb == "started":
        write(directory / STARTED, {"invocation": invocation, **moment()}, exclusive=True)
        return 0
    if verb == "stop":
        write(directory / STOP, {"why": arguments[2]})
        return 0
    started = read(directory / STARTED)
    if started is None or started["invocation"] != invocation:
        return 0  # this start never owned the directory: its end says nothing about the job
    ending = {
        "result": os.environ["SERVICE_RESULT"],
        "code": os.environ.get("EXIT_CODE", ""),
        "status": os.environ.get("EXIT_STATUS", ""),
    }
    write(directory / EXIT, {**ending, "invocation": invocation, **moment()}, exclusive=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
