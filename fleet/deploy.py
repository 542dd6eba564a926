"""Running a playbook and showing how it goes: one line a play, Ansible's own words where it fails."""

from __future__ import annotations

import re
import subprocess
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from fleet.errors import DeployError
from fleet.inventory import PROJECT, environment, sources

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

_PLAY = re.compile(r"^PLAY \[(?P<name>.*)\]")
_TASK = re.compile(r"^(?:TASK|RUNNING HANDLER) \[(?P<name>.*)\]")
_RECAP = re.compile(r"^(?P<host>\S+)\s+: ok=(?P<ok>\d+)\s+changed=(?P<changed>\d+)")
_FAILURE = re.compile(r"^(?:fatal|failed|ERROR|\[ERROR\])")
_SHOWN_FAILURE_LINES = 60


@dataclass
class Report:
    """How a run went: seconds per play, and changed tasks per host."""

    plays: list[tuple[str, float]] = field(default_factory=list)
    changed: dict[str, int] = field(default_factory=dict)


class Progress:
    """Reads Ansible's output line by line."""

    def __init__(self, on_play: Callable[[str, float], None], on_task: Callable[[str], None]) -> None:
        self.report = Report()
        self.trouble: list[str] = []
        self._on_play = on_play
        self._on_task = on_task
        self._play = ""
        self._since = time.monotonic()

    def read(self, line: str) -> None:
        """Take one line of output."""
        if play := _PLAY.match(line):
            self.end_play()
            self._play = play["name"]
        elif task := _TASK.match(line):
            self._on_task(task["name"])
        elif line.startswith("PLAY RECAP"):
            self.end_play()
        elif recap := _RECAP.match(line):
            self.report.changed[recap["host"]] = int(recap["changed"])
        if _FAILURE.match(line) or (self.trouble and not line.startswith(("ok:", "changed:", "skipping:"))):
            self.trouble.append(line.rstrip())

    def end_play(self) -> None:
        """Report the play that has just ended, if one was under way."""
        now = time.monotonic()
        if self._play:
            self.report.plays.append((self._play, now - self._since))
            self._on_play(self._play, now - self._since)
        self._play, self._since = "", now


def playbook(
    path: Path, inventories: Iterable[Path], *, on_play: Callable[[str, float], None], on_task: Callable[[str], None]
) -> Report:
    """Run a playbook to its end.

    Raises:
        DeployError: it failed; the message holds what Ansible said from the first failure on.
    """
    progress = Progress(on_play, on_task)
    argv = ["ansible-playbook", *sources(list(inventories)), str(path)]
    with subprocess.Popen(
        argv,
        cwd=PROJECT,
        env={**environment(), "ANSIBLE_FORCE_COLOR": "0"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        tail: list[str] = []
        for line in process.stdout or ():
            progress.read(line)
            tail = [*tail, line.rstrip()][-_SHOWN_FAILURE_LINES:]
    if process.returncode:
        said = progress.trouble[:_SHOWN_FAILURE_LINES] or tail
        raise DeployError("\n".join([f"{path.name} failed:", *said]))
    return progress.report
