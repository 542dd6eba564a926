"""The hub dialect over WebSocket: envelopes → commands, and jobs → envelopes."""

from __future__ import annotations

import json
import math
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from broker_app.agents import NAME_PATTERN
from broker_app.dialects.fields import Fields, matching, read_object, utf8_size
from broker_app.dialects.hub import HUB
from broker_app.dialects.objects import kept, shown
from broker_app.errors import MalformedError
from broker_app.queue.commands import Fail, Finish, Release
from broker_app.queue.job import Status

if TYPE_CHECKING:
    from collections.abc import Mapping

    from broker_app.queue.job import Job
    from broker_app.settings import Settings

TYPES = ("task", "response", "health", "log")
MAX_HEALTH_BYTES = 4096
MAX_LOG_LINES = 1000
MAX_SLOTS = 64
_MAX_ID_BYTES = 128
_MAX_LEASES = 1000
_MAX_EPOCH = 2**53
_MEASURES = ("cpu", "memory", "disk")
_WORDS = {Status.QUEUED: "sent", Status.RUNNING: "running", Status.DONE: "completed"}


@dataclass(frozen=True, slots=True)
class Envelope:
    """What came over a WebSocket; `values` is all of it."""

    id: str
    to: str
    type: str
    payload: Mapping[str, Any]
    values: Mapping[str, Any]


def word(job: Job) -> str:
    """What the hub calls the job's state."""
    return _WORDS.get(job.status) or str(job.outcome)


def read(text: str, sender: str) -> Envelope:
    """What an agent sent.

    Raises:
        MalformedError: It is no envelope, or says that it is another agent's.
    """
    values = read_object(text.encode("utf-8", "surrogatepass"), status=400)
    fields = Fields(values, status=400)
    message_id = fields.text("id")
    if not message_id or utf8_size("id", message_id) > _MAX_ID_BYTES:
        raise MalformedError(f"id must be a text of 1 to {_MAX_ID_BYTES} bytes")
    if values.get("from") not in (None, sender):
        raise MalformedError(f"from must be {sender}")
    payload = values.get("payload", {})
    if not isinstance(payload, dict):
        raise MalformedError("payload must be an object")
    to = matching("to", fields.optional_text("to"), NAME_PATTERN) or HUB
    kind = fields.text("type")
    if kind not in TYPES:
        raise MalformedError(f"type must be one of {', '.join(TYPES)}")
    return Envelope(message_id, to, kind, payload, values)


def report(envelope: Envelope, settings: Settings) -> Finish | Fail | Release:
    """A `response` to a task."""
    fields = Fields(envelope.payload, status=400)
    job_id, epoch = fields.text("taskId"), fields.integer("leaseEpoch", 0, _MAX_EPOCH)
    success = envelope.payload.get("success")
    if envelope.payload.get("released") is True:
        return Release(job_id, epoch, _bounded("reason", fields.optional_text("reason") or "", 1024))
    if not isinstance(success, bool):
        raise MalformedError("payload.success must be true or false")
    if success:
        result = _text(envelope.payload.get("result"))
        return Finish(job_id, epoch, _bounded("result", result, settings.max_result_bytes))
    error = _text(envelope.payload.get("error")).strip() or "unknown"
    return Fail(job_id, epoch, _bounded("error", error, settings.max_result_bytes))


def leases(envelope: Envelope) -> frozenset[tuple[str, int]] | None:
    """The leases that a `health` lists, None where it has no list."""
    if envelope.payload.get("tasks") is None:
        return None
    return frozenset(map(_lease, Fields(envelope.payload, status=400).objects("tasks", _MAX_LEASES)))


def slots(envelope: Envelope) -> int | None:
    """How many jobs at once the agent wants from now on, if its `health` says."""
    return Fields(envelope.payload, status=400).integer("slots", 0, MAX_SLOTS)


def health(envelope: Envelope) -> dict[str, Any]:
    """What a `health` says of the agent's machine: numbers, or objects of the agent's own."""
    said = {name: envelope.payload[name] for name in _MEASURES if envelope.payload.get(name) is not None}
    if not all(_is_measure(value) for value in said.values()):
        raise MalformedError(f"{', '.join(_MEASURES)} must be numbers or objects")
    if len(json.dumps(said)) > MAX_HEALTH_BYTES:
        raise MalformedError("health too large", status=413)
    return said


def lines(envelope: Envelope) -> tuple[str | None, list[str]]:
    """The job that a `log` is about, if it says, and the log's lines."""
    fields = Fields(envelope.payload, status=400)
    texts = envelope.payload.get("lines")
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise MalformedError("payload.lines must be a list of texts")
    task_id = fields.optional_text("taskId")
    return task_id and task_id[:64], texts[-MAX_LOG_LINES:]


def task(job: Job, now: float) -> dict[str, Any]:
    """A job that an agent was given."""
    lease = {"leaseEpoch": job.lease_epoch, "leaseSeconds": job.lease_seconds, "maxDeliveries": job.max_deliveries}
    payload = {**shown(job.payload), "type": job.command, "taskId": job.id, **lease}
    return envelope_to(job.worker or "", "task", payload, now)


def cancel(job: Job, now: float) -> dict[str, Any]:
    """Word for an agent that a job which it was given is cancelled."""
    payload = {"taskId": job.id, "leaseEpoch": job.lease_epoch, "reason": job.error}
    return envelope_to(job.worker or "", "cancel", payload, now)


def message(envelope: Envelope, sender: str, now: float) -> str:
    """A message as it is kept for the agent that it is for."""
    known = {"id": envelope.id, "from": sender, "to": envelope.to, "type": envelope.type}
    return json.dumps({**envelope.values, **known, "timestamp": _milliseconds(now), "payload": envelope.payload})


def ack(to: str, answered: str, now: float, **facts: Any) -> dict[str, Any]:
    """The hub's answer to an envelope, once what it asked for is on disk."""
    return envelope_to(to, "ack", {"id": answered, **facts}, now)


def error(to: str, answered: str | None, text: str, now: float, **facts: Any) -> dict[str, Any]:
    """The hub's answer to an envelope that it does not act on."""
    return envelope_to(to, "error", {"id": answered, "error": text, **facts}, now)


def envelope_to(to: str, kind: str, payload: Mapping[str, Any], now: float) -> dict[str, Any]:
    """An envelope of the hub's own."""
    return {
        "id": str(uuid.uuid4()),
        "from": HUB,
        "to": to,
        "type": kind,
        "timestamp": _milliseconds(now),
        "payload": payload,
    }


def _text(value: object) -> str:
    """A result as it is kept."""
    if value is None or isinstance(value, str):
        return value or ""
    return kept(value, status=400) if isinstance(value, dict) else json.dumps(value)


def _lease(fields: Fields) -> tuple[str, int]:
    epoch = fields.integer("leaseEpoch", 0, _MAX_EPOCH)
    if epoch is None:
        raise MalformedError("Field required", field="leaseEpoch", kind="missing")
    return fields.text("taskId"), epoch


def _bounded(name: str, text: str, most: int) -> str:
    if utf8_size(name, text) > most:
        raise MalformedError(f"{name} too large", status=413)
    return text


def _is_measure(value: object) -> bool:
    if isinstance(value, int | float) and not isinstance(value, bool):
        return math.isfinite(value)
    return isinstance(value, dict)


def _milliseconds(seconds: float) -> int:
    return int(seconds * 1000)
