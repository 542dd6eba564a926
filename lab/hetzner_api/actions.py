"""Actions: what the API does after it has answered, and what it tells of that.

An action is a record. It names its command, the resources it works on and its arguments; `lab.hetzner_api.steps` has
what each command does. Actions that share a resource run one after the other, in the order they were started.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lab.hetzner_api import faults, pages
from lab.hetzner_api.calls import Answer
from lab.hetzner_api.errors import ApiError
from lab.hetzner_api.store import now

if TYPE_CHECKING:
    from lab.hetzner_api.calls import Call, Routes
    from lab.hetzner_api.store import Record, Records

Resource = tuple[str, int]

_PUBLIC = ("id", "command", "status", "progress", "started", "finished", "resources", "error")
# What these do leaves a server usable meanwhile.
_WITHOUT_LOCK = {"apply_firewall", "remove_firewall", "set_firewall_rules"}


def start(records: Records, command: str, *resources: Resource, **arguments: Any) -> Record:
    """Have a command run once the call is answered, and return its action in the form that is answered.

    A fault for this command that waits is used up here, so that a crash cannot use it twice.
    """
    action = records.add(
        "action",
        command=command,
        status="running",
        progress=0,
        started=now(),
        finished=None,
        resources=[{"id": number, "type": kind} for kind, number in resources],
        error=None,
        arguments=arguments,
        **faults.for_action(records, command),
    )
    return render(action)


def end(records: Records, action: Record, error: ApiError | None = None) -> None:
    """Record that an action was done or failed."""
    action["status"] = "error" if error else "success"
    action["error"] = {"code": error.code, "message": error.message} if error else None
    action["progress"] = 100
    action["finished"] = now()
    records.save("action", action)


def render(action: Record) -> Record:
    """Return an action in the form that is answered."""
    return {key: action[key] for key in _PUBLIC}


def under_way(records: Records, kind: str, number: int) -> list[str]:
    """Return the commands that run or wait for a resource, oldest first."""
    resource = {"id": number, "type": kind}
    return [action["command"] for action in records.running() if resource in action["resources"]]


def is_locked(records: Records, kind: str, number: int) -> bool:
    """Tell whether a resource takes no further command for now."""
    return any(command not in _WITHOUT_LOCK for command in under_way(records, kind, number))


def require_unlocked(records: Records, kind: str, number: int) -> None:
    """Refuse (locked) while an action works on the resource."""
    if is_locked(records, kind, number):
        raise ApiError("locked", f"{kind} {number} is locked: an action is running")


def routes_of(kind: str, plural: str) -> Routes:
    """Return the calls that read the actions of a kind of resource."""

    def listing(call: Call) -> Answer:
        return _list(call, [action for action in call.records.all("action") if _concerns(action, kind)])

    def listing_of_one(call: Call) -> Answer:
        call.records.get(kind, call.path["id"])
        found = call.records.all("action")
        return _list(call, [action for action in found if _concerns(action, kind, call.path["id"])])

    return {
        ("GET", f"/{plural}/actions"): listing,
        ("GET", f"/{plural}/actions/{{action_id}}"): _get,
        ("GET", f"/{plural}/{{id}}/actions"): listing_of_one,
        ("GET", f"/{plural}/{{id}}/actions/{{action_id}}"): _get,
    }


def _concerns(action: Record, kind: str, number: int | None = None) -> bool:
    return any(item["type"] == kind and number in {None, item["id"]} for item in action["resources"])


def _list(call: Call, found: list[Record]) -> Answer:
    return pages.answer(call, "actions", [render(action) for action in found], ["id", "status", "command"])


def _list_all(call: Call) -> Answer:
    return _list(call, call.records.all("action"))


def _get(call: Call) -> Answer:
    return Answer(200, {"action": render(call.records.get("action", call.path["action_id"]))})


ROUTES: Routes = {("GET", "/actions"): _list_all, ("GET", "/actions/{action_id}"): _get}
