"""Brings copies of a database to this version, each in a process that is killed one step later than the last.

    python -m tests.unit.broker_app.interrupted FILE FOLDER

A step is a statement of SQL, or a call that puts a file in place or on disk. Leaves FOLDER/0/db, FOLDER/1/db …; the
last is of a process that was not killed.
"""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import sqlite3
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest import mock

from broker_app import schema

if TYPE_CHECKING:
    from collections.abc import Callable


def main(source: Path, folder: Path) -> None:
    for steps in itertools.count():
        path = folder / str(steps) / "db"
        path.parent.mkdir()
        shutil.copy(source, path)
        child = os.fork()
        if child == 0:
            _advance(path, steps)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        if status != -signal.SIGKILL:
            sys.exit(status)


def _advance(path: Path, steps: int) -> None:
    left = itertools.count(steps, -1)

    def step(*_: Any) -> None:
        if next(left) == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    def traced(*arguments: Any, **options: Any) -> sqlite3.Connection:
        connection: sqlite3.Connection = connect(*arguments, **options)
        connection.set_trace_callback(step)
        return connection

    def stepping(call: Callable[..., Any]) -> Callable[..., Any]:
        def stepped(*arguments: Any) -> Any:
            step()
            return call(*arguments)

        return stepped

    connect = sqlite3.connect
    with (
        mock.patch.object(sqlite3, "connect", traced),
        mock.patch.object(os, "fsync", stepping(os.fsync)),
        mock.patch.object(Path, "replace", stepping(Path.replace)),
    ):
        schema.connect(path).close()
    sys.exit()


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
