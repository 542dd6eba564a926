"""Lists: filters, order and pages, as every list of the API has them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lab.hetzner_api.calls import Answer
from lab.hetzner_api.errors import invalid, not_implemented
from lab.hetzner_api.selectors import parse

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lab.hetzner_api.calls import Call
    from lab.hetzner_api.store import Record

_MOST_PER_PAGE = 50
# Nothing here is deprecated.
_COMMON = {"page", "per_page", "sort", "label_selector", "include_deprecated"}


def answer(call: Call, plural: str, found: Sequence[Record], filters: Sequence[str] = ()) -> Answer:
    """Answer a list.

    Args:
        call: The call, whose query chooses.
        plural: The key of the list in the answer.
        found: All records in the form in which they are answered.
        filters: Keys of a record that the query may name, each once or more often.
    """
    for name in call.query.keys() - _COMMON - set(filters):
        raise not_implemented(f"query parameter {name!r} for {plural}")
    chosen = [record for record in found if _matches(call, record, filters)]
    page = _number(call, "page", 1, 2**31)
    size = _number(call, "per_page", 25, _MOST_PER_PAGE)
    last = max(1, -(-len(chosen) // size))
    pagination = {
        "page": page,
        "per_page": size,
        "previous_page": page - 1 if page > 1 else None,
        "next_page": page + 1 if page < last else None,
        "last_page": last,
        "total_entries": len(chosen),
    }
    body = {plural: _sorted(call, chosen)[(page - 1) * size : page * size], "meta": {"pagination": pagination}}
    return Answer(200, body)


def _matches(call: Call, record: Record, filters: Sequence[str]) -> bool:
    for name in filters:
        wanted = call.query.getlist(name)
        if wanted and str(record.get(name)) not in wanted:
            return False
    selector = call.query.get("label_selector")
    return not selector or parse(selector)(record.get("labels", {}))


def _sorted(call: Call, records: list[Record]) -> list[Record]:
    # The last key given counts least, so it is sorted by first.
    for key in reversed(call.query.getlist("sort")):
        name, _, direction = key.partition(":")
        if direction not in {"", "asc", "desc"} or not all(_has_order(record.get(name, [])) for record in records):
            raise invalid("sort", f"{key!r} is no order")
        records = sorted(records, key=lambda record: (record[name] is None, record[name]), reverse=direction == "desc")
    return records


def _has_order(value: object) -> bool:
    return value is None or isinstance(value, str | int)


def _number(call: Call, name: str, default: int, most: int) -> int:
    text = call.query.get(name, str(default))
    if not text.isdecimal() or not 1 <= int(text) <= most:
        raise invalid(name, f"must be an integer from 1 to {most}")
    return int(text)
