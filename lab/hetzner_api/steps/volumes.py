"""What is done to volumes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lab.hetzner_api.steps.step import Step

if TYPE_CHECKING:
    from lab.hetzner_api.driver import Driver
    from lab.hetzner_api.store import Record, Records, Store


def _create(store: Store, driver: Driver, arguments: Record) -> None:
    with store.transaction() as records:
        volume = records.get("volume", arguments["id"])
    driver.create_volume(volume["id"], volume["size"], volume["format"])


def _delete(_store: Store, driver: Driver, arguments: Record) -> None:
    driver.delete_volume(arguments["id"])


def _attach(store: Store, driver: Driver, arguments: Record) -> str:
    with store.transaction() as records:
        server = records.get("server", arguments["server"])
    return driver.attach(arguments["id"], server["machine"])


def _attached(records: Records, arguments: Record, device: str) -> None:
    volume = records.get("volume", arguments["id"])
    volume["server"] = arguments["server"]
    volume["linux_device"] = device
    records.save("volume", volume)


def _detach(_store: Store, driver: Driver, arguments: Record) -> None:
    driver.detach(arguments["id"])


def _detached(records: Records, arguments: Record, _result: None) -> None:
    volume = records.get("volume", arguments["id"])
    volume["server"] = None
    records.save("volume", volume)


def _resize(_store: Store, driver: Driver, arguments: Record) -> None:
    driver.resize_volume(arguments["id"], arguments["size"])


def _resized(records: Records, arguments: Record, _result: None) -> None:
    volume = records.get("volume", arguments["id"])
    volume["size"] = arguments["size"]
    records.save("volume", volume)


STEPS = {
    "create_volume": Step(drive=_create),
    "delete_volume": Step(drive=_delete),
    "attach_volume": Step(drive=_attach, settle=_attached),
    "detach_volume": Step(drive=_detach, settle=_detached),
    "resize_volume": Step(drive=_resize, settle=_resized),
}
