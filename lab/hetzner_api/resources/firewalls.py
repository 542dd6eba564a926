"""Firewalls, their rules, and what they are applied to."""

from __future__ import annotations

import re
from ipaddress import ip_network
from typing import TYPE_CHECKING

from lab.hetzner_api import actions, relations
from lab.hetzner_api.calls import Answer
from lab.hetzner_api.errors import ApiError, invalid
from lab.hetzner_api.resources import common
from lab.hetzner_api.selectors import parse

if TYPE_CHECKING:
    from lab.hetzner_api.calls import Call, Routes
    from lab.hetzner_api.fields import Fields
    from lab.hetzner_api.store import Record, Records

_MOST_RULES, _MOST_CIDRS, _LAST_PORT = 50, 100, 65535
_PORTS = re.compile(r"(\d{1,5})(?:-(\d{1,5}))?")


def _render(records: Records, firewall: Record) -> Record:
    return {**firewall, "applied_to": [_render_target(records, target) for target in firewall["applied_to"]]}


def _render_target(records: Records, target: Record) -> Record:
    if target["type"] == "server":
        return target
    chosen = [server for server in records.all("server") if relations.selects(target, server)]
    servers = [{"type": "server", "server": {"id": server["id"]}} for server in chosen]
    return {**target, "applied_to_resources": servers}


KIND = common.Kind("firewall", "firewalls", _render)


def _create(call: Call) -> Answer:
    name, labels = call.body.name(), call.body.labels()
    rules = _rules(call.body.objects("rules", []))
    targets = _targets(call, "apply_to", [])
    call.body.finish()
    common.require_free_name(call.records, "firewall", name)
    common.require_within_limit(call.records, "firewall")
    firewall = call.records.add("firewall", name=name, labels=labels, rules=rules, applied_to=targets)
    started = [actions.start(call.records, "set_firewall_rules", ("firewall", firewall["id"]), id=firewall["id"])]
    started += refilter(call.records, "apply_firewall", firewall, relations.servers_behind(call.records, firewall))
    return KIND.answer(call, firewall, 201, actions=started)


def refilter(records: Records, command: str, firewall: Record, servers: list[Record]) -> list[Record]:
    """Have servers filtered anew after a firewall or its reach changed, and return the actions."""
    return [
        actions.start(records, command, ("server", server["id"]), ("firewall", firewall["id"]), id=server["id"])
        for server in servers
    ]


def follow_labels(records: Records, before: Record, after: Record) -> None:
    """Have a server filtered anew if its changed labels put it behind other firewalls."""
    for firewall in records.all("firewall"):
        was, is_now = relations.is_behind(before, firewall), relations.is_behind(after, firewall)
        if was != is_now:
            refilter(records, "apply_firewall" if is_now else "remove_firewall", firewall, [after])


def _rules(items: list[Fields]) -> list[Record]:
    if len(items) > _MOST_RULES:
        raise invalid("rules", f"must have at most {_MOST_RULES} entries")
    return [_rule(item, f"rules.{position}") for position, item in enumerate(items)]


def _rule(fields: Fields, where: str) -> Record:
    direction = fields.choice("direction", "in", "out")
    protocol = fields.choice("protocol", "tcp", "udp", "icmp", "esp", "gre")
    port = fields.take("port", str, "") or None
    rule = {
        "direction": direction,
        "source_ips": _cidrs(fields.take("source_ips", list, []), f"{where}.source_ips"),
        "destination_ips": _cidrs(fields.take("destination_ips", list, []), f"{where}.destination_ips"),
        "protocol": protocol,
        "port": port,
        "description": fields.take("description", str, "") or None,
    }
    fields.finish()
    _check_port(protocol, port, f"{where}.port")
    needed, barred = ("source_ips", "destination_ips") if direction == "in" else ("destination_ips", "source_ips")
    if not rule[needed] or rule[barred]:
        raise invalid(f"{where}.{needed}", f"a rule '{direction}' needs {needed} and must not have {barred}")
    return rule


