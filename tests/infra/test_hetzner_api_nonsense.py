"""Nonsense in any field of any call is refused as the API does it: never by a failure of the stand-in."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from lab.hetzner_api.resources import ROUTES
from tests.infra.test_hetzner_api_resources import KEY, create_network, create_volume
from tests.support.hetzner import create_server, unique

if TYPE_CHECKING:
    from tests.support.hetzner import Hetzner

NONSENSE: list[Any] = ["\ud800", {"x": [{}]}, [1, "x", {}, None], 10**30, True, -1, ""]
SENSE: dict[str, Any] = {
    "type": "cloud",
    "ip_range": "10.0.0.0/16",
    "network_zone": "eu-central",
    "location": "fsn1",
    "server_type": "cx33",
    "image": "debian-13",
    "size": 20,
    "delete": False,
}
FIELDS = [
    *SENSE,
    *(
        "name",
        "labels",
        "public_key",
        "rules",
        "apply_to",
        "remove_from",
        "subnets",
        "routes",
        "destination",
        "gateway",
    ),
    *("user_data", "ssh_keys", "networks", "firewalls", "volumes", "placement_group", "public_net", "network", "ip"),
    *("format", "server", "assignee_id", "upgrade_disk", "rebuild", "description"),
]


@pytest.fixture(scope="module")
def ids(hetzner: Hetzner) -> dict[str, int]:
    """One resource of each kind, off so that as much as possible may be done to it."""
    cloud = hetzner.client()
    return {
        "servers": create_server(cloud, start_after_create=False).id,
        "networks": create_network(cloud).id,
        "volumes": create_volume(cloud).id,
        "firewalls": cloud.firewalls.create(unique()).firewall.id,
        "placement_groups": cloud.placement_groups.create(unique(), "spread").placement_group.id,
        "primary_ips": cloud.primary_ips.get_all()[0].id,
        "ssh_keys": cloud.ssh_keys.create(unique(), KEY.format(unique("")[-8:])).id,
        "images": cloud.servers.get_all()[0].create_image(type="snapshot").image.id,
    }


@pytest.mark.parametrize(("method", "template"), [call for call in ROUTES if call[0] in {"POST", "PUT"}])
def test_a_body(hetzner: Hetzner, ids: dict[str, int], method: str, template: str) -> None:
    path = template.replace("{id}", str(ids[template.split("/")[1]]))
    for number, field in enumerate(FIELDS[len(template) % 2 :: 2]):
        wrong = NONSENSE[(number + len(template)) % len(NONSENSE)]
        content = json.dumps({"name": unique("n"), **SENSE, field: wrong})
        answer = hetzner.call(method, f"/v1{path}", content=content)
        assert answer.status_code < 500 or answer.status_code == 501, (field, wrong, answer.text)


@pytest.mark.parametrize("name", ["page", "per_page", "sort", "label_selector", "name"])
@pytest.mark.parametrize("value", ["\u0661", "10e3", "labels", "public_net", "x:asc", "(", "a in (", "-1", "\x00"])
def test_a_query(hetzner: Hetzner, ids: dict[str, int], name: str, value: str) -> None:
    assert ids
    answer = hetzner.call("GET", "/v1/servers", params={name: value})
    assert answer.status_code in {200, 422}, answer.text


@pytest.mark.parametrize("number", ["0", str(2**63), str(10**40)])
def test_an_id(hetzner: Hetzner, number: str) -> None:
    assert hetzner.call("GET", f"/v1/servers/{number}").status_code == 404
