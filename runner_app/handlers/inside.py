"""``file:read``, ``file:write``, ``git:clone``, ``git:pull``, ``git:push``: payload → an order for a program of ours.

That program (``runner_app.tasks``) runs where any job does, so that paths are followed there and not in the runner. It
reads its order as JSON and prints the task's result.
"""

import json
import sys
from collections.abc import Callable

from runner_app.execution import PACKAGES
from runner_app.handlers.payload import TIMEOUT, Payload
from runner_app.job import Command
from runner_app.settings import Settings

_CONTENT_BYTES = 256 * 1024  # as much as a broker takes

_Reader = Callable[[Payload, str], str | bool]


def _content(payload: Payload, name: str) -> str:
    text = payload.text(name, empty=True)
    if len(text.encode()) > _CONTENT_BYTES:
        raise payload.refuse(f"{name} is longer than {_CONTENT_BYTES} bytes")
    return text


def _encoding(payload: Payload, name: str) -> str:
    return payload.choice(name, ("utf-8", "base64"), "utf-8")


def _branch(payload: Payload, name: str) -> str:
    return payload.text(name, "", empty=True)


def _remote(payload: Payload, name: str) -> str:
    return payload.text(name, "origin")


_TASKS: dict[str, dict[str, _Reader]] = {
    "file:read": {"filePath": Payload.text, "encoding": _encoding},
    "file:write": {
        "filePath": Payload.text,
        "content": _content,
        "encoding": _encoding,
        "createDirs": Payload.flag,
    },
    "git:clone": {"repo": Payload.text, "destination": Payload.text, "branch": _branch},
    "git:pull": {"repoPath": Payload.text},
    "git:push": {"repoPath": Payload.text, "remote": _remote, "branch": _branch},
}
TASKS = tuple(_TASKS)


def parse(task: str, text: str, settings: Settings) -> Command:
    """Read a payload.

    Raises:
        JobFailedError: A field is unknown or unusable; the text names it.
    """
    readers = _TASKS[task]
    payload = Payload(task, text, (*readers, TIMEOUT))
    order = {"task": task, "workspace": str(settings.workspace)}
    fields = {name: read(payload, name) for name, read in readers.items()}
    return Command(
        # No module is looked for where the task works.
        argv=("/usr/bin/env", f"PYTHONPATH={PACKAGES}", sys.executable, "-PSs", "-m", "runner_app.tasks"),
        cwd="/",
        timeout_ms=payload.timeout_ms(settings.max_timeout_ms),
        stdin=json.dumps({**order, **fields}),
    )
