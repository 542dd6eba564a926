"""The stack of nodes that is selected in this project: what `pulumi` says of it and does to it.

The engine writes into a file, not into a pipe: killed with us or after us, it must not be our output that ends it.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from fleet import preview, unfinished
from fleet.errors import StackError
from fleet.inventory import PROJECT

if TYPE_CHECKING:
    from collections.abc import Iterator

# Calls its argument with each line of the engine's, and returns what came of it in a few words.
Change = Callable[[Callable[[str], None]], str]
_QUESTION_SECONDS = 60
_PREVIEW_SECONDS = 600
_NO_STACK = "no stack selected"
_LOGGED_OUT = "PULUMI_ACCESS_TOKEN must be set for login"
_NO_STACKS_OF_YOURS = {"Pulumi.example.yaml", "Pulumi.lab.yaml"}
_OUTPUT = ("--yes", "--non-interactive", "--color=never", "--suppress-outputs", "--suppress-progress")
_CHANGE = re.compile(r"^ {4}(?:\S+ )?(?P<count>\d+ \w+)$")
_LOCKED = "the stack is currently locked by"
_HOLDER = re.compile(r"created by \S+@(?P<host>\S+) \(pid (?P<pid>\d+)\) at (?P<time>\S+)")
_SHOWN_LINES = 60


@dataclass(frozen=True)
class Holder:
    """Who holds a stack's lock: a process, and when it took the lock."""

    host: str
    pid: int
    since: datetime

    def is_dead(self) -> bool:
        """Say whether the process is known to have ended; of another machine's that cannot be known."""
        if self.host != os.uname().nodename:
            return False
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return True
        except PermissionError:
            pass  # somebody else's
        try:
            state, *rest = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            return False  # not Linux: whether it is still the same process cannot be known
        boot = next(line for line in Path("/proc/stat").read_text().splitlines() if line.startswith("btime "))
        started = int(boot.split()[1]) + int(rest[18]) / os.sysconf("SC_CLK_TCK")
        # Its number may have gone to another process since. Both times are true to a second.
        return state in "ZX" or started > self.since.timestamp() + 2


@dataclass(frozen=True)
class Stack:
    """A stack by its name."""

    name: str

    def up(self, on_line: Callable[[str], None]) -> str:
        """Make the stack's nodes what its configuration says, and return what was changed in a few words.

        Raises:
            StackError: it could not be done; done again, it goes on where this ended.
        """
        state = self.export()
        if begun := unfinished.begun(state):
            self._import(begun, on_line)
        done = self._complete(state, on_line)
        if unfinished.was_interrupted(state):
            self._change(["refresh", "--skip-preview", "--clear-pending-creates"], on_line)
        return done

    def losses(self) -> list[str]:
        """Return which servers and volumes `up` would delete or replace.

        Raises:
            StackError: The engine cannot tell, as where it would refuse to do it.
        """
        if not preview.has_data(self.export()):
            return []
        asked = ("preview", "--json", "--stack", self.name)
        return preview.losses(json.loads(_ask(*asked, seconds=_PREVIEW_SECONDS)).get("steps") or ())

    def destroy(self, on_line: Callable[[str], None]) -> str:
        """Delete all that the stack has; its configuration stays. The program runs for what it does after a deletion.

        Raises:
            StackError: it could not be done; done again, it goes on where this ended.
        """
        done = self._change(["destroy", "--skip-preview", "--run-program"], on_line)
        # Pulumi counts all that the program declares again before it goes.
        return re.sub(r", \d+ unchanged$", "", done)

    def export(self) -> dict[str, Any]:
        """Return the stack's state; secrets stay encrypted."""
        state: dict[str, Any] = json.loads(_ask("stack", "export", "--stack", self.name))
        return state

    def _complete(self, state: dict[str, Any], on_line: Callable[[str], None]) -> str:
        """Run up; and again with other keys where nodes had no whole server before, and have none now."""
        broken = [word for key in unfinished.keys_of_broken(state) for word in ("--replace", key)]
        try:
            return self._change(["up", "--skip-preview", *broken], on_line)
        except StackError:
            still = set(unfinished.keys(state)).intersection(unfinished.keys(self.export()))
            if not still:
                raise
        # A server that the first run deleted, and did not make again, would be deleted once more without a refresh.
        replaced = [word for key in sorted(still) for word in ("--replace", key)]
        return self._change(["up", "--skip-preview", "--refresh", *replaced], on_line)

    def _import(self, begun: list[unfinished.Begun], on_line: Callable[[str], None]) -> None:
        """Take into the state what an interrupted run has made."""
        there = unfinished.found(begun, self._setting("hcloud:token"), self._setting("hcloud:endpoint"))
        for each, number in there:
            self._change(["import", "--skip-preview", *each.import_arguments(number)], on_line)

    def _setting(self, key: str) -> str:
        """Return a value of the stack's configuration, or what the provider takes in its place, from HCLOUD_…."""
        try:
            return _ask("config", "get", key, "--stack", self.name).strip()
        except StackError:
            return os.environ.get(f"HCLOUD_{key.rpartition(':')[2].upper()}", "")

    def _change(self, command: list[str], on_line: Callable[[str], None]) -> str:
        argv = ["pulumi", *command, "--stack", self.name, *_OUTPUT]
        status, said = _run(argv, on_line)
        if status and _LOCKED in said and self._unlock(said):
            status, said = _run(argv, on_line)
        if status:
            raise StackError(f"pulumi {command[0]} of stack {self.name} failed:\n{_trouble(said)}")
        return _summary(said)

    def _unlock(self, said: str) -> bool:
        """Take the lock of a process away that is dead; a person decides on any other."""
        holders = list(_holders(said))
        if holders and all(holder.is_dead() for holder in holders):
            _ask("cancel", "--yes", "--stack", self.name)
            return True
        who = ", ".join(f"process {holder.pid} on {holder.host}" for holder in holders) or "another process"
        raise StackError(
            f"stack {self.name} is being changed by {who}: wait for its end; "
            f"if you know that it has ended, say: pulumi cancel --stack {self.name}"
        )


