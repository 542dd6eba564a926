"""Making a server, with all that can be asked for along with it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from lab.hetzner_api import actions, catalog
from lab.hetzner_api.errors import invalid
from lab.hetzner_api.resources import common, images, placement_groups, primary_ips, volumes
from lab.hetzner_api.resources.servers import KIND, hostname, join, user_data

if TYPE_CHECKING:
    from lab.hetzner_api.calls import Answer, Call, Routes
    from lab.hetzner_api.fields import Fields
    from lab.hetzner_api.store import Record, Records


@dataclass(frozen=True, slots=True)
class _Wanted:
    """What a call asks for.

    Attributes:
        record: What the server's record holds of its own.
        addresses: By type the public addresses; None stands for a new one.
    """

    record: Record
    addresses: dict[str, Record | None]
    firewalls: list[Record]
    volumes: list[Record]
    networks: list[Record]
    starts: bool


def _create(call: Call) -> Answer:
    wanted = _read(call)
    _refuse(call.records, wanted)
    server = _add(call.records, wanted)
    number = server["id"]
    action = actions.start(call.records, "create_server", ("server", number), id=number, starts=wanted.starts)
    follow_ups = [volumes.start_attaching(call, volume, server) for volume in wanted.volumes]
    if wanted.starts:
        follow_ups.append(actions.start(call.records, "start_server", ("server", number), id=number))
    # The API makes up a password where no key was given; nobody could log in with it here.
    return KIND.answer(call, server, 201, action=action, next_actions=follow_ups, root_password=None)


def _read(call: Call) -> _Wanted:
    fields, records = call.body, call.records
    record = _basics(call)
    wanted = _Wanted(
        record=record,
        addresses=_addresses(records, type(fields)(fields.take("public_net", dict, {})), record["location"]),
        firewalls=[_firewall(records, item) for item in fields.objects("firewalls", [])],
        volumes=[common.referred(records, "volume", number, "volumes") for number in fields.ids("volumes")],
        networks=[common.referred(records, "network", number, "networks") for number in fields.ids("networks")],
        starts=fields.take("start_after_create", bool, True),
    )
    if fields.take("automount", bool, False):
        raise invalid("automount", "the stand-in mounts nothing; leave it out")
    fields.finish()
    return wanted


def _refuse(records: Records, wanted: _Wanted) -> None:
    common.require_free_name(records, "server", wanted.record["name"])
    common.require_within_limit(records, "server")
    if group_id := wanted.record["placement_group"]:
        common.referred(records, "placement_group", group_id, "placement_group")
        placement_groups.require_room(records, group_id)
    for volume in wanted.volumes:
        volumes.require_attachable(records, volume, wanted.record["location"])


def _add(records: Records, wanted: _Wanted) -> Record:
    server = records.add("server", **wanted.record)
    for kind, address in wanted.addresses.items():
        if address is None:
            primary_ips.add(records, kind, server["location"], assignee_id=server["id"], auto_delete=True)
        else:
            records.save("primary_ip", {**address, "assignee_id": server["id"]})
    for firewall in wanted.firewalls:
        firewall["applied_to"].append({"type": "server", "server": {"id": server["id"]}})
        records.save("firewall", firewall)
    for network in wanted.networks:
        join(records, server, network)
    return server


def _basics(call: Call) -> Record:
    fields, records = call.body, call.records
    server_type = catalog.find(catalog.SERVER_TYPES, fields.reference("server_type"), "server_type")
    location = catalog.find(catalog.LOCATIONS, fields.reference("location", "fsn1"), "location")
    if location["name"] not in [place["name"] for place in server_type["locations"]]:
        raise invalid("location", f"unsupported location for server type {server_type['name']}")
    name = hostname(fields)
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
        "placement_group": fields.take("placement_group", int, 0) or None,
        "private_net": [],
        "status": "off",
        "is_made": False,
    }


def _machine(records: Records, name: str) -> str:
    """Return the name of the machine behind a new server; one that was renamed keeps its machine's."""
    taken = {server["machine"] for server in records.all("server")}
    if name not in taken:
        return name
    return next(other for number in range(2, len(taken) + 3) if (other := f"{name}-{number}") not in taken)


def _public_key(records: Records, wanted: object) -> str:
    for key in records.all("ssh_key"):
        if wanted in (key["id"], key["name"], str(key["id"])):
            return str(key["public_key"])
    raise invalid("ssh_keys", f"SSH key {wanted!r} not found")


def _firewall(records: Records, item: Fields) -> Record:
    firewall = common.referred(records, "firewall", item.take("firewall", int), "firewalls")
    item.finish()
    return firewall


def _addresses(records: Records, fields: Fields, location: str) -> dict[str, Record | None]:
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


ROUTES: Routes = {("POST", "/servers"): _create}
