"""Private networks, their subnets and routes."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network
from typing import TYPE_CHECKING

from lab.hetzner_api import actions, catalog, relations
from lab.hetzner_api.calls import Answer
from lab.hetzner_api.errors import ApiError, invalid, not_implemented
from lab.hetzner_api.fields import network as parse_network
from lab.hetzner_api.resources import common

if TYPE_CHECKING:
    from lab.hetzner_api.calls import Call, Routes
    from lab.hetzner_api.fields import Fields
    from lab.hetzner_api.store import Record, Records

_PRIVATE = tuple(IPv4Network(text) for text in ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16"))
_ZONES = sorted({str(location["network_zone"]) for location in catalog.LOCATIONS})
_LONGEST_NETWORK, _LONGEST_SUBNET = 24, 30


def render(records: Records, network: Record) -> Record:
    """Return a network in the form that is answered."""
    servers = [server["id"] for server in relations.servers_in_network(records, network["id"])]
    return {**network, "servers": servers, "load_balancers": []}


KIND = common.Kind("network", "networks", render)


def _create(call: Call) -> Answer:
    fields, name = call.body, call.body.name()
    labels, ip_range = fields.labels(), _private_range(fields)
    subnets: list[Record] = []
    for item in fields.objects("subnets", []):
        subnets.append(_subnet(item, ip_range, subnets))
    routes: list[Record] = []
    for item in fields.objects("routes", []):
        routes.append(_route(item, ip_range, routes))
    exposes = fields.take("expose_routes_to_vswitch", bool, False)
    fields.finish()
    common.require_free_name(call.records, "network", name)
    common.require_within_limit(call.records, "network")
    network = call.records.add(
        "network",
        name=name,
        labels=labels,
        ip_range=str(ip_range),
        subnets=subnets,
        routes=routes,
        expose_routes_to_vswitch=exposes,
        protection={"delete": False},
    )
    return KIND.answer(call, network, 201)


def _private_range(fields: Fields) -> IPv4Network:
    ip_range = fields.network("ip_range")
    if not any(ip_range.subnet_of(private) for private in _PRIVATE):
        raise invalid("ip_range", "must be within the private ranges of RFC 1918")
    if ip_range.prefixlen > _LONGEST_NETWORK:
        raise invalid("ip_range", f"must be a /{_LONGEST_NETWORK} or larger")
    return ip_range


def _subnet(fields: Fields, whole: IPv4Network, others: list[Record]) -> Record:
    kind = fields.choice("type", "cloud", "server", "vswitch")
    if kind == "vswitch":
        raise not_implemented("subnet of type 'vswitch'")
    zone = fields.choice("network_zone", *_ZONES)
    taken = [IPv4Network(other["ip_range"]) for other in others]
    chosen = fields.network("ip_range") if fields.has("ip_range") else _free_subnet(whole, taken)
    fields.finish()
    if chosen.prefixlen > _LONGEST_SUBNET or not chosen.subnet_of(whole):
        raise invalid("ip_range", f"must be a /{_LONGEST_SUBNET} or larger within {whole}")
    if any(chosen.overlaps(other) for other in taken):
        raise invalid("ip_range", "overlaps with another subnet")
    return {"type": kind, "ip_range": str(chosen), "network_zone": zone, "gateway": str(whole[1]), "vswitch_id": None}


def _free_subnet(whole: IPv4Network, taken: list[IPv4Network]) -> IPv4Network:
    for candidate in whole.subnets(new_prefix=24):
        if not any(candidate.overlaps(other) for other in taken):
            return candidate
    raise invalid("ip_range", f"{whole} has no /24 left")


def _route(fields: Fields, whole: IPv4Network, others: list[Record]) -> Record:
    destination, gateway = fields.network("destination"), fields.take("gateway", str)
    fields.finish()
    if any(destination.overlaps(IPv4Network(other["destination"])) for other in others):
        raise invalid("destination", "overlaps with another route")
    try:
        inside = IPv4Address(gateway) in whole and IPv4Address(gateway) != whole[1]
    except ValueError:
        inside = False
    if not inside:
        raise invalid("gateway", f"must be an address of {whole}, but not its first")
    return {"destination": str(destination), "gateway": gateway}


def _delete(call: Call) -> Answer:
    network = KIND.get(call)
    common.require_unprotected(network)
    actions.require_unlocked(call.records, "network", network["id"])
    for server in relations.servers_in_network(call.records, network["id"]):
        server["private_net"] = [entry for entry in server["private_net"] if entry["network"] != network["id"]]
        call.records.save("server", server)
    call.records.remove("network", network["id"])
    return Answer(204)


def _add_subnet(call: Call) -> Answer:
    network = KIND.get(call)
    subnet = _subnet(call.body, IPv4Network(network["ip_range"]), network["subnets"])
    return _change(call, "add_subnet", subnets=[*network["subnets"], subnet])


def _delete_subnet(call: Call) -> Answer:
    network, ip_range = KIND.get(call), call.body.network("ip_range")
    call.body.finish()
    left = [subnet for subnet in network["subnets"] if subnet["ip_range"] != str(ip_range)]
    if len(left) == len(network["subnets"]):
        raise ApiError("not_found", f"subnet {ip_range} not found")
    for server in relations.servers_in_network(call.records, network["id"]):
        entry = relations.place_in(server, network["id"])
        if entry and IPv4Address(entry["ip"]) in ip_range:
            raise ApiError("resource_in_use", f"subnet {ip_range} has server {server['name']}")
    return _change(call, "delete_subnet", subnets=left)


def _add_route(call: Call) -> Answer:
    network = KIND.get(call)
    route = _route(call.body, IPv4Network(network["ip_range"]), network["routes"])
    return _change(call, "add_route", routes=[*network["routes"], route])


def _delete_route(call: Call) -> Answer:
    network = KIND.get(call)
    route = {"destination": call.body.take("destination", str), "gateway": call.body.take("gateway", str)}
    call.body.finish()
    if route not in network["routes"]:
        raise ApiError("not_found", f"route to {route['destination']} not found")
    return _change(call, "delete_route", routes=[other for other in network["routes"] if other != route])


def _change_ip_range(call: Call) -> Answer:
    network, wanted = KIND.get(call), _private_range(call.body)
    call.body.finish()
    if not IPv4Network(network["ip_range"]).subnet_of(wanted):
        raise invalid("ip_range", "can only be extended")
    subnets = [{**subnet, "gateway": str(wanted[1])} for subnet in network["subnets"]]
    return _change(call, "change_ip_range", ip_range=str(wanted), subnets=subnets)


def _change(call: Call, command: str, **values: object) -> Answer:
    # Two changes at once would each undo the other's.
    actions.require_unlocked(call.records, "network", call.path["id"])
    return common.started(call, command, ("network", call.path["id"]), values=values)


def _change_protection(call: Call) -> Answer:
    return common.change_protection(call, "network")


def free_address(records: Records, network: Record, zone: str, ip: str = "", ip_range: str = "") -> str:
    """Return an address for a server of a network zone: the one asked for, or the first that is free.

    Raises:
        ApiError: `ip` is taken or in no subnet (ip_not_available), or nothing is free (no_subnet_available).
    """
    servers = relations.servers_in_network(records, network["id"])
    entries = [relations.place_in(server, network["id"]) or {} for server in servers]
    taken = {IPv4Network(network["ip_range"])[1]}
    taken |= {IPv4Address(text) for entry in entries for text in (entry["ip"], *entry["alias_ips"])}
    subnets = [
        parse_network("ip_range", subnet["ip_range"])
        for subnet in network["subnets"]
        if subnet["network_zone"] == zone and ip_range in {"", subnet["ip_range"]}
    ]
    if ip:
        return _asked_for(ip, subnets, taken)
    for subnet in subnets:
        for address in subnet.hosts():
            if address not in taken:
                return str(address)
    raise ApiError("no_subnet_available", f"network {network['name']} has no subnet with a free IP in {zone}")


def _asked_for(ip: str, subnets: list[IPv4Network], taken: set[IPv4Address]) -> str:
    try:
        address = IPv4Address(ip)
    except ValueError as error:
        raise invalid("ip", "is no IPv4 address") from error
    hosts = [subnet for subnet in subnets if address in subnet and address not in (subnet[0], subnet[-1])]
    if address in taken or not hosts:
        raise ApiError("ip_not_available", f"IP {ip} is not available")
    return ip


ROUTES: Routes = {
    **KIND.routes(),
    ("POST", "/networks"): _create,
    ("DELETE", "/networks/{id}"): _delete,
    ("POST", "/networks/{id}/actions/add_subnet"): _add_subnet,
    ("POST", "/networks/{id}/actions/delete_subnet"): _delete_subnet,
    ("POST", "/networks/{id}/actions/add_route"): _add_route,
    ("POST", "/networks/{id}/actions/delete_route"): _delete_route,
    ("POST", "/networks/{id}/actions/change_ip_range"): _change_ip_range,
    ("POST", "/networks/{id}/actions/change_protection"): _change_protection,
}
