"""Servers: reading, renaming, labelling and deleting them."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from lab.hetzner_api import actions, catalog, relations
from lab.hetzner_api.calls import Answer
from lab.hetzner_api.errors import invalid
from lab.hetzner_api.resources import common, firewalls, networks, placement_groups

if TYPE_CHECKING:
    from lab.hetzner_api.calls import Call, Routes
    from lab.hetzner_api.fields import Fields
    from lab.hetzner_api.store import Record, Records

_HOSTNAME = re.compile(r"(?!-)[A-Za-z0-9-]{1,63}(?<!-)(\.(?!-)[A-Za-z0-9-]{1,63}(?<!-))*")
_MOST_USER_DATA = 32 * 1024
# What a server is while an action works on it.
_STATUSES = {
    "create_server": "initializing",
    "delete_server": "deleting",
    "start_server": "starting",
    "shutdown_server": "stopping",
    "stop_server": "stopping",
    "rebuild_server": "rebuilding",
    "change_server_type": "migrating",
}
_KEPT = ("id", "name", "created", "labels", "private_net", "protection", "primary_disk_size")


def render(records: Records, server: Record) -> Record:
    """Return a server in the form that is answered."""
    commands = actions.under_way(records, "server", server["id"])
    group_id = server["placement_group"]
    group = placement_groups.render(records, records.get("placement_group", group_id)) if group_id else None
    return {
        **{key: server[key] for key in _KEPT},
        "status": next((_STATUSES[command] for command in commands if command in _STATUSES), server["status"]),
        "server_type": catalog.find(catalog.SERVER_TYPES, server["server_type"], "server_type"),
        "location": catalog.find(catalog.LOCATIONS, server["location"], "location"),
        "image": server["image"],
        "public_net": _public_net(records, server, settled="apply_firewall" not in commands),
        "placement_group": group,
        "volumes": [volume["id"] for volume in relations.volumes_of(records, server["id"])],
        "locked": actions.is_locked(records, "server", server["id"]),
        "iso": None,
        "rescue_enabled": False,
        "backup_window": None,
        "outgoing_traffic": None,
        "ingoing_traffic": None,
        "included_traffic": catalog.INCLUDED_TRAFFIC,
        "load_balancers": [],
    }


def _public_net(records: Records, server: Record, *, settled: bool) -> Record:
    addresses = {address["type"]: address for address in relations.primary_ips_of(records, server["id"])}
    status = "applied" if settled else "pending"
    found = relations.firewalls_of(records, server)
    return {
        "ipv4": _public_address(addresses.get("ipv4"), ""),
        "ipv6": _public_address(addresses.get("ipv6"), []),
        "floating_ips": [],
        "firewalls": [{"id": firewall["id"], "status": status} for firewall in found],
    }


def _public_address(address: Record | None, dns_ptr: object) -> Record | None:
    return address and {"id": address["id"], "ip": address["ip"], "blocked": False, "dns_ptr": dns_ptr}


KIND = common.Kind("server", "servers", render, ("name", "status"))


def join(records: Records, server: Record, network: Record, ip: str = "", ip_range: str = "") -> None:
    """Attach a server to a network under an address that is free."""
    zone = catalog.find(catalog.LOCATIONS, server["location"], "location")["network_zone"]
    address = networks.free_address(records, network, zone, ip, ip_range)
    number = server["id"] + len(server["private_net"])
    mac_address = ":".join(f"{octet:02x}" for octet in (0x86, 0, *number.to_bytes(4, "big")))
    server["private_net"].append({"network": network["id"], "ip": address, "alias_ips": [], "mac_address": mac_address})
    records.save("server", server)


def hostname(fields: Fields, default: str = "") -> str:
    """Return the field "name", which must be a hostname as in RFC 1123."""
    name = fields.name(default) if default else fields.name()
    if not _HOSTNAME.fullmatch(name):
        raise invalid("name", "must be a hostname as in RFC 1123")
    return name


def user_data(fields: Fields) -> str:
    """Return the field "user_data", which has at most 32 KiB."""
    text = fields.take("user_data", str, "")
    if len(text.encode()) > _MOST_USER_DATA:
        raise invalid("user_data", f"must have at most {_MOST_USER_DATA} bytes")
    return text


def _update(call: Call) -> Answer:
    server = KIND.get(call)
    before = {**server}
    hostname(call.body, server["name"])
    common.update_name_and_labels(call, "server", server)
    call.body.finish()
    call.records.save("server", server)
    firewalls.follow_labels(call.records, before, server)
    return KIND.answer(call, server)


def _delete(call: Call) -> Answer:
    server = KIND.get(call)
    common.require_unprotected(server)
    actions.require_unlocked(call.records, "server", server["id"])
    attached = [("volume", volume["id"]) for volume in relations.volumes_of(call.records, server["id"])]
    resources = [("server", server["id"]), *attached]
    return Answer(200, {"action": actions.start(call.records, "delete_server", *resources, id=server["id"])})


ROUTES: Routes = {
    **KIND.routes(),
    ("PUT", "/servers/{id}"): _update,
    ("DELETE", "/servers/{id}"): _delete,
}
