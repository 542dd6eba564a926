"""What is done to a server: power, type, networks, placement, rebuilding, snapshots, protection."""

from __future__ import annotations

from ipaddress import IPv4Network
from typing import TYPE_CHECKING

from lab.hetzner_api import actions, catalog, relations
from lab.hetzner_api.calls import Answer, Handler
from lab.hetzner_api.errors import ApiError, invalid
from lab.hetzner_api.resources import common, images, networks, placement_groups
from lab.hetzner_api.resources.servers import KIND, user_data

if TYPE_CHECKING:
    from lab.hetzner_api.calls import Call, Routes
    from lab.hetzner_api.store import Record


def _power(command: str) -> Handler:
    def handle(call: Call) -> Answer:
        _unlocked(call)
        return _start(call, command)

    return handle


def _unlocked(call: Call) -> Record:
    server = KIND.get(call)
    actions.require_unlocked(call.records, "server", server["id"])
    return server


def _unlocked_and_off(call: Call) -> Record:
    server = _unlocked(call)
    if server["status"] != "off":
        raise ApiError("server_not_stopped", f"server {server['name']} must be off")
    return server


def _start(call: Call, command: str, *others: actions.Resource, **arguments: object) -> Answer:
    return common.started(call, command, ("server", call.path["id"]), *others, **arguments)


def _change_type(call: Call) -> Answer:
    server = _unlocked_and_off(call)
    wanted = catalog.find(catalog.SERVER_TYPES, call.body.reference("server_type"), "server_type")
    upgrades_disk = call.body.take("upgrade_disk", bool)
    call.body.finish()
    if wanted["name"] == server["server_type"]:
        raise invalid("server_type", f"server is a {wanted['name']} already")
    if wanted["architecture"] != server["image"]["architecture"]:
        raise invalid("server_type", f"is {wanted['architecture']}, and the server's image is not")
    if server["location"] not in [place["name"] for place in wanted["locations"]]:
        raise invalid("server_type", f"is not offered in {server['location']}")
    if wanted["disk"] < server["primary_disk_size"]:
        raise invalid("server_type", f"has a disk smaller than the server's {server['primary_disk_size']} GB")
    disk = wanted["disk"] if upgrades_disk else server["primary_disk_size"]
    return _start(call, "change_server_type", server_type=wanted["name"], disk=disk)


def _change_protection(call: Call) -> Answer:
    before = KIND.get(call)["protection"]
    protection = {operation: call.body.take(operation, bool, value) for operation, value in before.items()}
    call.body.finish()
    if protection["delete"] != protection["rebuild"]:
        raise invalid("rebuild", "must be the same as delete")
    return _start(call, "change_protection", kind="server", protection=protection)


def _attach_to_network(call: Call) -> Answer:
    server = _unlocked(call)
    network = common.referred(call.records, "network", call.body.take("network", int), "network")
    ip, ip_range = call.body.take("ip", str, ""), call.body.take("ip_range", str, "")
    aliases = call.body.take("alias_ips", list, [])
    call.body.finish()
    if aliases:
        raise invalid("alias_ips", "the stand-in has none; leave it out")
    if relations.place_in(server, network["id"]):
        raise ApiError("server_already_attached", f"server {server['name']} is attached to {network['name']} already")
    for entry in server["private_net"]:
        other = call.records.get("network", entry["network"])
        if IPv4Network(other["ip_range"]).overlaps(IPv4Network(network["ip_range"])):
            raise ApiError("networks_overlap", f"networks {network['name']} and {other['name']} overlap")
    zone = catalog.find(catalog.LOCATIONS, server["location"], "location")["network_zone"]
    networks.free_address(call.records, network, zone, ip, ip_range)
    return _start(
        call, "attach_to_network", ("network", network["id"]), network=network["id"], ip=ip, ip_range=ip_range
    )


def _detach_from_network(call: Call) -> Answer:
    server, network_id = _unlocked(call), call.body.take("network", int)
    call.body.finish()
    if not relations.place_in(server, network_id):
        raise ApiError("server_not_attached_to_network", f"server {server['name']} is not attached to {network_id}")
    return _start(call, "detach_from_network", ("network", network_id), network=network_id)


def _add_to_placement_group(call: Call) -> Answer:
    server, group_id = _unlocked_and_off(call), call.body.take("placement_group", int)
    call.body.finish()
    if server["placement_group"]:
        raise ApiError("invalid_input", f"server {server['name']} is in a placement group already")
    common.referred(call.records, "placement_group", group_id, "placement_group")
    placement_groups.require_room(call.records, group_id)
    resources = ("placement_group", group_id)
    return _start(call, "add_to_placement_group", resources, placement_group=group_id)


def _remove_from_placement_group(call: Call) -> Answer:
    server = _unlocked(call)
    if not server["placement_group"]:
        raise ApiError("invalid_input", f"server {server['name']} is in no placement group")
    resource = ("placement_group", server["placement_group"])
    return _start(call, "remove_from_placement_group", resource, placement_group=None)


def _rebuild(call: Call) -> Answer:
    server = _unlocked(call)
    server_type = catalog.find(catalog.SERVER_TYPES, server["server_type"], "server_type")
    image = images.choose(call.records, call.body.reference("image"), server_type)
    has_user_data, text = call.body.has("user_data"), user_data(call.body)
    call.body.finish()
    common.require_unprotected(server, "rebuild")
    text = text if has_user_data else server["user_data"]
    answer = _start(call, "rebuild_server", image=image, user_data=text)
    return Answer(201, {**answer.body, "root_password": None})


def _create_image(call: Call) -> Answer:
    server = _unlocked(call)
    call.body.choice("type", "snapshot", default="snapshot")
    description = call.body.take("description", str, f"snapshot of {server['name']}")
    labels = call.body.labels()
    call.body.finish()
    common.require_within_limit(call.records, "image")
    image = call.records.add(
        "image",
        **{
            **{key: value for key, value in server["image"].items() if key not in {"id", "created"}},
            "name": None,
            "type": "snapshot",
            "status": "creating",
            "rapid_deploy": False,
            "description": description,
            "labels": labels,
            "created_from": {"id": server["id"], "name": server["name"]},
            "disk_size": server["primary_disk_size"],
        },
    )
    answer = _start(call, "create_image", ("image", image["id"]), image=image["id"])
    return Answer(201, {"image": image, **answer.body})


ROUTES: Routes = {
    ("POST", "/servers/{id}/actions/poweron"): _power("start_server"),
    ("POST", "/servers/{id}/actions/poweroff"): _power("stop_server"),
    ("POST", "/servers/{id}/actions/shutdown"): _power("shutdown_server"),
    ("POST", "/servers/{id}/actions/reboot"): _power("reboot_server"),
    ("POST", "/servers/{id}/actions/reset"): _power("reset_server"),
    ("POST", "/servers/{id}/actions/change_type"): _change_type,
    ("POST", "/servers/{id}/actions/change_protection"): _change_protection,
    ("POST", "/servers/{id}/actions/attach_to_network"): _attach_to_network,
    ("POST", "/servers/{id}/actions/detach_from_network"): _detach_from_network,
    ("POST", "/servers/{id}/actions/add_to_placement_group"): _add_to_placement_group,
    ("POST", "/servers/{id}/actions/remove_from_placement_group"): _remove_from_placement_group,
    ("POST", "/servers/{id}/actions/rebuild"): _rebuild,
    ("POST", "/servers/{id}/actions/create_image"): _create_image,
}
