"""Faults on demand, so that a test can have the cloud fail as the real one does.

    POST   /_lab/faults   {"match": "POST /servers", "code": "resource_unavailable", "times": 2}
                          {"match": "DELETE /servers/{id}", "code": "rate_limit_exceeded", "status": 429}
                          {"action": "create_server", "code": "action_failed", "message": "no disk"}
                          {"action": "create_server", "seconds": 5}
    GET    /_lab/faults   those that wait
    DELETE /_lab/faults   drops them

"match" is a method with a path or a path template, "action" a command. A fault happens once, or as many "times" as
told.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lab.hetzner_api.calls import Answer
from lab.hetzner_api.errors import ApiError, invalid

if TYPE_CHECKING:
    from lab.hetzner_api.calls import Call, Routes
    from lab.hetzner_api.store import Record, Records


def for_call(records: Records, *names: str) -> ApiError | None:
    """Use up and return the refusal that waits for a call under one of its names."""
    if (fault := _use(records, "match", *names)) is None:
        return None
    return ApiError(fault["code"], fault["message"], status=fault["status"])


def for_action(records: Records, command: str) -> dict[str, Any]:
    """Use up the fault that waits for a command and return it as the action's own fields "seconds" and "failure"."""
    fault = _use(records, "action", command)
    if fault is None:
        return {"seconds": None, "failure": None}
    failure = {"code": fault["code"], "message": fault["message"]} if fault["code"] else None
    return {"seconds": fault["seconds"], "failure": failure}


def _use(records: Records, key: str, *names: str) -> Record | None:
    for fault in records.all("fault"):
        if fault[key] not in names:
            continue
        fault["times"] -= 1
        if fault["times"]:
            records.save("fault", fault)
        else:
            records.remove("fault", fault["id"])
        return fault
    return None


def _add(call: Call) -> Answer:
    fields = call.body
    match, action = fields.take("match", str, ""), fields.take("action", str, "")
    if bool(match) == bool(action):
        raise invalid("match", 'give either "match" or "action"')
    seconds = fields.take("seconds", int, 0) if action else 0
    code = fields.take("code", str, "")
    if not code and not seconds:
        raise invalid("code", 'give a "code", or "seconds" for an action that is slow')
    fault = call.records.add(
        "fault",
        match=match or None,
        action=action or None,
        code=code,
        message=fields.take("message", str, f"{code} on demand"),
        status=fields.take("status", int, 0) or None if match else None,
        seconds=seconds or None,
        times=max(1, fields.take("times", int, 1)),
    )
    fields.finish()
    return Answer(201, {"fault": fault})


def _list(call: Call) -> Answer:
    return Answer(200, {"faults": call.records.all("fault")})


def _clear(call: Call) -> Answer:
    for fault in call.records.all("fault"):
        call.records.remove("fault", fault["id"])
    return Answer(204)


ROUTES: Routes = {("POST", "/faults"): _add, ("GET", "/faults"): _list, ("DELETE", "/faults"): _clear}
