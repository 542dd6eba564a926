from __future__ import annotations

from typing import Any

import pytest

from infra import prices
from infra.config import read
from infra.errors import ServiceError
from infra.settings import HetznerAccess, Node
from tests.support.infra import serving, values


def price(net: str, gross: str) -> dict[str, str]:
    return {"net": net, "gross": gross}


def located(*monthly: tuple[str, str, str]) -> list[dict[str, Any]]:
    return [{"location": where, "price_monthly": price(net, gross)} for where, net, gross in monthly]


PRICING = {
    "currency": "EUR",
    "vat_rate": "19.00",
    "volume": {"price_per_gb_month": price("0.0440000000", "0.0523600000000000")},
    "primary_ips": [
        {"type": "ipv4", "prices": located(("fsn1", "0.5000000000", "0.5950000000000000"))},
        {"type": "ipv6", "prices": located(("fsn1", "9.0", "9.0"))},
    ],
    "server_types": [
        {"name": "cx22", "prices": located(("fsn1", "1000.0", "1000.0"))},
        {"name": "cx23", "prices": located(("nbg1", "7.0", "8.0"), ("fsn1", "2.9900000000", "3.5581000000000000"))},
    ],
}


def nodes(**changed: Any) -> tuple[Node, ...]:
    return read(values(**changed), {}).nodes


def test_servers_addresses_and_volumes_are_counted() -> None:
    assert prices.monthly_cost(nodes(), PRICING) == {
        "currency": "EUR",
        "net": "14.84",
        "gross": "17.66",
        "items": [
            {"what": "server cx23 in fsn1", "count": 4, "net": "11.96", "gross": "14.23"},
            {"what": "IPv4 address in fsn1", "count": 4, "net": "2.00", "gross": "2.38"},
            {"what": "volume of 20 GB", "count": 1, "net": "0.88", "gross": "1.05"},
        ],
    }


def test_a_server_type_that_is_not_sold_there_is_named() -> None:
    with pytest.raises(ServiceError, match="no price for cx23 in hel1"):
        prices.monthly_cost(nodes(fleet__location="hel1"), PRICING)


def test_the_list_is_asked_for_with_the_token() -> None:
    with serving(lambda _: (200, {"pricing": PRICING})) as server:
        assert prices.ask(HetznerAccess(url=f"{server.url}/v1", token="secret")) == PRICING
    (request,) = server.requests
    assert (request.path, request.headers["Authorization"]) == ("/v1/pricing", "Bearer secret")
