"""What the kinds of resources have in common: names, labels, limits, protection, and the calls to read them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from lab.hetzner_api import actions, pages
from lab.hetzner_api.calls import Answer
from lab.hetzner_api.errors import ApiError, invalid

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from lab.hetzner_api.calls import Call, Routes
    from lab.hetzner_api.store import Record, Records


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of resource.

    Attributes:
        name: Its key in answers, for example "ssh_key".
        plural: Its key in lists and its path, for example "ssh_keys".
        render: Makes the form in which a record is answered.
        filters: What lists can be filtered by.
    """

    name: str
    plural: str
    render: Callable[[Records, Record], Record]
    filters: Sequence[str] = ("name",)

    def answer(self, call: Call, record: Record, status: int = 200, **more: object) -> Answer:
        """Answer one resource."""
        return Answer(status, {self.name: self.render(call.records, record), **more})

    def routes(self) -> Routes:
        """Return the calls to list, get and rename or label, and to read actions."""
        return {
            ("GET", f"/{self.plural}"): self._list,
            ("GET", f"/{self.plural}/{{id}}"): self._get,
            ("PUT", f"/{self.plural}/{{id}}"): self._update,
            **actions.routes_of(self.name, self.plural),
        }

    def _list(self, call: Call) -> Answer:
        found = [self.render(call.records, record) for record in call.records.all(self.name)]
        return pages.answer(call, self.plural, found, self.filters)

    def _get(self, call: Call) -> Answer:
        return self.answer(call, self.get(call))

    def _update(self, call: Call) -> Answer:
        record = self.get(call)
        update_name_and_labels(call, self.name, record)
        call.body.finish()
        call.records.save(self.name, record)
        return self.answer(call, record)

    def get(self, call: Call) -> Record:
        """Return the record that the path names."""
        return call.records.get(self.name, call.path["id"])


def update_name_and_labels(call: Call, kind: str, record: Record) -> None:
    """Take over the body's name and labels where it has them."""
    name = call.body.name(record["name"])
    if name != record["name"]:
        require_free_name(call.records, kind, name)
    record["name"] = name
    record["labels"] = call.body.labels(record["labels"])


def change_protection(call: Call, kind: str) -> Answer:
    """Protect a resource from deletion, or no longer."""
    call.records.get(kind, call.path["id"])
    protection = {"delete": call.body.take("delete", bool)}
    call.body.finish()
    return started(call, "change_protection", (kind, call.path["id"]), kind=kind, protection=protection)


def started(call: Call, command: str, *resources: actions.Resource, **arguments: object) -> Answer:
    """Start an action on the path's resource, and on others, and answer it."""
    if "id" not in arguments:
        arguments["id"] = call.path["id"]
    return Answer(201, {"action": actions.start(call.records, command, *resources, **arguments)})


def require_free_name(records: Records, kind: str, name: str) -> None:
    """Refuse (uniqueness_error) a name that another has."""
    if any(record["name"] == name for record in records.all(kind)):
        details = {"fields": [{"name": "name"}]}
        raise ApiError("uniqueness_error", f"{kind} name {name!r} is already used", details)


def require_unprotected(record: Record, operation: str = "delete") -> None:
    """Refuse (protected) what a record's protection forbids."""
    if record["protection"][operation]:
        raise ApiError("protected", f"{record['name']} is {operation} protected")


def require_within_limit(records: Records, kind: str) -> None:
    """Refuse (resource_limit_exceeded) one more than the project may have."""
    most = next((limit["most"] for limit in records.all("limit") if limit["of"] == kind), None)
    if most is not None and len(records.all(kind)) >= most:
        raise ApiError("resource_limit_exceeded", f"{kind} limit of {most} reached", {"limits": [{"name": kind}]})


def set_limits(call: Call) -> Answer:
    """Set how many the project may have of each kind, for example {"server": 3}; the rest is without limit."""
    for limit in call.records.all("limit"):
        call.records.remove("limit", limit["id"])
    for kind in ("firewall", "image", "network", "placement_group", "primary_ip", "server", "ssh_key", "volume"):
        if call.body.has(kind):
            call.records.add("limit", of=kind, most=call.body.take(kind, int))
    call.body.finish()
    return Answer(204)


def referred(records: Records, kind: str, number: int, field: str) -> Record:
    """Return the record that a field of the body names.

    Raises:
        ApiError: There is none (invalid_input, for the field).
    """
    try:
        return records.get(kind, number)
    except ApiError as error:
        raise invalid(field, error.message) from error
