"""What can only be read: locations, server types, prices."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lab.hetzner_api import catalog, pages
from lab.hetzner_api.calls import Answer, Handler
from lab.hetzner_api.errors import ApiError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lab.hetzner_api.calls import Call, Routes


def _listing(plural: str, entries: Sequence[catalog.Entry]) -> Handler:
    return lambda call: pages.answer(call, plural, entries, ["name"])


def _getting(name: str, entries: Sequence[catalog.Entry]) -> Handler:
    def get(call: Call) -> Answer:
        for entry in entries:
            if entry["id"] == call.path["id"]:
                return Answer(200, {name: entry})
        raise ApiError("not_found", f"{name} with ID '{call.path['id']}' not found")

    return get


def _pricing(_call: Call) -> Answer:
    return Answer(200, {"pricing": catalog.PRICING})


ROUTES: Routes = {
    ("GET", "/locations"): _listing("locations", catalog.LOCATIONS),
    ("GET", "/locations/{id}"): _getting("location", catalog.LOCATIONS),
    ("GET", "/server_types"): _listing("server_types", catalog.SERVER_TYPES),
    ("GET", "/server_types/{id}"): _getting("server_type", catalog.SERVER_TYPES),
    ("GET", "/pricing"): _pricing,
}