def _check_port(protocol: str, port: str | None, field: str) -> None:
    if protocol not in {"tcp", "udp"}:
        if port:
            raise invalid(field, f"{protocol} has no ports")
        return
    if port == "any":
        return
    match = _PORTS.fullmatch(port or "")
    if not match or not 1 <= int(match[1]) <= int(match[2] or match[1]) <= _LAST_PORT:
        raise invalid(field, "must be a port, a range such as 80-85, or any")


def _cidrs(values: list[object], field: str) -> list[str]:
    try:
        cidrs = [str(ip_network(str(value))) for value in values]
    except ValueError as error:
        raise invalid(field, str(error)) from error
    if len(cidrs) > _MOST_CIDRS or len(set(cidrs)) < len(cidrs):
        raise invalid(field, f"must be at most {_MOST_CIDRS} different networks")
    return cidrs


def _targets(call: Call, field: str, default: list[Record] | None = None) -> list[Record]:
    items = call.body.objects(field) if default is None else call.body.objects(field, default)
    targets: list[Record] = []
    for item in items:
        if item.choice("type", "server", "label_selector") == "server":
            server_id = _nested(item, "server").take("id", int)
            if not any(server["id"] == server_id for server in call.records.all("server")):
                raise ApiError("firewall_resource_not_found", f"server {server_id} not found")
            target: Record = {"type": "server", "server": {"id": server_id}}
        else:
            selector = _nested(item, "label_selector").take("selector", str)
            parse(selector, f"{field}.label_selector.selector")
            target = {"type": "label_selector", "label_selector": {"selector": selector}}
        item.finish()
        targets.append(target)
    return targets


def _nested(item: Fields, name: str) -> Fields:
    return type(item)(item.take(name, dict))


def _set_rules(call: Call) -> Answer:
    firewall = KIND.get(call)
    rules = _rules(call.body.objects("rules"))
    call.body.finish()
    firewall["rules"] = rules
    call.records.save("firewall", firewall)
    started = [actions.start(call.records, "set_firewall_rules", ("firewall", firewall["id"]), id=firewall["id"])]
    started += refilter(call.records, "apply_firewall", firewall, relations.servers_behind(call.records, firewall))
    return Answer(201, {"actions": started})


def _apply(call: Call) -> Answer:
    firewall, targets = KIND.get(call), _targets(call, "apply_to")
    call.body.finish()
    if any(target in firewall["applied_to"] for target in targets):
        raise ApiError("firewall_already_applied", f"firewall {firewall['name']} is applied to this already")
    return _reach(call, "apply_firewall", firewall, [*firewall["applied_to"], *targets])


def _remove(call: Call) -> Answer:
    firewall, targets = KIND.get(call), _targets(call, "remove_from")
    call.body.finish()
    if any(target not in firewall["applied_to"] for target in targets):
        raise ApiError("firewall_already_removed", f"firewall {firewall['name']} is not applied to this")
    left = [target for target in firewall["applied_to"] if target not in targets]
    return _reach(call, "remove_firewall", firewall, left)


def _reach(call: Call, command: str, firewall: Record, targets: list[Record]) -> Answer:
    before = {server["id"]: server for server in relations.servers_behind(call.records, firewall)}
    firewall["applied_to"] = targets
    call.records.save("firewall", firewall)
    after = {server["id"]: server for server in relations.servers_behind(call.records, firewall)}
    changed = [server for number, server in (before | after).items() if (number in before) != (number in after)]
    return Answer(201, {"actions": refilter(call.records, command, firewall, changed)})


def _delete(call: Call) -> Answer:
    firewall = KIND.get(call)
    if firewall["applied_to"]:
        raise ApiError("resource_in_use", f"firewall {firewall['name']} is applied to resources")
    call.records.remove("firewall", firewall["id"])
    return Answer(204)


ROUTES: Routes = {
    **KIND.routes(),
    ("POST", "/firewalls"): _create,
    ("DELETE", "/firewalls/{id}"): _delete,
    ("POST", "/firewalls/{id}/actions/set_rules"): _set_rules,
    ("POST", "/firewalls/{id}/actions/apply_to_resources"): _apply,
    ("POST", "/firewalls/{id}/actions/remove_from_resources"): _remove,
}
