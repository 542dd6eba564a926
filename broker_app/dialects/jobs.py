"""The jobs dialect: the HTTP contract of the seed openclaw-broker, and the native calls beside it.

Paths, status codes, error texts and the first twelve keys of a job are the seed's. Native are heartbeat, release,
held, cancel, requeue, log, events, the batch, the lists of jobs and agents, the queue, `?wait=` and `lease_epoch`.
This half reads requests; `jobs_answers` writes responses.
"""

from __future__ import annotations

import json
import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from broker_app.agents import NAME_PATTERN, Role
from broker_app.dialects import Call, Dialect, Identity, jobs_answers
from broker_app.dialects.fields import Fields, bearer, matching, number, read_object, seconds, utf8_size
from broker_app.errors import MalformedError
from broker_app.queue.commands import (
    Browse,
    Cancel,
    Claim,
    Fail,
    Finish,
    Follow,
    Hold,
    ListAgents,
    Look,
    Pause,
    Release,
    Renew,
    Report,
    Requeue,
    Resume,
    ShowQueue,
    Submit,
    SubmitAll,
)
from broker_app.queue.job import Outcome, Route, Status
from broker_app.settings import COMMAND_PATTERN

if TYPE_CHECKING:
    from collections.abc import Mapping

    from broker_app.dialects import Arrived
    from broker_app.settings import Settings

MAX_PAYLOAD_BYTES = 262144
MAX_REQUIRES_BYTES = 2048
MAX_WAIT_SECONDS = 25
MAX_BATCH = 1000
MAX_PRIORITY = 100
MAX_TIME = 2**37  # in the year 6325: every dialect can show it
MAX_TEXT_BYTES = 65536
MAX_EVENTS = 200
_DEFAULT_DELIVERIES = 5
_MAX_DELIVERIES = 100
_MAX_EPOCH = 2**53
_MAX_PAGE = 200
_MAX_REASON_BYTES = 1024
_MAX_HELD = 1000
_MAX_EVENT = 2**62
KEY_PATTERN = re.compile(r"[!-~]{1,255}")
_CAPABILITY = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._:/+@=-]{0,63}")
_VERSION = re.compile(r"[!-~]{1,64}")
_TOKEN_HEADERS = {Role.BOT: "x-bot-token", Role.WORKER: "x-worker-token"}


def credentials(headers: Mapping[str, str]) -> dict[Role, str]:
    """The tokens in a request's headers."""
    tokens = {role: headers[name] for role, name in _TOKEN_HEADERS.items() if name in headers}
    if Role.BOT not in tokens and (token := bearer(headers)):
        tokens[Role.BOT] = token
    # What it may do is the token's role.
    return tokens | ({Role.ADMIN: tokens[Role.BOT]} if Role.BOT in tokens else {})


def identity(headers: Mapping[str, str], _query: Mapping[str, str]) -> Identity:
    """Who the worker says it is.

    Raises:
        MalformedError: A header is not what it must be.
    """
    name = headers.get("x-worker-id", "").strip() or None
    version = headers.get("x-runner-version", "").strip() or None
    return Identity(
        name=matching("X-Worker-Id", name, NAME_PATTERN),
        capabilities=_capabilities(headers.get("x-worker-caps")),
        runner_version=matching("X-Runner-Version", version, _VERSION),
    )


def parse_submit(arrived: Arrived, settings: Settings) -> Submit:
    """POST /jobs.

    Of `{command, payload?, requires?, agent?, max_deliveries?, priority?, not_before?, idempotency_key?}`, the last
    also as the header Idempotency-Key.
    """
    fields = Fields(read_object(arrived.body or b"{}", status=400), status=400)
    order = _order(fields, settings)
    key = _idempotency_key(arrived.headers.get("idempotency-key"))
    if key is None:
        return order
    if order.idempotency_key not in (None, key):
        raise MalformedError("Idempotency-Key and the body's idempotency_key differ")
    return replace(order, idempotency_key=key)


def parse_submit_all(arrived: Arrived, settings: Settings) -> SubmitAll:
    """POST /jobs/batch `{jobs: [{as POST /jobs}]}`."""
    if "idempotency-key" in arrived.headers:
        raise MalformedError("Idempotency-Key is one job's; in a batch each job has its own idempotency_key")
    jobs = Fields(read_object(arrived.body, status=400), status=400).objects("jobs", MAX_BATCH)
    return SubmitAll(tuple(_order_at(place, fields, settings) for place, fields in enumerate(jobs)))


