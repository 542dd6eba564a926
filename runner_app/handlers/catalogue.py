"""The commands that run as jobs of their own: how each reads its payload, and what its result is made of."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from runner_app.handlers import exec as program
from runner_app.handlers import inside, output, script
from runner_app.job import Command, Job
from runner_app.settings import Settings


@dataclass(frozen=True, slots=True)
class Task:
    """One of them. ``result`` takes the directory with the output, and how long the job took."""

    parse: Callable[[str, str, Settings], Command]
    result: Callable[[Path, int], str]


_TASKS = {
    **dict.fromkeys((program.EXEC, "build", "test"), Task(program.parse, output.streams)),
    "script": Task(script.parse, output.streams),
    **dict.fromkeys(inside.TASKS, Task(inside.parse, output.answer)),
}
COMMANDS = tuple(_TASKS)


def command(job: Job, settings: Settings) -> Command:
    """Return what a job runs.

    Raises:
        JobFailedError: A field of its payload is unknown or unusable; the text names it.
    """
    return _TASKS[job.command].parse(job.command, job.payload, settings)


def result(job: Job, directory: Path, *, duration_ms: int) -> str:
    """Return the result of a job that ended well.

    Raises:
        OSError: Its output cannot be read.
    """
    return _TASKS[job.command].result(directory, duration_ms)
