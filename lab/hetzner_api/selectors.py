"""Label selectors: `env=prod,tier in (web, db),!old`."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from lab.hetzner_api.errors import invalid

if TYPE_CHECKING:
    from collections.abc import Callable

_KEY = r"[A-Za-z0-9](?:[A-Za-z0-9_./-]*[A-Za-z0-9])?"
_VALUE = r"[A-Za-z0-9_.-]*"
_TERM = re.compile(
    rf"(?P<absent>!)?\s*(?P<key>{_KEY})\s*"
    rf"(?:(?P<sign>==|=|!=)\s*(?P<value>{_VALUE})|\s(?P<word>in|notin)\s*\((?P<values>[^()]*)\))?"
)
_COMMA = re.compile(r",(?![^()]*\))")

Labels = dict[str, str]


def parse(selector: str, field: str = "label_selector") -> Callable[[Labels], bool]:
    """Return the test that labels must pass.

    Raises:
        ApiError: The selector cannot be understood (invalid_input).
    """
    terms = [_parse_term(term.strip(), field) for term in _COMMA.split(selector)]
    return lambda labels: all(term(labels) for term in terms)


def _parse_term(text: str, field: str) -> Callable[[Labels], bool]:
    term = _TERM.fullmatch(text)
    if not term or (term["absent"] and (term["sign"] or term["word"])):
        raise invalid(field, f"{text!r} is no label selector")
    key = term["key"]
    if term["absent"]:
        return lambda labels: key not in labels
    if term["sign"]:
        value = term["value"]
        if term["sign"] == "!=":
            return lambda labels: labels.get(key) != value
        return lambda labels: labels.get(key) == value
    if term["word"]:
        values = {value.strip() for value in term["values"].split(",")}
        if term["word"] == "notin":
            return lambda labels: labels.get(key) not in values
        return lambda labels: labels.get(key) in values
    return lambda labels: key in labels