def _order_at(place: int, fields: Fields, settings: Settings) -> Submit:
    try:
        return _order(fields, settings)
    except MalformedError as error:
        field = f"jobs[{place}].{error.field}" if error.field else f"jobs[{place}]"
        raise MalformedError(str(error), status=error.status, field=field) from None


def _order(fields: Fields, settings: Settings) -> Submit:
    command = _command(fields.raw("command"), settings)
    payload = fields.optional_text("payload") or ""
    if utf8_size("payload", payload) > MAX_PAYLOAD_BYTES:
        raise MalformedError("payload too large")
    requires, needs = _requires(fields.raw("requires"))
    agent = matching("agent", fields.optional_text("agent"), NAME_PATTERN)
    deliveries = fields.integer("max_deliveries", 1, _MAX_DELIVERIES)
    return Submit(
        command=command,
        payload=payload,
        requires=requires,
        route=Route(agent, needs),
        max_deliveries=_DEFAULT_DELIVERIES if deliveries is None else deliveries,
        lease_seconds=settings.lease_seconds,
        dialect="jobs",
        priority=fields.integer("priority", -MAX_PRIORITY, MAX_PRIORITY) or 0,
        not_before=fields.optional_number("not_before", 0, MAX_TIME),
        idempotency_key=_idempotency_key(fields.optional_text("idempotency_key")),
    )


def parse_claim(arrived: Arrived, _settings: Settings) -> Claim:
    """GET /jobs/next[?wait=SECONDS]."""
    return Claim(_wait(arrived))


def parse_look(arrived: Arrived, _settings: Settings) -> Look:
    """GET /jobs/{id}[?wait=SECONDS]."""
    return Look(arrived.path["id"], _wait(arrived))


def parse_renew(arrived: Arrived, _settings: Settings) -> Renew:
    """POST /jobs/{id}/heartbeat `{lease_epoch?}`."""
    fields = _optional_body(arrived)
    return Renew(arrived.path["id"], _epoch(arrived, fields))


def parse_release(arrived: Arrived, _settings: Settings) -> Release:
    """POST /jobs/{id}/release `{lease_epoch?, reason?}`."""
    fields = _optional_body(arrived)
    return Release(arrived.path["id"], _epoch(arrived, fields), _reason(fields))


def parse_hold(arrived: Arrived, _settings: Settings) -> Hold:
    """POST /jobs/held `{held: [{id, lease_epoch}]}`."""
    fields = Fields(read_object(arrived.body, status=422), status=422)
    return Hold(frozenset(map(_lease, fields.objects("held", _MAX_HELD))))


def parse_finish(arrived: Arrived, settings: Settings) -> Finish:
    """POST /jobs/{id}/result `{result, lease_epoch?}`."""
    fields = Fields(read_object(arrived.body, status=422), status=422)
    result = fields.text("result")
    _bound("result", result, settings.max_result_bytes)
    return Finish(arrived.path["id"], _epoch(arrived, fields), result)


def parse_report(arrived: Arrived, _settings: Settings) -> Report:
    """POST /jobs/{id}/log `{text?, offset?, progress?, note?, lease_epoch?}`."""
    fields = Fields(read_object(arrived.body, status=422), status=422)
    text, note = fields.optional_text("text") or "", fields.optional_text("note")
    _bound("text", text, MAX_TEXT_BYTES)
    _bound("note", note or "", _MAX_REASON_BYTES)
    return Report(
        arrived.path["id"],
        _epoch(arrived, fields),
        text=text,
        offset=fields.integer("offset", 0, _MAX_EPOCH),
        percent=fields.integer("progress", 0, 100),
        note=note,
    )


def parse_cancel(arrived: Arrived, _settings: Settings) -> Cancel:
    """POST /jobs/{id}/cancel `{reason?}`."""
    return Cancel(arrived.path["id"], _reason(_optional_body(arrived)) or "cancelled")


def parse_requeue(arrived: Arrived, _settings: Settings) -> Requeue:
    """POST /jobs/{id}/requeue."""
    return Requeue(arrived.path["id"])


