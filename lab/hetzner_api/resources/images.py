"""Images: those of the catalogue, and snapshots of servers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lab.hetzner_api import catalog, pages
from lab.hetzner_api.calls import Answer
from lab.hetzner_api.errors import ApiError, invalid
from lab.hetzner_api.resources import common

if TYPE_CHECKING:
    from lab.hetzner_api.calls import Call, Routes
    from lab.hetzner_api.store import Record, Records

_FILTERS = ("name", "type", "architecture", "status", "bound_to")


def find(records: Records, number: int) -> Record:
    """Return an image by its id.

    Raises:
        ApiError: There is none (not_found).
    """
    for image in catalog.IMAGES:
        if image["id"] == number:
            return image
    return records.get("image", number)


def choose(records: Records, wanted: int | str, server_type: Record) -> Record:
    """Return the image that a body's field "image" names; a name stands for that of the server type's architecture.

    Raises:
        ApiError: There is none, or it is for another architecture (invalid_input).
    """
    architecture = server_type["architecture"]
    if isinstance(wanted, str):
        return catalog.find(
            [image for image in catalog.IMAGES if image["architecture"] == architecture], wanted, "image"
        )
    try:
        image = find(records, wanted)
    except ApiError as error:
        raise invalid("image", error.message) from error
    if image["architecture"] != architecture:
        raise invalid("image", f"is for {image['architecture']}, and {server_type['name']} is {architecture}")
    if image["disk_size"] > server_type["disk"]:
        raise invalid("image", f"needs a disk of {image['disk_size']} GB, and {server_type['name']} has less")
    return image


def _render(_records: Records, image: Record) -> Record:
    return image


KIND = common.Kind("image", "images", _render)


def _list(call: Call) -> Answer:
    return pages.answer(call, "images", [*catalog.IMAGES, *call.records.all("image")], _FILTERS)


def _get(call: Call) -> Answer:
    return Answer(200, {"image": find(call.records, call.path["id"])})


def _update(call: Call) -> Answer:
    image = KIND.get(call)
    image["description"] = call.body.take("description", str, image["description"])
    image["labels"] = call.body.labels(image["labels"])
    call.body.finish()
    call.records.save("image", image)
    return KIND.answer(call, image)


def _delete(call: Call) -> Answer:
    image = KIND.get(call)
    if image["protection"]["delete"]:
        raise ApiError("protected", f"image {image['id']} is delete protected")
    call.records.remove("image", image["id"])
    return Answer(204)


def _change_protection(call: Call) -> Answer:
    return common.change_protection(call, "image")


ROUTES: Routes = {
    **KIND.routes(),
    ("GET", "/images"): _list,
    ("GET", "/images/{id}"): _get,
    ("PUT", "/images/{id}"): _update,
    ("DELETE", "/images/{id}"): _delete,
    ("POST", "/images/{id}/actions/change_protection"): _change_protection,
}