def selected() -> Stack | None:
    """Return the stack that is selected in this project, or None where there is none, or no Pulumi.

    Raises:
        StackError: pulumi cannot tell.
    """
    if not shutil.which("pulumi"):
        return None
    try:
        return Stack(_ask("stack", "--show-name").strip())
    except StackError as error:
        logged_out = _LOGGED_OUT in str(error)
        configured = sorted({file.name for file in (PROJECT / "infra").glob("Pulumi.*.yaml")} - _NO_STACKS_OF_YOURS)
        if _NO_STACK in str(error) or (logged_out and not configured):
            return None
        if logged_out:
            raise StackError(f"{configured[0]} is there, and pulumi is logged out: pulumi login") from error
        raise


def _ask(*arguments: str, seconds: float = _QUESTION_SECONDS) -> str:
    argv = ["pulumi", *arguments, "--non-interactive", "--color=never"]
    try:
        done = subprocess.run(
            argv,
            cwd=PROJECT,
            env=_environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise StackError(f"pulumi {arguments[0]} did not answer within {seconds:g} s") from error
    if done.returncode:
        raise StackError(f"pulumi {arguments[0]} failed: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout


def _run(argv: list[str], on_line: Callable[[str], None]) -> tuple[int, str]:
    """Run pulumi to its end and return its status and what it said.

    An interrupt reaches pulumi too, which then ends in good order and must be waited for; a second one ends it at once.
    """
    with tempfile.NamedTemporaryFile("w") as output, Path(output.name).open() as reader:
        process = subprocess.Popen(
            argv, cwd=PROJECT, env=_environment(), stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT
        )
        interrupted = False
        while True:
            try:
                for line in _lines(process, reader):
                    on_line(line)
                break
            except KeyboardInterrupt:
                interrupted = True
        reader.seek(0)
        said = reader.read()
    if interrupted:
        raise StackError("interrupted; the same command again goes on from here")
    return process.returncode, said


def _lines(process: subprocess.Popen[bytes], reader: IO[str]) -> Iterator[str]:
    while True:
        ended = process.poll() is not None
        yield from (line.strip() for line in reader if line.strip())
        if ended:
            return
        time.sleep(0.1)


def _environment() -> dict[str, str]:
    return {**os.environ, "PULUMI_SKIP_UPDATE_CHECK": "true"}


def _holders(said: str) -> Iterator[Holder]:
    for found in _HOLDER.finditer(said):
        yield Holder(found["host"], int(found["pid"]), datetime.fromisoformat(found["time"]))


def _summary(said: str) -> str:
    resources = said.rpartition("\nResources:\n")[2].splitlines()
    counts = [change["count"] for line in resources if (change := _CHANGE.match(line))]
    return ", ".join(counts) or "nothing to do"


def _trouble(said: str) -> str:
    lines = (said.partition("\nDiagnostics:\n")[2] or said).strip("\n").splitlines()
    return "\n".join(lines[:_SHOWN_LINES])
