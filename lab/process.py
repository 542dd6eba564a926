"""Running programs, and waiting for what they bring about."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from lab.errors import CommandFailedError, NotReadyError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

PROJECT = Path(__file__).resolve().parent.parent

T = TypeVar("T")


def run(argv: Sequence[str], *, stdin: str = "", timeout: float = 60, scratch: Path | None = None) -> str:
    """Run a program to its end and return what it printed; `scratch` is where it shall keep temporary files.

    Raises:
        CommandFailedError: its status was not zero, or `timeout` seconds went by.
    """
    try:
        done = subprocess.run(
            argv,
            env={**os.environ, "TMPDIR": str(scratch)} if scratch else None,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
    except subprocess.TimeoutExpired as expired:
        raise CommandFailedError(f"{shlex.join(argv)}: no end after {timeout:g} s") from expired
    if done.returncode:
        said = (done.stderr or done.stdout).strip()
        raise CommandFailedError(f"{shlex.join(argv)}: status {done.returncode}: {said}")
    return done.stdout


def start(arguments: Sequence[str], *, output: Path) -> None:
    """Start Python with these arguments at the kit's root. It is nobody's child and outlives us."""
    with output.open("ab") as file:
        subprocess.run(
            ["setsid", "--fork", sys.executable, *arguments],
            cwd=PROJECT,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
            check=True,
        )


def wait_until(ready: Callable[[], T | None], *, what: str, timeout: float, pause: float = 0.03) -> T:
    """Call `ready` until it returns something, and return that.

    Raises:
        NotReadyError: it returned None for `timeout` seconds.
    """
    deadline = time.monotonic() + timeout
    while (result := ready()) is None:
        if time.monotonic() > deadline:
            raise NotReadyError(f"{what}: not ready after {timeout:g} s")
        time.sleep(pause)
    return result
