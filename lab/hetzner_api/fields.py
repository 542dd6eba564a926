"""Reading a request's body field by field, with the API's refusals."""

from __future__ import annotations

import re
from ipaddress import IPv4Network, ip_network
from typing import Any, TypeVar

from lab.hetzner_api.errors import ApiError, invalid, not_implemented

T = TypeVar("T")

_TYPES: dict[type, str] = {str: "a string", int: "an integer", bool: "a boolean", list: "an array", dict: "an object"}
_LABEL_KEY = re.compile(r"([a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?/)?[A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?")
_LABEL_VALUE = re.compile(r"([A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?)?")
_REQUIRED: Any = object()


class Fields:
    """A JSON object. Fields that nobody asked for are refused by `finish`, since they would have had no effect."""

    def __init__(self, body: Any) -> None:
        if not isinstance(body, dict):
            raise ApiError("json_error", "the body is not a JSON object")
        self._body = body
        self._taken: set[str] = set()

    def take(self, name: str, kind: type[T], default: T = _REQUIRED) -> T:
        """Return a field's value; null counts as left out.

        Raises:
            ApiError: It is missing and has no default, or is of another type (invalid_input).
        """
        self._taken.add(name)
        value = self._body.get(name)
        if value is None:
            if default is _REQUIRED:
                raise invalid(name, "is required")
            return default
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            raise invalid(name, f"must be {_TYPES[kind]}")
        return value

    def has(self, name: str) -> bool:
        """Tell whether a field was given; null counts as left out."""
        self._taken.add(name)
        return self._body.get(name) is not None

    def name(self, default: str = _REQUIRED) -> str:
        """Return the field "name", which has 1 to 64 characters."""
        name = self.take("name", str, default)
        if not 1 <= len(name) <= 64:
            raise invalid("name", "must have 1 to 64 characters")
        return name

    def labels(self, default: dict[str, str] | None = None) -> dict[str, str]:
        """Return the field "labels", checked as the API does."""
        labels: dict[str, Any] = self.take("labels", dict, default or {})
        for key, value in labels.items():
            if not _LABEL_KEY.fullmatch(key):
                raise invalid("labels", f"{key!r} is no label key")
            if not isinstance(value, str) or not _LABEL_VALUE.fullmatch(value):
                raise invalid("labels", f"{value!r} is no label value")
        return labels

    def choice(self, name: str, *options: str, default: str = _REQUIRED) -> str:
        """Return a field's value, one of the options."""
        value = self.take(name, str, default)
        if value not in options and value is not default:
            raise invalid(name, f"must be one of {', '.join(options)}")
        return value

    def ids(self, name: str) -> list[int]:
        """Return a field that lists ids, empty by default."""
        values: list[Any] = self.take(name, list, [])
        if not all(type(value) is int for value in values) or len(set(values)) != len(values):
            raise invalid(name, "must be an array of different ids")
        return values

    def reference(self, name: str, default: int | str = _REQUIRED) -> int | str:
        """Return a field that holds an id or a name."""
        self._taken.add(name)
        value = self._body.get(name, default)
        if value is _REQUIRED or isinstance(value, bool) or not isinstance(value, int | str):
            raise invalid(name, "must be an id or a name")
        return int(value) if isinstance(value, str) and value.isdecimal() else value

    def objects(self, name: str, default: list[Any] = _REQUIRED) -> list[Fields]:
        """Return a field that lists objects."""
        try:
            return [Fields(item) for item in self.take(name, list, default)]
        except ApiError as error:
            raise invalid(name, "must be an array of objects") from error

    def network(self, name: str) -> IPv4Network:
        """Return a field that holds an IPv4 network in CIDR notation."""
        return network(name, self.take(name, str))

    def finish(self) -> None:
        """Refuse the fields that were not asked for."""
        for name in self._body.keys() - self._taken:
            raise not_implemented(f"field {name!r}")


def network(field: str, text: str) -> IPv4Network:
    """Return an IPv4 network in CIDR notation.

    Raises:
        ApiError: It is none, or has bits set right of its mask (invalid_input).
    """
    try:
        result = ip_network(text)
    except ValueError as error:
        raise invalid(field, str(error)) from error
    if not isinstance(result, IPv4Network):
        raise invalid(field, "must be IPv4")
    return result
