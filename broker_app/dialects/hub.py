"""The hub dialect over HTTP: what operators of the seed vm-agent-system call. Its WebSocket is in `hub_envelopes`.

`GET /agents` is in `jobs`: one answer serves both.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from broker_app.agents import NAME_PATTERN, Role
from broker_app.dialects import Answer, Call, Dialect, Identity, jobs_answers
from broker_app.dialects.fields import Fields, bearer, matching, number, read_object, utf8_size
from broker_app.dialects.jobs import MAX_PAYLOAD_BYTES, capability_names
from broker_app.dialects.objects import kept
from broker_app.errors import MalformedError
from broker_app.logs import MAX_LINES
from broker_app.queue.commands import Assign, Cordon, ReadLog, Register, Remove, ShowAgent, Submit
from broker_app.queue.job import Route
from broker_app.settings import COMMAND_PATTERN

if TYPE_CHECKING:
    from collections.abc import Mapping

    from broker_app.agents import Agent
    from broker_app.dialects import Arrived
    from broker_app.logs import LogLine
    from broker_app.queue.commands import Command
    from broker_app.queue.job import Job
    from broker_app.settings import Settings

HUB = "hub"
MAX_METADATA_BYTES = 16384
_DELIVERIES = 5
_TYPE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_HOST = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(:[0-9]{1,5})?")


def credentials(headers: Mapping[str, str]) -> dict[Role, str]:
    """The operator's token, from Authorization or X-Bot-Token; what it may do is the token's role."""
    token = bearer(headers) or headers.get("x-bot-token")
    return {} if token is None else {Role.BOT: token, Role.ADMIN: token}


def identity(_headers: Mapping[str, str], _query: Mapping[str, str]) -> Identity:
    """No agent calls over HTTP here."""
    return Identity()


def parse_register(arrived: Arrived, settings: Settings) -> Register:
    """POST /agents/register `{agentId, metadata?: {type?, capabilities?, …}}`."""
    fields = Fields(read_object(arrived.body, status=400), status=400)
    name = matching("agentId", fields.text("agentId"), NAME_PATTERN) or ""
    if name == HUB:
        raise MalformedError("agentId: the name is the hub's own")
    metadata = fields.raw("metadata")
    metadata = {} if metadata is None else metadata
    if not isinstance(metadata, dict):
        raise MalformedError("metadata must be an object")
    if len(json.dumps(metadata)) > MAX_METADATA_BYTES:
        raise MalformedError("metadata too large")
    capabilities = metadata.get("capabilities") or []
    names = capability_names(capabilities) if isinstance(capabilities, list) else None
    if names is None:
        raise MalformedError("metadata.capabilities must be a list of names")
    kind = Fields(metadata, status=400).optional_text("type")
    return Register(
        name=name,
        type=matching("metadata.type", kind, _TYPE),
        capabilities=tuple(sorted(names)),
        metadata={key: value for key, value in metadata.items() if key not in ("type", "capabilities")},
        base=_base(arrived.headers, settings),
    )


def parse_show(arrived: Arrived, _settings: Settings) -> ShowAgent:
    """GET /agents/{id}/status."""
    return ShowAgent(arrived.path["id"])


def parse_log(arrived: Arrived, _settings: Settings) -> ReadLog:
    """GET /agents/{id}/log?after=0&lines=100."""
    query = arrived.query
    after = number("after", query.get("after"), 0, 2**53, 0)
    return ReadLog(arrived.path["id"], after, number("lines", query.get("lines"), 1, MAX_LINES, 100))


def parse_assign(arrived: Arrived, settings: Settings) -> Assign:
    """POST /agents/{id}/task `{type, …}`: what is beside the type is the payload."""
    task = read_object(arrived.body, status=400)
    command = Fields(task, status=400).text("type")
    allowed = settings.commands is None or command in settings.commands
    if not (allowed and COMMAND_PATTERN.fullmatch(command)):
        raise MalformedError("invalid type")
    payload = kept({key: value for key, value in task.items() if key != "type"}, status=400)
    if utf8_size("task", payload) > MAX_PAYLOAD_BYTES:
        raise MalformedError("task too large")
    order = Submit(
        command=command,
        payload=payload,
        requires=None,
        route=Route(arrived.path["id"]),
        max_deliveries=_DELIVERIES,
        lease_seconds=settings.lease_seconds,
        dialect=HUB,
    )
    return Assign(arrived.path["id"], order)


def parse_remove(arrived: Arrived, _settings: Settings) -> Remove:
    """DELETE /agents/{id}[?requeue=1]."""
    requeue = arrived.query.get("requeue", "0")
    if requeue not in ("0", "1"):
        raise MalformedError("requeue must be 0 or 1")
    return Remove(arrived.path["id"], requeue == "1")


def parse_cordon(arrived: Arrived, _settings: Settings) -> Cordon:
    """POST /agents/{id}/cordon."""
    return Cordon(arrived.path["id"], cordoned=True)


def parse_uncordon(arrived: Arrived, _settings: Settings) -> Cordon:
    """POST /agents/{id}/uncordon."""
    return Cordon(arrived.path["id"], cordoned=False)


def registered(_command: Command, given: tuple[tuple[Agent, bool, list[str]], str, str]) -> Answer:
    """`{"agent", "token", "wsUrl"}`."""
    entry, token, url = given
    return Answer(200, {"agent": jobs_answers.agent_object(*entry), "token": token, "wsUrl": url})


def shown(_command: Command, entry: tuple[Agent, bool, list[str]]) -> Answer:
    """`{"agent"}`."""
    return Answer(200, {"agent": jobs_answers.agent_object(*entry)})


def log(_command: Command, lines: list[LogLine]) -> Answer:
    """`{"lines": [{"n", "at", "taskId", "text"}]}`."""
    shown = [{"n": line.n, "at": int(line.at), "taskId": line.task_id, "text": line.text} for line in lines]
    return Answer(200, {"lines": shown})


def assigned(_command: Command, job: Job) -> Answer:
    """`{"taskId", "status"}`."""
    return Answer(200, {"taskId": job.id, "status": "sent"})


def removed(_command: Command, done: tuple[tuple[Job, ...], bool]) -> Answer:
    """`{"ok", "cancelled", "requeued"}`, of the jobs that it would have run."""
    ids, requeued = [job.id for job in done[0]], done[1]
    return Answer(200, {"ok": True, "cancelled": [] if requeued else ids, "requeued": ids if requeued else []})


def refused(error: Exception, call: Call, command: Command | None) -> Answer:
    """As in jobs, in the form `{"error": text}`."""
    answer = jobs_answers.refused(error, call, command)
    body: Any = answer.body
    return Answer(answer.status, {"error": body["detail"]}, answer.headers)


def _base(headers: Mapping[str, str], settings: Settings) -> str:
    """Where the caller reached us, but for the port, as the start of a WebSocket's URL."""
    host = _HOST.fullmatch(headers.get("host", ""))
    name, port = (host[1], host[2] or "") if host else (settings.host, f":{settings.port}")
    scheme = "wss" if headers.get("x-forwarded-proto") == "https" else "ws"
    return f"{scheme}://{name}{f':{settings.hub_ws_port}' if settings.hub_ws_port else port}"


_BOT = frozenset({Role.BOT})
_ADMIN = frozenset({Role.ADMIN})
_CALLS = (
    Call("POST", "/agents/register", _ADMIN, parse_register, registered),
    Call("GET", "/agents/{id}/status", _BOT, parse_show, shown),
    Call("GET", "/agents/{id}/log", _BOT, parse_log, log),
    Call("POST", "/agents/{id}/task", _BOT, parse_assign, assigned),
    Call("POST", "/agents/{id}/cordon", _ADMIN, parse_cordon, shown),
    Call("POST", "/agents/{id}/uncordon", _ADMIN, parse_uncordon, shown),
    Call("DELETE", "/agents/{id}", _ADMIN, parse_remove, removed),
)
HUB_CALLS = Dialect(name=HUB, calls=_CALLS, credentials=credentials, identity=identity, refuse=refused)