def parse_follow(arrived: Arrived, _settings: Settings) -> Follow:
    """GET /jobs/{id}/events?after=&limit=&wait=.

    `Last-Event-ID` goes before `after`: who comes back to a stream sends it with the address of the first time.
    """
    after = number("after", arrived.query.get("after"), 0, _MAX_EVENT, 0)
    return Follow(
        arrived.path["id"],
        after=number("Last-Event-ID", arrived.headers.get("last-event-id"), 0, _MAX_EVENT, after),
        limit=number("limit", arrived.query.get("limit"), 1, MAX_EVENTS, MAX_EVENTS),
        wait=_wait(arrived),
    )


def parse_pause(arrived: Arrived, _settings: Settings) -> Pause:
    """POST /queue/pause `{reason?}`."""
    return Pause(_reason(_optional_body(arrived)))


def parse_resume(_arrived: Arrived, _settings: Settings) -> Resume:
    """POST /queue/resume."""
    return Resume()


def parse_show_queue(_arrived: Arrived, _settings: Settings) -> ShowQueue:
    """GET /queue."""
    return ShowQueue()


def parse_fail(arrived: Arrived, settings: Settings) -> Fail:
    """POST /jobs/{id}/fail `{error?, lease_epoch?}`."""
    fields = Fields(read_object(arrived.body, status=422), status=422)
    error = fields.text("error", "").strip() or "unknown"
    _bound("error", error, settings.max_result_bytes)
    # The seed lets whoever works end a job that nobody was given.
    return Fail(arrived.path["id"], _epoch(arrived, fields), error, undelivered=True)


def parse_browse(arrived: Arrived, _settings: Settings) -> Browse:
    """GET /jobs?status=&outcome=&agent=&limit=&cursor=."""
    query = arrived.query
    status, outcome = query.get("status"), query.get("outcome")
    if status is not None and status not in list(Status):
        raise MalformedError(f"status must be one of {', '.join(Status)}")
    if outcome is not None and outcome not in list(Outcome):
        raise MalformedError(f"outcome must be one of {', '.join(Outcome)}")
    if outcome is not None and status not in (None, Status.DONE if outcome == Outcome.DONE else Status.FAILED):
        raise MalformedError(f"outcome must be one that a job of status {status} can have")
    return Browse(
        status=None if status is None else Status(status),
        outcome=None if outcome is None else Outcome(outcome),
        agent=matching("agent", query.get("agent"), NAME_PATTERN),
        limit=number("limit", query.get("limit"), 1, _MAX_PAGE, 50),
        before=number("cursor", query.get("cursor"), 1, 2**62, 0) or None,
    )


def parse_agents(arrived: Arrived, _settings: Settings) -> ListAgents:
    """GET /agents?status=&type=; both are the hub dialect's."""
    status = arrived.query.get("status")
    if status not in (None, "online", "offline"):
        raise MalformedError("status must be online or offline")
    return ListAgents(online=None if status is None else status == "online", type=arrived.query.get("type"))


def _idempotency_key(text: str | None) -> str | None:
    if text is not None and not KEY_PATTERN.fullmatch(text):
        raise MalformedError(f"idempotency_key must match {KEY_PATTERN.pattern}")
    return text


def _optional_body(arrived: Arrived) -> Fields:
    return Fields(read_object(arrived.body or b"{}", status=422), status=422)


def _reason(fields: Fields) -> str:
    reason = fields.optional_text("reason") or ""
    _bound("reason", reason, _MAX_REASON_BYTES)
    return reason


def _command(value: object, settings: Settings) -> str:
    command = value.strip() if isinstance(value, str) else ""
    allowed = settings.commands is None or command in settings.commands
    if not (allowed and COMMAND_PATTERN.fullmatch(command)):
        raise MalformedError("invalid command")
    return command


def _requires(value: Any) -> tuple[str | None, frozenset[str]]:
    """The requirement as written, and the capabilities it names: `{"caps": [...]}`, as an object or as text.

    One that cannot be understood is refused: to ignore it would let any worker run the job.
    """
    if value is None:
        return None, frozenset()
    text = value if isinstance(value, str) else json.dumps(value)
    if utf8_size("requires", text) > MAX_REQUIRES_BYTES:
        raise MalformedError("requires too large")
    if not text.strip():
        return text, frozenset()
    try:
        parsed = read_object(text.encode(), status=400)
    except MalformedError:
        parsed = {"": None}
    caps = parsed.get("caps") or []
    names = capability_names(caps) if isinstance(caps, list) and not parsed.keys() - {"caps"} else None
    if names is None:
        raise MalformedError(f'requires must be {{"caps": [...]}} with names that match {_CAPABILITY.pattern}')
    return text, names


