"""Reading requests field by field: everything that is wrong becomes a `MalformedError` that names the field."""

from __future__ import annotations

import json
import math
import re
from typing import TYPE_CHECKING, Any, NoReturn

from broker_app.errors import MalformedError

if TYPE_CHECKING:
    from collections.abc import Mapping

MAX_NESTING = 32  # of a body or an envelope
MAX_OBJECT_NESTING = MAX_NESTING - 2  # of a payload or result, so that each body and envelope has room for it
_BEARER = re.compile(r"bearer +(\S+)", re.IGNORECASE)
_TEXTS = {
    "missing": "Field required",
    "string_type": "Input should be a valid string",
    "string_unicode": "Input should be valid Unicode, without lone surrogates",
    "bool_type": "Input should be a valid boolean",
    "dict_type": "Input should be a valid dictionary",
    "list_type": "Input should be a list of objects",
    "float_type": "Input should be a valid number",
    "int_type": "Input should be a valid integer",
    "model_attributes_type": "Input should be a valid dictionary or object to extract fields from",
    "json_invalid": "JSON decode error",
    "json_nesting": f"Input should not be nested deeper than {MAX_NESTING} levels, a job's object {MAX_OBJECT_NESTING}",
}


class Fields:
    """The fields of a JSON object.

    Args:
        values: The object.
        status: The HTTP status of what is wrong with a field.
    """

    def __init__(self, values: Mapping[str, Any], *, status: int) -> None:
        self._values = values
        self._status = status

    def text(self, name: str, default: str | None = None) -> str:
        """A string; `default` stands in when it is missing."""
        value = self._values.get(name, default)
        if value is None and name not in self._values:
            raise _wrong(self._status, "missing", name, self._values)
        if not isinstance(value, str):
            raise _wrong(self._status, "string_type", name, value)
        utf8_size(name, value, status=self._status)
        return value

    def optional_text(self, name: str) -> str | None:
        """A string, or None when it is missing or null."""
        return None if self._values.get(name) is None else self.text(name)

    def integer(self, name: str, least: int, most: int) -> int | None:
        """A whole number in a range, or None when it is missing or null."""
        value = self._values.get(name)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int):
            raise _wrong(self._status, "int_type", name, value)
        if not least <= value <= most:
            text = f"Input should be from {least} to {most}"
            raise MalformedError(text, status=self._status, field=name, kind="int_range", given=value)
        return value

    def optional_number(self, name: str, least: float, most: float) -> float | None:
        """A number in a range, or None when it is missing or null."""
        value = self._values.get(name)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise _wrong(self._status, "float_type", name, value)
        if not least <= value <= most:
            text = f"Input should be from {least:g} to {most:g}"
            raise MalformedError(text, status=self._status, field=name, kind="float_range", given=value)
        return float(value)

    def truth(self, name: str) -> bool:
        """True or false."""
        value = self._values.get(name)
        if name not in self._values:
            raise _wrong(self._status, "missing", name, self._values)
        if not isinstance(value, bool):
            raise _wrong(self._status, "bool_type", name, value)
        return value

    def optional_object(self, name: str) -> dict[str, Any]:
        """An object, an empty one when it is missing or null."""
        value = self._values.get(name)
        if value is not None and not isinstance(value, dict):
            raise _wrong(self._status, "dict_type", name, value)
        return value or {}

    def objects(self, name: str, most: int) -> list[Fields]:
        """A list of objects, `most` at most, as the fields of each."""
        values = self._values.get(name)
        if name not in self._values:
            raise _wrong(self._status, "missing", name, self._values)
        if not isinstance(values, list) or not all(isinstance(value, dict) for value in values):
            raise _wrong(self._status, "list_type", name, values)
        if len(values) > most:
            text = f"List should have at most {most} items"
            raise MalformedError(text, status=self._status, field=name, kind="too_long", given=len(values))
        return [Fields(value, status=self._status) for value in values]

    def raw(self, name: str) -> Any:
        """Whatever JSON value it is, None when it is missing."""
        return self._values.get(name)


def read_object(body: bytes, *, status: int) -> dict[str, Any]:
    """The JSON object in a body.

    Raises:
        MalformedError: It is none, or is nested too deeply. Has the given status.
    """
    try:
        value = _JSON.decode(body.decode("utf-8"))
    except (ValueError, RecursionError):
        raise _wrong(status, "json_invalid", "", {}) from None
    if not isinstance(value, dict):
        raise _wrong(status, "model_attributes_type", "", value)
    require_shallow(value, MAX_NESTING, status=status)
    return value


def require_shallow(value: dict[str, Any], levels: int, *, status: int) -> None:
    """Refuse what is nested deeper than that.

    Raises:
        MalformedError: It is.
    """
    if _deeper_than(value, levels):
        raise _wrong(status, "json_nesting", "", {})


def utf8_size(name: str, text: str, *, status: int = 400) -> int:
    """Bytes of a text.

    Raises:
        MalformedError: It has a lone surrogate.
    """
    try:
        return len(text.encode())
    except UnicodeEncodeError:
        raise _wrong(status, "string_unicode", name, None) from None


def matching(name: str, text: str | None, pattern: re.Pattern[str]) -> str | None:
    """A text that must have a form; None stays None.

    Raises:
        MalformedError: It does not have it.
    """
    if text is not None and not pattern.fullmatch(text):
        raise MalformedError(f"{name} must match {pattern.pattern}")
    return text


def number(name: str, text: str | None, least: int, most: int, default: int) -> int:
    """A whole number in a query or header.

    Raises:
        MalformedError: It is none, or out of range.
    """
    if text is None:
        return default
    if not re.fullmatch(r"[0-9]{1,19}", text) or not least <= int(text) <= most:
        raise MalformedError(f"{name} must be a whole number from {least} to {most}")
    return int(text)


def seconds(name: str, text: str | None, most: int) -> float:
    """A number of seconds in a query, 0 when it is missing.

    Raises:
        MalformedError: It is none, or more than `most`.
    """
    if text is None:
        return 0.0
    if not re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,9})?", text) or float(text) > most:
        raise MalformedError(f"{name} must be a number of seconds from 0 to {most}")
    return float(text)


def bearer(headers: Mapping[str, str]) -> str:
    """The token of an Authorization header, nothing where there is none."""
    found = _BEARER.fullmatch(headers.get("authorization", "").strip())
    return found[1] if found else ""


def _wrong(status: int, kind: str, field: str, given: object) -> MalformedError:
    return MalformedError(_TEXTS[kind], status=status, field=field, kind=kind, given=given)


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(name)


def _finite(text: str) -> float:
    """A number that an answer can show; one like 1e999 would be written as Infinity, which is no JSON."""
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(text)
    return number


def _deeper_than(value: dict[str, Any], levels: int) -> bool:
    """Whether arrays and objects are nested deeper than that; looks at one level after the other."""
    level: list[dict[str, Any] | list[Any]] = [value]
    for _ in range(levels):
        items = (item for outer in level for item in (outer.values() if isinstance(outer, dict) else outer))
        level = [item for item in items if isinstance(item, dict | list)]
        if not level:
            return False
    return True


_JSON = json.JSONDecoder(parse_constant=_refuse_constant, parse_float=_finite)
