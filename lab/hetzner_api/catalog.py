"""What Hetzner offers and this stand-in serves: locations, server types, images and prices.

Numbers and prices are of the right size but not binding: a program must take them from the API it talks to.
"""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING, Any

from lab.hetzner_api.errors import invalid

if TYPE_CHECKING:
    from collections.abc import Sequence

Entry = dict[str, Any]

CURRENCY = "EUR"
INCLUDED_TRAFFIC = 20 * 1024**4
_VAT_PERCENT = Decimal(19)
_HOURS_A_MONTH = 730
_RELEASED = "2025-06-01T00:00:00+00:00"
_EUROPE = ("fsn1", "nbg1", "hel1")
_EVERYWHERE = (*_EUROPE, "ash", "hil", "sin")


def price(net: Decimal) -> Entry:
    """Return an amount without and with value-added tax, as the API writes it."""
    return {"net": f"{net:.10f}", "gross": f"{net * (100 + _VAT_PERCENT) / 100:.16f}"}


def prices(monthly: Decimal, where: Sequence[str]) -> list[Entry]:
    """Return what something costs in each location."""
    return [
        {"location": name, "price_hourly": price(monthly / _HOURS_A_MONTH), "price_monthly": price(monthly)}
        for name in where
    ]


def _server_type(row: tuple[int, str, int, int, int, str, tuple[str, ...]]) -> Entry:
    number, name, cores, memory, disk, monthly, where = row
    return {
        "id": number,
        "name": name,
        "description": name.upper(),
        "category": "Dedicated vCPU" if name.startswith("ccx") else "Shared vCPU",
        "cores": cores,
        "memory": memory,
        "disk": disk,
        "prices": prices(Decimal(monthly), where),
        "storage_type": "local",
        "cpu_type": "dedicated" if name.startswith("ccx") else "shared",
        "architecture": "arm" if name.startswith("cax") else "x86",
        "included_traffic": INCLUDED_TRAFFIC,
        "deprecated": False,
        "deprecation": None,
        "locations": [
            {"id": place["id"], "name": place["name"], "deprecation": None, "available": True, "recommended": True}
            for place in LOCATIONS
            if place["name"] in where
        ],
    }


def _image(number: int, flavor: str, version: str, architecture: str) -> Entry:
    return {
        "id": number,
        "name": f"{flavor}-{version}",
        "architecture": architecture,
        "bound_to": None,
        "created": _RELEASED,
        "created_from": None,
        "deleted": None,
        "deprecated": None,
        "deprecation": None,
        "description": f"{flavor.capitalize()} {version}",
        "disk_size": 5,
        "image_size": None,
        "labels": {},
        "os_flavor": flavor,
        "os_version": version,
        "protection": {"delete": False},
        "rapid_deploy": True,
        "status": "available",
        "type": "system",
    }


_LOCATION_FIELDS = ("id", "name", "description", "country", "city", "latitude", "longitude", "network_zone")
LOCATIONS: tuple[Entry, ...] = tuple(
    dict(zip(_LOCATION_FIELDS, row, strict=True))
    for row in (
        (1, "fsn1", "Falkenstein DC Park 1", "DE", "Falkenstein", 50.47612, 12.370071, "eu-central"),
        (2, "nbg1", "Nuremberg DC Park 1", "DE", "Nuremberg", 49.452102, 11.076665, "eu-central"),
        (3, "hel1", "Helsinki DC Park 1", "FI", "Helsinki", 60.169855, 24.938379, "eu-central"),
        (4, "ash", "Ashburn, VA", "US", "Ashburn, VA", 39.045821, -77.487073, "us-east"),
        (5, "hil", "Hillsboro, OR", "US", "Hillsboro, OR", 45.54222, -122.951924, "us-west"),
        (6, "sin", "Singapore", "SG", "Singapore", 1.283333, 103.833333, "ap-southeast"),
    )
)

SERVER_TYPES = tuple(
    _server_type(row)
    for row in (  # id, name, cores, memory and disk in GB, euros a month without tax, locations
        (22, "cpx11", 2, 2, 40, "3.85", _EVERYWHERE),
        (23, "cpx21", 3, 4, 80, "7.05", _EVERYWHERE),
        (24, "cpx31", 4, 8, 160, "13.10", _EVERYWHERE),
        (45, "cax11", 2, 4, 40, "3.29", _EUROPE),
        (93, "cax21", 4, 8, 80, "5.99", _EUROPE),
        (94, "cax31", 8, 16, 160, "11.99", _EUROPE),
        (96, "ccx13", 2, 8, 80, "11.99", _EVERYWHERE),
        (97, "ccx23", 4, 16, 160, "23.99", _EVERYWHERE),
        (114, "cx23", 2, 4, 40, "2.99", _EUROPE),
        (115, "cx33", 4, 8, 80, "4.99", _EUROPE),
        (116, "cx43", 8, 16, 160, "8.99", _EUROPE),
        (117, "cx53", 16, 32, 320, "16.99", _EUROPE),
    )
)

IMAGES = (
    _image(201, "debian", "12", "x86"),
    _image(202, "debian", "12", "arm"),
    _image(203, "debian", "13", "x86"),
    _image(204, "debian", "13", "arm"),
    _image(205, "ubuntu", "24.04", "x86"),
    _image(206, "ubuntu", "24.04", "arm"),
)

PRICING = {
    "currency": CURRENCY,
    "vat_rate": f"{_VAT_PERCENT:.6f}",
    "image": {"price_per_gb_month": price(Decimal("0.0110"))},
    "volume": {"price_per_gb_month": price(Decimal("0.0440"))},
    "server_backup": {"percentage": "20.0000000000"},
    "primary_ips": [
        {"type": "ipv4", "prices": prices(Decimal("0.50"), _EVERYWHERE)},
        {"type": "ipv6", "prices": prices(Decimal(0), _EVERYWHERE)},
    ],
    "server_types": [{key: entry[key] for key in ("id", "name", "prices")} for entry in SERVER_TYPES],
    "floating_ips": [],
    "load_balancer_types": [],
}


def find(entries: Sequence[Entry], wanted: int | str, field: str) -> Entry:
    """Return the entry with an id or a name.

    Raises:
        ApiError: There is none (invalid_input, for the field).
    """
    for entry in entries:
        if wanted in (entry["id"], entry["name"]):
            return entry
    raise invalid(field, f"{wanted!r} does not exist")
