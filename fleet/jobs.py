"""Jobs as a person writes and reads them."""

from __future__ import annotations

import json
from typing import Any

from fleet.errors import FleetError

_SUMMARY_CHARACTERS = 60


def parse_task(text: str) -> tuple[str, str]:
    """Turn `{"type":"exec","command":"uname -sr"}` into a command and its payload.

    `type` names the command; the other keys are its payload as JSON. A payload that is plain text, such as ping's, is
    written as `{"type":"ping","payload":"hello"}`.

    Raises:
        FleetError: the text is not a JSON object with a `type`.
    """
    try:
        task = json.loads(text)
    except ValueError as error:
        raise FleetError(f"the task is not JSON: {error}") from error
    if not isinstance(task, dict) or not isinstance(task.get("type"), str):
        raise FleetError('the task must be a JSON object with a "type", such as {"type":"exec","command":"uname -sr"}')
    rest = {key: value for key, value in task.items() if key != "type"}
    if set(rest) <= {"payload"} and isinstance(rest.get("payload", ""), str):
        return task["type"], rest.get("payload", "")
    return task["type"], json.dumps(rest)


def output(job: dict[str, Any]) -> tuple[str, str]:
    """Return what a finished job printed, and what it had to say on the side (an error, or its standard error)."""
    if job["status"] == "failed":
        return "", f"{job['error']}"
    result = _object(job["result"])
    if result is None or "stdout" not in result:
        return job["result"] or "", ""
    return result["stdout"], result.get("stderr", "")


def summary(job: dict[str, Any] | None) -> str:
    """Return a job in a few words: how it ended, what was asked and the first line of what came of it."""
    if job is None:
        return "none"
    asked = f"{job.get('dialect', 'jobs')} {job['command']}: {_asked(job['payload'])}".rstrip(": ")
    if job["status"] not in {"done", "failed"}:
        return f"{job['status']}   {_short(asked)}"
    printed, said = output(job)
    seconds = (job.get("duration_ms") or 0) / 1000
    return f"{job['status']} in {seconds:.1f} s   {_short(asked)} → {_short(_first_line(printed or said))}"


def _asked(payload: str) -> str:
    fields = _object(payload)
    if fields is None:
        return _first_line(payload)
    if "argv" in fields:
        return " ".join(map(str, fields["argv"]))
    return str(fields.get("command", payload))


def _object(text: str | None) -> dict[str, Any] | None:
    try:
        value = json.loads(text or "")
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


def _first_line(text: str) -> str:
    return text.strip().partition("\n")[0]


def _short(text: str) -> str:
    return text if len(text) <= _SUMMARY_CHARACTERS else f"{text[: _SUMMARY_CHARACTERS - 1]}…"
