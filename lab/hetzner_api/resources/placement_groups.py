"""Placement groups: up to ten servers, each on hardware of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lab.hetzner_api import relations
from lab.hetzner_api.calls import Answer
from lab.hetzner_api.errors import ApiError
from lab.hetzner_api.resources import common

if TYPE_CHECKING:
    from lab.hetzner_api.calls import Call, Routes
    from lab.hetzner_api.store import Record, Records

_MOST_SERVERS = 10


def render(records: Records, group: Record) -> Record:
    """Return a group in the form that is answered."""
    return {**group, "servers": [server["id"] for server in relations.servers_in_group(records, group["id"])]}


KIND = common.Kind("placement_group", "placement_groups", render, ("name", "type"))


def require_room(records: Records, group_id: int) -> None:
    """Refuse (placement_error) one server more than a group takes."""
    if len(relations.servers_in_group(records, group_id)) >= _MOST_SERVERS:
        raise ApiError("placement_error", f"placement group {group_id} has {_MOST_SERVERS} servers already")


def _create(call: Call) -> Answer:
    name, labels = call.body.name(), call.body.labels()
    kind = call.body.choice("type", "spread")
    call.body.finish()
    common.require_free_name(call.records, "placement_group", name)
    common.require_within_limit(call.records, "placement_group")
    group = call.records.add("placement_group", name=name, labels=labels, type=kind)
    return KIND.answer(call, group, 201, action=None)


def _delete(call: Call) -> Answer:
    group = KIND.get(call)
    if relations.servers_in_group(call.records, group["id"]):
        raise ApiError("resource_in_use", f"placement group {group['name']} has servers")
    call.records.remove("placement_group", group["id"])
    return Answer(204)


ROUTES: Routes = {
    **KIND.routes(),
    ("POST", "/placement_groups"): _create,
    ("DELETE", "/placement_groups/{id}"): _delete,
}