def capability_names(values: list[Any]) -> frozenset[str] | None:
    """The names in a list, without those that are blank; None when there is something else in it."""
    names = [value.strip() if isinstance(value, str) else value for value in values]
    names = [name for name in names if name != ""]
    return frozenset(names) if all(map(_is_capability, names)) else None


def _is_capability(value: object) -> bool:
    return isinstance(value, str) and _CAPABILITY.fullmatch(value) is not None


def _capabilities(header: str | None) -> tuple[str, ...] | None:
    """A JSON array or a comma list; None when the header is absent."""
    if header is None:
        return None
    try:
        values = json.loads(header) if header.lstrip().startswith("[") else header.split(",")
    except (ValueError, RecursionError):
        values = [None]
    names = capability_names(values)
    if names is None:
        raise MalformedError(f"X-Worker-Caps must be a JSON array or comma list of {_CAPABILITY.pattern}")
    return tuple(sorted(names))


def _epoch(arrived: Arrived, fields: Fields) -> int | None:
    """The lease epoch of the body or of X-Lease-Epoch, None when neither has it."""
    in_body = fields.integer("lease_epoch", 0, _MAX_EPOCH)
    in_header = number("X-Lease-Epoch", arrived.headers.get("x-lease-epoch"), 0, _MAX_EPOCH, -1)
    if in_header == -1:
        return in_body
    if in_body not in (None, in_header):
        raise MalformedError("X-Lease-Epoch and the body's lease_epoch differ")
    return in_header


def _lease(fields: Fields) -> tuple[str, int]:
    epoch = fields.integer("lease_epoch", 0, _MAX_EPOCH)
    if epoch is None:
        raise MalformedError("Field required", status=422, field="lease_epoch", kind="missing")
    return fields.text("id"), epoch


def _wait(arrived: Arrived) -> float:
    return seconds("wait", arrived.query.get("wait"), MAX_WAIT_SECONDS)


def _bound(name: str, text: str, most: int) -> None:
    if utf8_size(name, text) > most:
        raise MalformedError(f"{name} too large", status=413)


_ADMIN = frozenset({Role.ADMIN})
_BOT = frozenset({Role.BOT})
_WORKER = frozenset({Role.WORKER})
_CALLS = (
    Call("POST", "/jobs", _BOT, parse_submit, jobs_answers.submitted),
    Call("POST", "/jobs/batch", _BOT, parse_submit_all, jobs_answers.submitted_all),
    Call("POST", "/jobs/{id}/cancel", _BOT, parse_cancel, jobs_answers.cancelled),
    Call("POST", "/jobs/{id}/requeue", _BOT, parse_requeue, jobs_answers.requeued),
    Call("GET", "/jobs/{id}/events", _BOT, parse_follow, jobs_answers.followed),
    Call("GET", "/jobs", _BOT, parse_browse, jobs_answers.page),
    Call("GET", "/jobs/next", _WORKER, parse_claim, jobs_answers.claimed),
    Call("POST", "/jobs/held", _WORKER, parse_hold, jobs_answers.taken_back),
    Call("GET", "/jobs/{id}", _BOT | _WORKER, parse_look, jobs_answers.found),
    Call("POST", "/jobs/{id}/heartbeat", _WORKER, parse_renew, jobs_answers.renewed),
    Call("POST", "/jobs/{id}/release", _WORKER, parse_release, jobs_answers.released),
    Call("POST", "/jobs/{id}/result", _WORKER, parse_finish, jobs_answers.finished),
    Call("POST", "/jobs/{id}/fail", _WORKER, parse_fail, jobs_answers.failed),
    Call("POST", "/jobs/{id}/log", _WORKER, parse_report, jobs_answers.reported),
    Call("GET", "/agents", _BOT, parse_agents, jobs_answers.agents),
    Call("GET", "/queue", _BOT, parse_show_queue, jobs_answers.queue),
    Call("POST", "/queue/pause", _ADMIN, parse_pause, jobs_answers.done),
    Call("POST", "/queue/resume", _ADMIN, parse_resume, jobs_answers.done),
)
JOBS = Dialect(name="jobs", calls=_CALLS, credentials=credentials, identity=identity, refuse=jobs_answers.refused)
