"""What the stack costs in a month, from Hetzner's own prices.

The form is that of https://docs.hetzner.cloud/reference/cloud#pricing. Traffic beyond what is included is not known.
"""

from __future__ import annotations

from collections import Counter
from decimal import Decimal
from typing import TYPE_CHECKING, Any, TypedDict

from infra.errors import ServiceError
from infra.service import Service

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from infra.settings import HetznerAccess, Node

_CENT = Decimal("0.01")


class Item(TypedDict):
    """One line of the bill: amounts are per month, for `count` of them."""

    what: str
    count: int
    net: str
    gross: str


class Cost(TypedDict):
    """A month's cost. Amounts are decimal texts, as the API's own are."""

    currency: str
    net: str
    gross: str
    items: list[Item]


def ask(access: HetznerAccess) -> dict[str, Any]:
    """Return the API's price list.

    Raises:
        ServiceError: It was refused, or there was no answer.
    """
    service = Service("Hetzner's API", f"{access.url}/")
    prices: dict[str, Any] = service.read("GET", "pricing", "pricing", token=access.token)["pricing"]
    return prices


def monthly_cost(nodes: Iterable[Node], prices: Mapping[str, Any]) -> Cost:
    """Add up servers, their public IPv4 addresses and volumes.

    Raises:
        ServiceError: A server type is not sold at its node's location.
    """
    counted: Counter[tuple[str, Decimal, Decimal]] = Counter()
    for node in nodes:
        counted.update(_lines(node, prices))
    items = [
        Item(what=what, count=count, net=_amount(net * count), gross=_amount(gross * count))
        for (what, net, gross), count in counted.items()
    ]
    return Cost(
        currency=str(prices["currency"]),
        net=_amount(sum((net * count for (_, net, _), count in counted.items()), Decimal())),
        gross=_amount(sum((gross * count for (_, _, gross), count in counted.items()), Decimal())),
        items=items,
    )


def _lines(node: Node, prices: Mapping[str, Any]) -> Iterator[tuple[str, Decimal, Decimal]]:
    server = _at(prices["server_types"], "name", node.server_type, node.location)
    yield f"server {node.server_type} in {node.location}", *_price(server)
    yield f"IPv4 address in {node.location}", *_price(_at(prices["primary_ips"], "type", "ipv4", node.location))
    if node.volume:
        net, gross = _price(prices["volume"]["price_per_gb_month"])
        yield f"volume of {node.volume.size} GB", net * node.volume.size, gross * node.volume.size


def _at(listed: Iterable[Mapping[str, Any]], key: str, wanted: str, location: str) -> Mapping[str, Any]:
    for entry in listed:
        for price in entry["prices"] if entry[key] == wanted else ():
            if price["location"] == location:
                monthly: Mapping[str, Any] = price["price_monthly"]
                return monthly
    raise ServiceError(f"Hetzner has no price for {wanted} in {location}; see https://www.hetzner.com/cloud")


def _price(price: Mapping[str, Any]) -> tuple[Decimal, Decimal]:
    return Decimal(price["net"]), Decimal(price["gross"])


def _amount(value: Decimal) -> str:
    return str(value.quantize(_CENT))
