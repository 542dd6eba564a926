"""What is done to servers and their machines."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lab.hetzner_api import relations
from lab.hetzner_api.driver import ServerSpec
from lab.hetzner_api.errors import ApiError
from lab.hetzner_api.resources.servers import join
from lab.hetzner_api.steps.step import Drive, Settle, Step

if TYPE_CHECKING:
    from lab.hetzner_api.driver import Driver, Operation
    from lab.hetzner_api.store import Record, Records, Store


def _made(store: Store, arguments: Record) -> Record:
    """Return a server that has a machine; one whose creation failed can only be deleted."""
    with store.transaction() as records:
        server = records.get("server", arguments["id"])
    if not server["is_made"]:
        raise ApiError("action_failed", f"server {server['name']} was never created; delete it")
    return server


def _create(store: Store, driver: Driver, arguments: Record) -> str:
    with store.transaction() as records:
        server = records.get("server", arguments["id"])
    return _make(store, driver, server, starts=arguments["starts"])


def _make(store: Store, driver: Driver, server: Record, *, starts: bool = True) -> str:
    spec = ServerSpec(
        id=server["id"],
        name=server["machine"],
        image=server["image"]["name"] or f"snapshot-{server['image']['id']}",
        user_data=server["user_data"],
        ssh_keys=tuple(server["ssh_keys"]),
    )
    ipv4 = driver.create(spec)
    _filter(store, driver, {"id": server["id"]})
    if not starts:
        driver.power(spec.name, "off")
    return ipv4


def _created(records: Records, arguments: Record, ipv4: str) -> None:
    _change(records, arguments["id"], is_made=True, status="running" if arguments["starts"] else "off")
    _note_address(records, arguments["id"], ipv4)


def _note_address(records: Records, server_id: int, ipv4: str) -> None:
    for address in relations.primary_ips_of(records, server_id):
        if address["type"] == "ipv4" and ipv4:
            records.save("primary_ip", {**address, "ip": ipv4})


def _change(records: Records, server_id: int, **values: Any) -> None:
    records.save("server", {**records.get("server", server_id), **values})


def _delete(store: Store, driver: Driver, arguments: Record) -> None:
    with store.transaction() as records:
        server = records.get("server", arguments["id"])
        volumes = relations.volumes_of(records, server["id"])
    for volume in volumes:
        driver.detach(volume["id"])
    driver.delete(server["machine"])


def _deleted(records: Records, arguments: Record, _result: None) -> None:
    server = records.get("server", arguments["id"])
    for volume in relations.volumes_of(records, server["id"]):
        records.save("volume", {**volume, "server": None})
    for address in relations.primary_ips_of(records, server["id"]):
        if address["auto_delete"]:
            records.remove("primary_ip", address["id"])
        else:
            records.save("primary_ip", {**address, "assignee_id": None})
    target = {"type": "server", "server": {"id": server["id"]}}
    for firewall in relations.firewalls_of(records, server):
        left = [other for other in firewall["applied_to"] if other != target]
        records.save("firewall", {**firewall, "applied_to": left})
    records.remove("server", server["id"])


def _power(operation: Operation) -> Drive:
    def drive(store: Store, driver: Driver, arguments: Record) -> None:
        server = _made(store, arguments)
        if operation == "on" and server["status"] == "running":
            return
        driver.power(server["machine"], operation)

    return drive


def _now(status: str) -> Settle:
    return lambda records, arguments, _result: _change(records, arguments["id"], status=status)


def _type_changed(records: Records, arguments: Record, _result: None) -> None:
    # "This copies the content of its disk, and starts it again" (Hetzner's reference of change_type).
    values = {"server_type": arguments["server_type"], "primary_disk_size": arguments["disk"], "status": "running"}
    _change(records, arguments["id"], **values)


def _rebuild(store: Store, driver: Driver, arguments: Record) -> str:
    server = _made(store, arguments)
    with store.transaction() as records:
        volumes = relations.volumes_of(records, server["id"])
    for volume in volumes:
        driver.detach(volume["id"])
    driver.delete(server["machine"])
    new = {**server, "image": arguments["image"], "user_data": arguments["user_data"]}
    ipv4 = _make(store, driver, new)
    for volume in volumes:
        driver.attach(volume["id"], server["machine"])
    return ipv4


def _rebuilt(records: Records, arguments: Record, ipv4: str) -> None:
    values = {"image": arguments["image"], "user_data": arguments["user_data"], "status": "running"}
    _change(records, arguments["id"], **values)
    _note_address(records, arguments["id"], ipv4)


def _filter(store: Store, driver: Driver, arguments: Record) -> None:
    with store.transaction() as records:
        server = records.get("server", arguments["id"])
        rules = relations.rules_for(records, server)
    driver.filter(server["machine"], rules)


def _refilter(store: Store, driver: Driver, arguments: Record) -> None:
    _made(store, arguments)
    _filter(store, driver, arguments)


def _joined(records: Records, arguments: Record, _result: None) -> None:
    server, network = records.get("server", arguments["id"]), records.get("network", arguments["network"])
    if not relations.place_in(server, network["id"]):
        join(records, server, network, arguments["ip"], arguments["ip_range"])


def _left(records: Records, arguments: Record, _result: None) -> None:
    server = records.get("server", arguments["id"])
    entries = [entry for entry in server["private_net"] if entry["network"] != arguments["network"]]
    _change(records, arguments["id"], private_net=entries)


def _grouped(records: Records, arguments: Record, _result: None) -> None:
    _change(records, arguments["id"], placement_group=arguments["placement_group"])


STEPS = {
    "create_server": Step(drive=_create, settle=_created),
    "delete_server": Step(drive=_delete, settle=_deleted),
    "start_server": Step(drive=_power("on"), settle=_now("running")),
    "stop_server": Step(drive=_power("off"), settle=_now("off")),
    "shutdown_server": Step(drive=_power("shutdown"), settle=_now("off")),
    "reboot_server": Step(drive=_power("reboot"), settle=_now("running")),
    "reset_server": Step(drive=_power("reset"), settle=_now("running")),
    "change_server_type": Step(drive=_power("on"), settle=_type_changed),
    "rebuild_server": Step(drive=_rebuild, settle=_rebuilt),
    "apply_firewall": Step(drive=_refilter),
    "remove_firewall": Step(drive=_refilter),
    "attach_to_network": Step(settle=_joined),
    "detach_from_network": Step(settle=_left),
    "add_to_placement_group": Step(settle=_grouped),
    "remove_from_placement_group": Step(settle=_grouped),
}
