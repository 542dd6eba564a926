"""Servers: making, reading, changing and deleting them. What is done to one is in `server_actions`."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from lab.hetzner_api import actions, catalog, relations
from lab.hetzner_api.calls import Answer
from lab.hetzner_api.errors import invalid
from lab.hetzner_api.resources import common, firewalls, images, networks, placement_groups, primary_ips, volumes

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


def _create(call: Call) -> Answer:
    fields, records = call.body, call.records
    record = _basics(call)
    group_id = fields.take("placement_group", int, 0) or None
    public_net = type(fields)(fields.take("public_net", dict, {}))
    chosen_ips = _choose_primary_ips(records, public_net, record["location"])
    chosen_firewalls = [_firewall(records, item) for item in fields.objects("firewalls", [])]
    chosen_volumes = [common.referred(records, "volume", number, "volumes") for number in fields.ids("volumes")]
    chosen_networks = [common.referred(records, "network", number, "networks") for number in fields.ids("networks")]
    starts = fields.take("start_after_create", bool, True)
    if fields.take("automount", bool, False):
        raise invalid("automount", "the stand-in mounts nothing; leave it out")
    fields.finish()
    common.require_free_name(records, "server", record["name"])
    common.require_within_limit(records, "server")
    if group_id:
        common.referred(records, "placement_group", group_id, "placement_group")
        placement_groups.require_room(records, group_id)
    for volume in chosen_volumes:
        volumes.require_attachable(records, volume, record["location"])

    server = records.add("server", **record, placement_group=group_id)
    _take_primary_ips(records, server, chosen_ips)
    for firewall in chosen_firewalls:
        firewall["applied_to"].append({"type": "server", "server": {"id": server["id"]}})
        records.save("firewall", firewall)
    for network in chosen_networks:
        join(records, server, network)
    action = actions.start(records, "create_server", ("server", server["id"]), id=server["id"], starts=starts)
    follow_ups = [volumes.start_attaching(call, volume, server) for volume in chosen_volumes]
    if starts:
        follow_ups.append(actions.start(records, "start_server", ("server", server["id"]), id=server["id"]))
    password = None if record["ssh_keys"] else "not-used-in-the-lab"
    return KIND.answer(call, server, 201, action=action, next_actions=follow_ups, root_password=password)


def _basics(call: Call) -> Record:
    """Return what a new server's record holds apart from what it shares with other resources."""
    fields, records = call.body, call.records
    server_type = catalog.find(catalog.SERVER_TYPES, fields.reference("server_type"), "server_type")
    location = catalog.find(catalog.LOCATIONS, fields.reference("location", "fsn1"), "location")
    if location["name"] not in [place["name"] for place in server_type["locations"]]:
        raise invalid("location", f"unsupported location for server type {server_type['name']}")
    name = _hostname(fields.name())
    return {
        "name": name,
        "machine": _machine(records, name),
        "labels": fields.labels(),
        "server_type": server_type["name"],
        "location": location["name"],
        "image": images.choose(records, fields.reference("image"), server_type),
        "user_data": user_data(fields),
        "ssh_keys": [_public_key(records, wanted) for wanted in fields.take("ssh_keys", list, [])],
        "primary_disk_size": server_type["disk"],
        "protection": {"delete": False, "rebuild": False},
        "private_net": [],
        "status": "off",
        "is_made": False,
    }


def _hostname(name: str) -> str:
    if not _HOSTNAME.fullmatch(name):
        raise invalid("name", "must be a hostname as in RFC 1123")
    return name


def _machine(records: Records, name: str) -> str:
    """Return the name of the machine behind a new server; one that was renamed keeps its machine's."""
    taken = {server["machine"] for server in records.all("server")}
    if name not in taken:
        return name
    return next(other for number in range(2, len(taken) + 3) if (other := f"{name}-{number}") not in taken)


def user_data(fields: Fields) -> str:
    """Return the field "user_data", which has at most 32 KiB."""
    text = fields.take("user_data", str, "")
    if len(text.encode()) > _MOST_USER_DATA:
        raise invalid("user_data", f"must have at most {_MOST_USER_DATA} bytes")
    return text


def _public_key(records: Records, wanted: object) -> str:
    for key in records.all("ssh_key"):
        if wanted in (key["id"], key["name"], str(key["id"])):
            return str(key["public_key"])
    raise invalid("ssh_keys", f"SSH key {wanted!r} not found")


def _firewall(records: Records, item: Fields) -> Record:
    firewall = common.referred(records, "firewall", item.take("firewall", int), "firewalls")
    item.finish()
    return firewall


def _choose_primary_ips(records: Records, fields: Fields, location: str) -> dict[str, Record | None]:
    """Return by type the addresses that a new server shall have; None stands for a new one."""
    chosen: dict[str, Record | None] = {}
    for kind in ("ipv4", "ipv6"):
        wanted, is_enabled = fields.take(kind, int, 0), fields.take(f"enable_{kind}", bool, True)
        if wanted and is_enabled:
            chosen[kind] = primary_ips.require_free(records, wanted, kind, location, f"public_net.{kind}")
        elif is_enabled:
            common.require_within_limit(records, "primary_ip")
            chosen[kind] = None
    fields.finish()
    return chosen


def _take_primary_ips(records: Records, server: Record, chosen: dict[str, Record | None]) -> None:
    for kind, address in chosen.items():
        if address is None:
            primary_ips.add(records, kind, server["location"], assignee_id=server["id"], auto_delete=True)
        else:
            records.save("primary_ip", {**address, "assignee_id": server["id"]})


def join(records: Records, server: Record, network: Record, ip: str = "", ip_range: str = "") -> None:
    """Attach a server to a network under an address that is free."""
    zone = catalog.find(catalog.LOCATIONS, server["location"], "location")["network_zone"]
    address = networks.free_address(records, network, zone, ip, ip_range)
    mac_address = f"86:00:{server['id'] + len(server['private_net']):08x}"
    mac_address = ":".join(mac_address.replace(":", "")[at : at + 2] for at in range(0, 12, 2))
    server["private_net"].append({"network": network["id"], "ip": address, "alias_ips": [], "mac_address": mac_address})
    records.save("server", server)


def _update(call: Call) -> Answer:
    server = KIND.get(call)
    before = {**server}
    common.update_name_and_labels(call, "server", server)
    _hostname(server["name"])
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
    ("POST", "/servers"): _create,
    ("PUT", "/servers/{id}"): _update,
    ("DELETE", "/servers/{id}"): _delete,
}
