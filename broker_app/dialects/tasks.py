"""The tasks dialect: the HTTP contract of the seed aidsec-agent-runner, under `/api`.

Paths, keys, words and texts are the seed's where it has them. It has no call to submit, show or requeue a task, and
no long poll. This half reads requests; `tasks_answers` writes responses.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from broker_app.agents import NAME_PATTERN, Role
from broker_app.dialects import Call, Dialect, Identity, jobs, tasks_answers
from broker_app.dialects.fields import Fields, bearer, read_object, utf8_size
from broker_app.dialects.objects import kept
from broker_app.errors import MalformedError
from broker_app.queue.commands import Browse, Claim, Fail, Finish, Look, Renew, Requeue, Submit, Survey
from broker_app.queue.job import Route

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from broker_app.dialects import Arrived
    from broker_app.settings import Settings

LEASE_SECONDS = 300
MIN_LEASE_SECONDS, MAX_LEASE_SECONDS = 30, 3600
TYPE_PATTERN = re.compile(r"[A-Za-z][A-Za-z0-9:_-]{0,63}")
_DEFAULT_ATTEMPTS = 5
_MAX_ATTEMPTS = 100
_MAX_PAGE = 200
# No lease has this number, so a token that is none of ours is like a stale one.
_NO_EPOCH = -1


def credentials(headers: Mapping[str, str]) -> dict[Role, str]:
    """The token that lets a request in: the bearer or, of submitters, `X-API-Key` in its place."""
    key = bearer(headers)
    token = key or headers.get("x-api-key", "").strip()
    return {Role.ADMIN: token, Role.BOT: token, Role.WORKER: key}


def agent_key(headers: Mapping[str, str]) -> str:
    """The key that an agent speaks with."""
    return headers.get("x-api-key", "").strip() or bearer(headers)


def identity(headers: Mapping[str, str], query: Mapping[str, str]) -> Identity:
    """Who the agent says it is.

    Raises:
        MalformedError: The query or a header is not what it must be.
    """
    return replace(jobs.identity(headers, query), name=_matching(query, "agent_id", NAME_PATTERN, required=True))


def parse_submit(arrived: Arrived, settings: Settings) -> Submit:
    """POST /api/tasks `{type, payload?, max_attempts?}`; `payload.agent_hint` names the only agent."""
    fields = _fields(arrived)
    command = fields.text("type")
    if not TYPE_PATTERN.fullmatch(command) or (settings.commands is not None and command not in settings.commands):
        raise MalformedError("invalid type", status=422, field="type", given=command)
    payload = fields.optional_object("payload")
    agent = Fields(payload, status=422).optional_text("agent_hint")
    if agent is not None and not NAME_PATTERN.fullmatch(agent):
        raise MalformedError(f"agent_hint must match {NAME_PATTERN.pattern}", status=422, field="payload", given=agent)
    attempts = fields.integer("max_attempts", 1, _MAX_ATTEMPTS)
    return Submit(
        command=command,
        payload=_bounded("payload", kept(payload, status=422), jobs.MAX_PAYLOAD_BYTES),
        requires=None,
        route=Route(agent),
        max_deliveries=_DEFAULT_ATTEMPTS if attempts is None else attempts,
        lease_seconds=LEASE_SECONDS,
        dialect="tasks",
        retry_seconds=settings.tasks_retry_seconds,
    )


def parse_browse(arrived: Arrived, _settings: Settings) -> Browse:
    """GET /api/tasks?status=&agent=&type=&limit=&cursor=."""
    word = arrived.query.get("status")
    if word is not None and word not in tasks_answers.STATES:
        raise _wrong(f"should be one of {', '.join(tasks_answers.STATES)}", "status", word)
    status, outcome = (None, None) if word is None else tasks_answers.STATES[word]
    return Browse(
        status=status,
        outcome=outcome,
        agent=_matching(arrived.query, "agent", NAME_PATTERN),
        command=_matching(arrived.query, "type", TYPE_PATTERN),
        limit=_number(arrived, "limit", 1, _MAX_PAGE, 50),
        before=_number(arrived, "cursor", 1, 2**62, 0) or None,
    )


def parse_look(arrived: Arrived, _settings: Settings) -> Look:
    """GET /api/tasks/{id}."""
    return Look(arrived.path["id"])


def parse_requeue(arrived: Arrived, _settings: Settings) -> Requeue:
    """POST /api/tasks/{id}/requeue."""
    return Requeue(arrived.path["id"])


def parse_survey(_arrived: Arrived, _settings: Settings) -> Survey:
    """GET /api/health/sequence-worker."""
    return Survey()


def parse_pull(arrived: Arrived, _settings: Settings) -> Claim:
    """GET /api/agents/tasks/pull?agent_id=&lease_seconds=&wait=."""
    wait = arrived.query.get("wait", "0")
    if not re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,9})?", wait) or float(wait) > jobs.MAX_WAIT_SECONDS:
        raise _wrong(f"should be a number of seconds from 0 to {jobs.MAX_WAIT_SECONDS}", "wait", wait)
    return Claim(float(wait), _lease_seconds(arrived))


def parse_heartbeat(arrived: Arrived, _settings: Settings) -> Renew:
    """POST /api/agents/tasks/{id}/heartbeat?agent_id=&lease_seconds= `{lease_token}`."""
    return Renew(arrived.path["id"], _epoch(_fields(arrived)), _lease_seconds(arrived))


def parse_complete(arrived: Arrived, settings: Settings) -> Finish | Fail:
    """POST /api/agents/tasks/{id}/complete?agent_id= `{success, lease_token, result?, error?}`."""
    fields = _fields(arrived)
    epoch = _epoch(fields)
    result = kept(fields.optional_object("result"), status=422)
    error = (fields.optional_text("error") or "").strip() or "task_execution_failed"
    if fields.truth("success"):
        return Finish(arrived.path["id"], epoch, _bounded("result", result, settings.max_result_bytes))
    return Fail(arrived.path["id"], epoch, _bounded("error", error, settings.max_result_bytes))


def _fields(arrived: Arrived) -> Fields:
    return Fields(read_object(arrived.body, status=422), status=422)


def _epoch(fields: Fields) -> int:
    found = tasks_answers.LEASE_TOKEN.fullmatch(fields.text("lease_token"))
    return int(found[1]) if found else _NO_EPOCH


def _lease_seconds(arrived: Arrived) -> int:
    return _number(arrived, "lease_seconds", MIN_LEASE_SECONDS, MAX_LEASE_SECONDS, LEASE_SECONDS)


def _number(arrived: Arrived, name: str, least: int, most: int, default: int) -> int:
    text = arrived.query.get(name, str(default))
    if name in arrived.query and (not re.fullmatch(r"[0-9]{1,19}", text) or not least <= int(text) <= most):
        raise _wrong(f"should be a whole number from {least} to {most}", name, text)
    return int(text)


def _matching(query: Mapping[str, str], name: str, pattern: re.Pattern[str], *, required: bool = False) -> str | None:
    text = query.get(name)
    if (text is None and required) or (text is not None and not pattern.fullmatch(text)):
        raise _wrong(f"should match {pattern.pattern}", name, text)
    return text


def _wrong(message: str, name: str, given: Any) -> MalformedError:
    return MalformedError(f"{name} {message}", status=422, field=name, place="query", given=given)


def _bounded(name: str, text: str, most: int) -> str:
    if utf8_size(name, text, status=422) > most:
        raise MalformedError(f"{name} too large", status=413)
    return text


def _of_agents(method: str, path: str, parse: Callable[[Arrived, Settings], Any], render: Callable[..., Any]) -> Call:
    return Call(method, f"/api/agents/tasks/{path}", frozenset({Role.WORKER}), parse, render, key=agent_key)


_BOT = frozenset({Role.BOT})
_CALLS = (
    Call("GET", "/api/health/sequence-worker", _BOT, parse_survey, tasks_answers.surveyed),
    Call("GET", "/api/tasks", _BOT, parse_browse, tasks_answers.page),
    Call("POST", "/api/tasks", _BOT, parse_submit, tasks_answers.submitted),
    Call("GET", "/api/tasks/{id}", _BOT, parse_look, tasks_answers.found),
    Call("POST", "/api/tasks/{id}/requeue", frozenset({Role.ADMIN}), parse_requeue, tasks_answers.requeued),
    _of_agents("GET", "pull", parse_pull, tasks_answers.pulled),
    _of_agents("POST", "{id}/heartbeat", parse_heartbeat, tasks_answers.renewed),
    _of_agents("POST", "{id}/complete", parse_complete, tasks_answers.completed),
)
TASKS = Dialect(name="tasks", calls=_CALLS, credentials=credentials, identity=identity, refuse=tasks_answers.refused)
