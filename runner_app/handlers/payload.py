"""Reading a task's payload, a JSON object, field by field. Every error names the task and the field."""

import json
from collections.abc import Collection
from typing import Any

from runner_app.job import JobFailedError
from runner_app.settings import Settings

DEFAULT_TIMEOUT_MS = 30 * 60 * 1000
TIMEOUT = "timeout"
# What the tasks dialect has in a payload for others than the runner: whom it is for, and what it is about.
_FOR_THE_QUEUE = {"agent_hint", "lead_id"}
_ARGUMENT_BYTES = 128 * 1024 - 1  # Linux refuses to start a program with a longer one


class Payload:
    """One task's fields; those that it does not know are refused.

    Raises:
        JobFailedError: From every method: the field is missing or unusable.
    """

    def __init__(self, task: str, text: str, known: Collection[str]) -> None:
        self._task = task
        self._known = known
        self._fields = self._decode(text)
        if unknown := sorted(set(self._fields) - set(known) - _FOR_THE_QUEUE):
            raise self.refuse(f"unknown key {unknown[0]!r}: use {', '.join(known)}")

    def __contains__(self, name: str) -> bool:
        return name in self._fields

    def refuse(self, why: str) -> JobFailedError:
        """Return the error to raise."""
        return JobFailedError(f"{self._task}: {why}")

    def text(self, name: str, default: str | None = None, *, empty: bool = False) -> str:
        """Return a text; without a default it must be there."""
        value = self._fields.get(name, default)
        return self._text(value, name, empty=empty)

    def argument(self, name: str) -> str:
        """Return a text that a program can be given."""
        return self._argument(self._fields.get(name), name)

    def arguments(self, name: str, *, first: str = "") -> tuple[str, ...]:
        """Return a list of texts that a program can be given; one whose ``first`` is said may not lack it."""
        values = self._fields.get(name, [])
        if not isinstance(values, list) or not (values or not first):
            raise self.refuse(f"{name} must be a list of strings{first}")
        return tuple(
            self._argument(value, f"{name}[{index}]", empty=not first or index > 0)
            for index, value in enumerate(values)
        )

    def choice(self, name: str, values: Collection[str], default: str) -> str:
        """Return one of some words."""
        value = self._fields.get(name, default)
        if value not in list(values):
            raise self.refuse(f"{name} must be {' or '.join(values)}")
        return str(value)

    def flag(self, name: str) -> bool:
        """Return true or false; false if it is absent."""
        value = self._fields.get(name, False)
        if not isinstance(value, bool):
            raise self.refuse(f"{name} must be true or false")
        return value

    def timeout_ms(self, ceiling: int) -> int:
        """Return how long the task may take."""
        timeout = self._fields.get(TIMEOUT, min(DEFAULT_TIMEOUT_MS, ceiling))
        if isinstance(timeout, bool) or not isinstance(timeout, int) or not 1 <= timeout <= ceiling:
            raise self.refuse(f"timeout must be a whole number of milliseconds from 1 to {ceiling}")
        return timeout

    def cwd(self, settings: Settings) -> str:
        """Return where in the workspace a program of the submitter's starts."""
        cwd = self.text("cwd", ".", empty=True)
        try:
            root = settings.workspace.resolve()
            path = (root / cwd).resolve()
            usable = path.is_dir()
        except (OSError, RuntimeError, ValueError) as error:
            raise self.refuse(f"cwd cannot be used: {error}") from error
        if not path.is_relative_to(root):
            raise self.refuse(f"cwd {cwd!r} leads out of the workspace")
        if not usable:
            raise self.refuse(f"cwd {cwd!r} is not a directory in the workspace")
        return str(path)

    def _decode(self, text: str) -> dict[str, Any]:
        try:
            value = json.loads(text)
        except (ValueError, RecursionError):
            value = None
        if not isinstance(value, dict):
            raise self.refuse(f"the payload must be a JSON object with {', '.join(self._known)}")
        return value

    def _argument(self, value: object, name: str, *, empty: bool = False) -> str:
        text = self._text(value, name, empty=empty)
        if len(text.encode()) > _ARGUMENT_BYTES:
            raise self.refuse(f"{name} is longer than {_ARGUMENT_BYTES} bytes, which no program can be given")
        return text

    def _text(self, value: object, name: str, *, empty: bool = False) -> str:
        if not isinstance(value, str) or "\0" in value or not (value.strip() or empty):
            raise self.refuse(f"{name} must be a string{'' if empty else ' that is not empty'}, without NUL")
        try:
            value.encode()
        except UnicodeEncodeError:
            raise self.refuse(f"{name} has half of a surrogate pair in it, which is no text") from None
        return value


def shell_line_or_object(text: str) -> str:
    """Return a payload as an object: what is no JSON object is a shell line, but for a list, which is an oversight."""
    try:
        value = json.loads(text)
    except ValueError:
        value = text
    except RecursionError:
        value = []
    return text if isinstance(value, dict | list) else json.dumps({"command": text})
