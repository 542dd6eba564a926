"""Primary IPs: the public addresses of servers."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address
from typing import TYPE_CHECKING

from lab.hetzner_api import actions, catalog
from lab.hetzner_api.calls import Answer
from lab.hetzner_api.errors import ApiError, invalid
from lab.hetzner_api.resources import common

if TYPE_CHECKING:
    from lab.hetzner_api.calls import Call, Routes
    from lab.hetzner_api.store import Record, Records

# Ranges that are nobody's: RFC 2544 and RFC 3849.
_FIRST_IPV4, _FIRST_IPV6 = IPv4Address("198.18.0.0"), IPv6Address("2001:db8::")
_IPV4_COUNT = 2**17


def _render(_records: Records, address: Record) -> Record:
    location = catalog.find(catalog.LOCATIONS, address["location"], "location")
    return {**address, "location": location, "blocked": False, "dns_ptr": []}


KIND = common.Kind("primary_ip", "primary_ips", _render, ("name", "ip"))


def add(records: Records, kind: str, location: str, name: str = "", **more: object) -> Record:
    """Keep a new address of type "ipv4" or "ipv6"; its name is made up unless given."""
    values = {"assignee_id": None, "auto_delete": False, "labels": {}, **more}
    address = records.add(
        "primary_ip",
        name=name,
        type=kind,
        ip="",
        location=location,
        assignee_type="server",
        protection={"delete": False},
        **values,
    )
    number = address["id"]
    address["name"] = name or f"primary_ip-{number}"
    address["ip"] = str(_FIRST_IPV4 + number % _IPV4_COUNT) if kind == "ipv4" else f"{_FIRST_IPV6 + (number << 64)}/64"
    records.save("primary_ip", address)
    return address


def require_free(records: Records, number: int, kind: str, location: str, field: str) -> Record:
    """Return an address that a new server can have.

    Raises:
        ApiError: It has another type or location (invalid_input), or a server (primary_ip_assigned).
    """
    address = common.referred(records, "primary_ip", number, field)
    if address["type"] != kind:
        raise invalid(field, f"is not of type {kind}")
    if address["location"] != location:
        raise invalid(field, f"is in {address['location']}, and the server in {location}")
    if address["assignee_id"] is not None:
        raise ApiError("primary_ip_assigned", f"primary IP {address['name']} is assigned already")
    return address


def _create(call: Call) -> Answer:
    fields, name = call.body, call.body.name()
    labels, kind = fields.labels(), fields.choice("type", "ipv4", "ipv6")
    location = str(catalog.find(catalog.LOCATIONS, fields.reference("location"), "location")["name"])
    fields.choice("assignee_type", "server", default="server")
    auto_delete = fields.take("auto_delete", bool, False)
    fields.finish()
    common.require_free_name(call.records, "primary_ip", name)
    common.require_within_limit(call.records, "primary_ip")
    address = add(call.records, kind, location, name, labels=labels, auto_delete=auto_delete)
    return KIND.answer(call, address, 201, action=None)


def _update(call: Call) -> Answer:
    address = KIND.get(call)
    common.update_name_and_labels(call, "primary_ip", address)
    address["auto_delete"] = call.body.take("auto_delete", bool, address["auto_delete"])
    call.body.finish()
    call.records.save("primary_ip", address)
    return KIND.answer(call, address)


def _delete(call: Call) -> Answer:
    address = KIND.get(call)
    common.require_unprotected(address)
    if address["assignee_id"] is not None:
        _require_off(call, address["assignee_id"])
    call.records.remove("primary_ip", address["id"])
    return Answer(204)


def _require_off(call: Call, server_id: int) -> None:
    server = common.referred(call.records, "server", server_id, "assignee_id")
    actions.require_unlocked(call.records, "server", server_id)
    if server["status"] != "off":
        raise ApiError("server_not_stopped", f"server {server['name']} must be off")


def _assign(call: Call) -> Answer:
    address, server_id = KIND.get(call), call.body.take("assignee_id", int)
    call.body.choice("assignee_type", "server", default="server")
    call.body.finish()
    server = common.referred(call.records, "server", server_id, "assignee_id")
    require_free(call.records, address["id"], address["type"], server["location"], "assignee_id")
    _require_off(call, server_id)
    resources = (("primary_ip", address["id"]), ("server", server_id))
    return common.started(call, "assign_primary_ip", *resources, server=server_id)


def _unassign(call: Call) -> Answer:
    address = KIND.get(call)
    server_id = address["assignee_id"]
    if server_id is None:
        raise ApiError("invalid_input", f"primary IP {address['name']} is not assigned")
    _require_off(call, server_id)
    return common.started(call, "unassign_primary_ip", ("primary_ip", address["id"]), ("server", server_id))


def _change_protection(call: Call) -> Answer:
    return common.change_protection(call, "primary_ip")


ROUTES: Routes = {
    **KIND.routes(),
    ("POST", "/primary_ips"): _create,
    ("PUT", "/primary_ips/{id}"): _update,
    ("DELETE", "/primary_ips/{id}"): _delete,
    ("POST", "/primary_ips/{id}/actions/assign"): _assign,
    ("POST", "/primary_ips/{id}/actions/unassign"): _unassign,
    ("POST", "/primary_ips/{id}/actions/change_protection"): _change_protection,
}
