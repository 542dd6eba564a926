"""Jobs as a person writes and reads them."""

from __future__ import annotations

import json
import re
import uuid
from typing import TYPE_CHECKING, Any, NoReturn

from fleet import times
from fleet.errors import FleetError

if TYPE_CHECKING:
    from fleet.inventory import Inventory

# As the table of jobs has them: the words of `outcome`, and of `status` before there is one.
STATES = ("queued", "running", "done", "failed", "cancelled", "dead")
_SUMMARY_CHARACTERS = 60
_ID = re.compile(r"[0-9A-Za-z-]{1,64}")
# What a line of a batch may have beside its task, and what POST /jobs calls that.
_OPTIONS = {
    "agent": "agent",
    "requires": "requires",
    "priority": "priority",
    "after": "not_before",
    "key": "idempotency_key",
    "max_deliveries": "max_deliveries",
}


def order(command: str, payload: str, **options: Any) -> dict[str, Any]:
    """Return a submission as POST /jobs takes it. What is None of the options is left out.

    Without an `idempotency_key` it gets one of its own: repeated after a lost answer, it queues nothing twice.
    """
    said = {key: value for key, value in options.items() if value is not None}
    return {"command": command, "payload": payload, "idempotency_key": f"fleet-{uuid.uuid4()}", **said}


def parse_task(text: str) -> tuple[str, str]:
    """Turn `{"type":"exec","command":"uname -sr"}` into a command and its payload.

    `type` names the command; the other keys are its payload as JSON. A payload that is plain text, such as ping's, is
    written as `{"type":"ping","payload":"hello"}`.

    Raises:
        FleetError: the text is not a JSON object with a `type`.
    """
    return _task(_parsed(text, "the task"))


def parse_line(text: bytes, fleet: Inventory, now: float) -> dict[str, Any]:
    """Turn a line of a batch into a submission: `{"agent":"agent1","task":{"type":"ping"},"after":"10m"}`.

    Raises:
        FleetError: it is none.
    """
    line = _parsed(text, "it")
    if not isinstance(line, dict) or "task" not in line:
        raise FleetError('it must be a JSON object with a "task", such as {"agent":"agent1","task":{"type":"ping"}}')
    if unknown := line.keys() - {"task", *_OPTIONS}:
        raise FleetError(
            f"there is no {', '.join(sorted(unknown))}; beside the task there may be {', '.join(_OPTIONS)}"
        )
    options = {_OPTIONS[key]: value for key, value in line.items() if key != "task"}
    if (agent := line.get("agent")) is not None:
        fleet.agent(str(agent))
    if (after := line.get("after")) is not None:
        options["not_before"] = times.later(str(after)).at(now)
    if (requires := line.get("requires")) is not None:
        options["requires"] = {"caps": requires}
    return order(*_task(line["task"]), **options)


def parse_id(text: str) -> str:
    """Return the id of a job.

    Raises:
        FleetError: no job could have it.
    """
    if not _ID.fullmatch(text):
        raise no_job(text)
    return text


def no_job(text: str) -> FleetError:
    """Return what is said of an id that no job has."""
    return FleetError(f"there is no job {text!r}; fleet jobs lists them")


def _parsed(text: str | bytes, what: str) -> Any:
    try:
        return json.loads(text, parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        raise FleetError(f"{what} is not JSON: {error}") from error


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no number of it")


def _task(task: Any) -> tuple[str, str]:
    if not isinstance(task, dict) or not isinstance(task.get("type"), str):
        raise FleetError('the task must be a JSON object with a "type", such as {"type":"exec","command":"uname -sr"}')
    rest = {key: value for key, value in task.items() if key != "type"}
    if set(rest) <= {"payload"} and isinstance(rest.get("payload", ""), str):
        return task["type"], rest.get("payload", "")
    return task["type"], json.dumps(rest)


def output(job: dict[str, Any]) -> tuple[str, str]:
    """Return what a finished job printed, and what it had to say on the side (an error, or its standard error)."""
    if job["status"] == "failed":
        return "", _why(job)
    result = _object(job["result"])
    if result is None or not isinstance(result.get("stdout"), str):
        return job["result"] or "", ""
    return result["stdout"], str(result.get("stderr", ""))


def is_of_program(job: dict[str, Any]) -> bool:
    """Say whether a job's result has what a program printed, and is no other answer."""
    return isinstance((_object(job["result"]) or {}).get("stdout"), str)


def state(job: dict[str, Any]) -> str:
    """Return the state of a job, one of STATES."""
    return str(job.get("outcome") or job["status"])


def ending(job: dict[str, Any]) -> str:
    """Return how a job ended, and how long after it was begun."""
    milliseconds = job.get("duration_ms")
    return state(job) if milliseconds is None else f"{state(job)} in {milliseconds / 1000:.1f} s"


def failure(job: dict[str, Any]) -> str:
    """Return how a job failed, and why."""
    return ": ".join([ending(job), *([] if job["error"] in {None, state(job)} else [job["error"].rstrip()])])


def holder(job: dict[str, Any]) -> str:
    """Return the agent that runs a job or ran it last, or that it is for."""
    return job["worker_id"] or job["agent"] or "any"


def progress(job: dict[str, Any], now: float) -> str:
    """Return how far a running job is, or in how long a queued one may begin."""
    if job["not_before"] is not None:
        return f"in {times.span(job['not_before'] - now)}"
    if job["status"] != "running":
        return ""
    return report(job["progress"], None)


def report(percent: int | None, note: str | None) -> str:
    """Return what a job says of how far it is."""
    return " ".join([*([] if percent is None else [f"{percent} %"]), *([_short(_first_line(note))] if note else [])])


def asked(job: dict[str, Any]) -> str:
    """Return what a job is to do, in a few words."""
    return _short(f"{job['command']}: {_asked(job['payload'])}".rstrip(": "))


def summary(job: dict[str, Any] | None) -> str:
    """Return a job in a few words: how it ended, what was asked and the first line of what came of it."""
    if job is None:
        return "none"
    words = f"{job.get('dialect', 'jobs')} {asked(job)}"
    if job["status"] not in {"done", "failed"}:
        return f"{job['status']}   {words}"
    printed, said = output(job)
    return f"{ending(job)}   {words} → {_short(_first_line(printed or said))}"


def _why(job: dict[str, Any]) -> str:
    """Return a failed job's error; of a cancelled one that is only the reason, if one was given."""
    error = str(job["error"])
    return f"cancelled: {error}" if state(job) == "cancelled" and error != "cancelled" else error


def _asked(payload: str) -> str:
    fields = _object(payload)
    if fields is None:
        return _first_line(payload)
    if isinstance(fields.get("argv"), list):
        return " ".join(map(str, fields["argv"]))
    return _first_line(str(fields.get("command", payload)))


def _object(text: str | None) -> dict[str, Any] | None:
    try:
        value = json.loads(text or "")
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _first_line(text: str) -> str:
    return text.strip().partition("\n")[0]


def _short(text: str) -> str:
    # A job's own words must not move the cursor of who lists it.
    text = "".join(character if character.isprintable() else "�" for character in text)
    return text if len(text) <= _SUMMARY_CHARACTERS else f"{text[: _SUMMARY_CHARACTERS - 1]}…"
