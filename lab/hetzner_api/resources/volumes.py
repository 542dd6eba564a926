"""Volumes: block devices that outlive servers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lab.hetzner_api import actions, catalog
from lab.hetzner_api.calls import Answer
from lab.hetzner_api.errors import ApiError, invalid
from lab.hetzner_api.resources import common

if TYPE_CHECKING:
    from lab.hetzner_api.calls import Call, Routes
    from lab.hetzner_api.store import Record, Records

_LEAST_GB, _MOST_GB = 10, 10240


def _render(records: Records, volume: Record) -> Record:
    creating = "create_volume" in actions.under_way(records, "volume", volume["id"])
    location = catalog.find(catalog.LOCATIONS, volume["location"], "location")
    return {**volume, "location": location, "status": "creating" if creating else "available"}


KIND = common.Kind("volume", "volumes", _render, ("name", "status"))


def _create(call: Call) -> Answer:
    fields, name = call.body, call.body.name()
    labels, size = fields.labels(), _size(call)
    file_system = fields.choice("format", "ext4", "xfs", default="") or None
    server = _server(call) if fields.has("server") else None
    location = _location(call, server)
    _refuse_automount(call)
    fields.finish()
    common.require_free_name(call.records, "volume", name)
    common.require_within_limit(call.records, "volume")
    volume = call.records.add(
        "volume",
        name=name,
        labels=labels,
        size=size,
        format=file_system,
        location=location,
        server=None,
        linux_device="",
        protection={"delete": False},
    )
    number = volume["id"]
    volume["linux_device"] = f"/dev/disk/by-id/scsi-0HC_Volume_{number}"
    call.records.save("volume", volume)
    action = actions.start(call.records, "create_volume", ("volume", number), id=number)
    follow_ups = [start_attaching(call, volume, server)] if server else []
    return KIND.answer(call, volume, 201, action=action, next_actions=follow_ups)


def _size(call: Call) -> int:
    size = call.body.take("size", int)
    if not _LEAST_GB <= size <= _MOST_GB:
        raise invalid("size", f"must be from {_LEAST_GB} to {_MOST_GB} GB")
    return size


def _server(call: Call) -> Record:
    server = common.referred(call.records, "server", call.body.take("server", int), "server")
    actions.require_unlocked(call.records, "server", server["id"])
    return server


def _location(call: Call, server: Record | None) -> str:
    if server is None:
        return str(catalog.find(catalog.LOCATIONS, call.body.reference("location"), "location")["name"])
    if call.body.has("location"):
        raise invalid("location", "give either a location or a server")
    return str(server["location"])


def _refuse_automount(call: Call) -> None:
    if call.body.take("automount", bool, False):
        raise invalid("automount", "the stand-in mounts nothing; leave it out")


def require_attachable(records: Records, volume: Record, location: str) -> None:
    """Refuse a volume that is attached (volume_already_attached), elsewhere (invalid_input) or busy (locked)."""
    if volume["server"] is not None:
        raise ApiError("volume_already_attached", f"volume {volume['name']} is attached; detach it first")
    if volume["location"] != location:
        raise invalid("server", f"volume {volume['name']} is in {volume['location']}, and the server in {location}")
    actions.require_unlocked(records, "volume", volume["id"])


def start_attaching(call: Call, volume: Record, server: Record) -> Record:
    """Start the action that attaches a volume and return it."""
    resources = (("volume", volume["id"]), ("server", server["id"]))
    return actions.start(call.records, "attach_volume", *resources, id=volume["id"], server=server["id"])


def _attach(call: Call) -> Answer:
    volume, server = KIND.get(call), _server(call)
    _refuse_automount(call)
    call.body.finish()
    require_attachable(call.records, volume, server["location"])
    return Answer(201, {"action": start_attaching(call, volume, server)})


def _detach(call: Call) -> Answer:
    volume = KIND.get(call)
    actions.require_unlocked(call.records, "volume", volume["id"])
    if volume["server"] is None:
        raise ApiError("invalid_input", f"volume {volume['name']} is not attached")
    actions.require_unlocked(call.records, "server", volume["server"])
    return common.started(call, "detach_volume", ("volume", volume["id"]), ("server", volume["server"]))


def _resize(call: Call) -> Answer:
    volume, size = KIND.get(call), _size(call)
    call.body.finish()
    if size <= volume["size"]:
        raise invalid("size", f"must be larger than {volume['size']} GB; a volume cannot shrink")
    actions.require_unlocked(call.records, "volume", volume["id"])
    return common.started(call, "resize_volume", ("volume", volume["id"]), size=size)


def _delete(call: Call) -> Answer:
    volume = KIND.get(call)
    common.require_unprotected(volume)
    actions.require_unlocked(call.records, "volume", volume["id"])
    if volume["server"] is not None:
        raise ApiError("resource_in_use", f"volume {volume['name']} is attached; detach it first")
    # The API answers this call without an action; the device goes behind its back.
    actions.start(call.records, "delete_volume", ("volume", volume["id"]), id=volume["id"])
    call.records.remove("volume", volume["id"])
    return Answer(204)


def _change_protection(call: Call) -> Answer:
    return common.change_protection(call, "volume")


ROUTES: Routes = {
    **KIND.routes(),
    ("POST", "/volumes"): _create,
    ("DELETE", "/volumes/{id}"): _delete,
    ("POST", "/volumes/{id}/actions/attach"): _attach,
    ("POST", "/volumes/{id}/actions/detach"): _detach,
    ("POST", "/volumes/{id}/actions/resize"): _resize,
    ("POST", "/volumes/{id}/actions/change_protection"): _change_protection,
}
