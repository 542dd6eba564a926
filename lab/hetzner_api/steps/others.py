"""What is done without a machine: it is written down."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lab.hetzner_api.steps.step import Step

if TYPE_CHECKING:
    from lab.hetzner_api.store import Record, Records


def _protect(records: Records, arguments: Record, _result: None) -> None:
    record = records.get(arguments["kind"], arguments["id"])
    records.save(arguments["kind"], {**record, "protection": arguments["protection"]})


def _change_network(records: Records, arguments: Record, _result: None) -> None:
    network = records.get("network", arguments["id"])
    records.save("network", {**network, **arguments["values"]})


def _assign(records: Records, arguments: Record, _result: None) -> None:
    address = records.get("primary_ip", arguments["id"])
    records.save("primary_ip", {**address, "assignee_id": arguments.get("server")})


def _image_made(records: Records, arguments: Record, _result: None) -> None:
    image = records.get("image", arguments["image"])
    records.save("image", {**image, "status": "available", "image_size": 1.0})


STEPS = {
    "add_route": Step(settle=_change_network),
    "add_subnet": Step(settle=_change_network),
    "assign_primary_ip": Step(settle=_assign),
    "change_ip_range": Step(settle=_change_network),
    "change_protection": Step(settle=_protect),
    "create_image": Step(settle=_image_made),
    "delete_route": Step(settle=_change_network),
    "delete_subnet": Step(settle=_change_network),
    "set_firewall_rules": Step(),
    "unassign_primary_ip": Step(settle=_assign),
}
