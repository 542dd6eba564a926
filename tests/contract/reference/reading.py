"""What requests must be like."""

from __future__ import annotations

import json
import math
import os
import re
from typing import TYPE_CHECKING, Any, NoReturn

from tests.contract.reference.http import RefusedError, require

if TYPE_CHECKING:
    from tests.contract.reference.http import Request

COMMAND = re.compile(r"[a-z][a-z0-9:_-]{0,63}")
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:@-]{0,127}")
KEY = re.compile("[!-~]{1,255}")
VERSION = re.compile(r"[!-~]{1,64}")
_CAPABILITY = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._:/+@=-]{0,63}")


def shared(role: str, token: str) -> bool:
    """Whether it is a token that all of that role share."""
    names = {"bot": ("BOT_TOKEN", "API_KEY"), "worker": ("WORKER_TOKEN",)}.get(role, ())
    return token != "" and token in [os.environ.get(name) for name in names]


def invalid(status: int, kind: str, name: str = "", given: object = None) -> NoReturn:
    """Refuse a body: in words, or in the seed's form of 422."""
    loc = ["body", name] if name else ["body"]
    words = f"{name}: {kind}" if name else f"a valid dictionary or object is needed, not too deeply nested ({kind})"
    words = "invalid JSON" if kind == "json_invalid" else words
    form = [{"type": kind, "loc": loc, "msg": words, "input": given}]
    raise RefusedError(status, form if status == 422 else words)


def json_object(body: bytes, status: int) -> dict[str, Any]:
    """The JSON object that a body must be."""
    try:
        value = json.loads(body.decode(), parse_constant=_refuse, parse_float=_finite)
    except (ValueError, RecursionError):
        invalid(status, "json_invalid")
    if not isinstance(value, dict):
        invalid(status, "model_attributes_type")
    if _depth(value) > 32:
        invalid(status, "json_nesting")
    return value


def shallow(value: dict[str, Any], status: int) -> None:
    """Refuse an object that leaves no room for what is around it."""
    if _depth(value) > 30:
        invalid(status, "json_nesting")


def _refuse(constant: str) -> NoReturn:
    raise ValueError(constant)


def _finite(number: str) -> float:
    return float(number) if math.isfinite(float(number)) else _refuse(number)


def _depth(value: object) -> int:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else None
    return 0 if inner is None else 1 + max(map(_depth, inner), default=0)


def text(values: dict[str, Any], name: str, status: int) -> str:
    """A text among the values."""
    value = values[name]
    if not isinstance(value, str):
        invalid(status, "string_type", name)
    if re.search("[\ud800-\udfff]", value):
        invalid(status, "string_unicode", name)
    return value


def optional_text(values: dict[str, Any], name: str, status: int) -> str | None:
    """A text, None when it is missing or null."""
    return None if values.get(name) is None else text(values, name, status)


def integer(values: dict[str, Any], name: str, least: int, most: int, status: int) -> int | None:
    """A whole number among the values, None when it is missing or null."""
    value = values.get(name)
    if value is not None and (type(value) is not int or not least <= value <= most):
        invalid(status, "int_type", name)
    return value


def number(name: str, given: str | None, least: int, most: int, default: int) -> int:
    """A number in a query or a header."""
    if given is None:
        return default
    well = re.fullmatch("[0-9]{1,19}", given) and least <= int(given) <= most
    require(well, 400, f"{name} must be a whole number from {least} to {most}")
    return int(given)


def seconds(given: str | None) -> float:
    """How long a caller waits."""
    well = given is None or (re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,9})?", given) and float(given) <= 25)
    require(well, 400, "wait must be a number of seconds from 0 to 25")
    return float(given or 0)


def epoch(request: Request, values: dict[str, Any]) -> int | None:
    """The epoch that the caller names, in the body or in X-Lease-Epoch."""
    in_body, header = values.get("lease_epoch"), request.headers.get("x-lease-epoch")
    if in_body is not None and type(in_body) is not int:
        invalid(422, "int_type", "lease_epoch")
    if in_body is not None and not 0 <= in_body <= 2**53:
        invalid(422, "int_range", "lease_epoch")
    in_header = number("X-Lease-Epoch", header, 0, 2**53, -1)
    require(in_header == -1 or in_body in (None, in_header), 400, "X-Lease-Epoch and the body's lease_epoch differ")
    return in_body if in_header == -1 else in_header


def requirement(given: Any) -> tuple[str | None, list[str]]:
    """What a job requires: as it was written, and the capabilities that it names."""
    if given is None:
        return None, []
    written = given if isinstance(given, str) else json.dumps(given)
    require(len(written.encode("utf-8", "replace")) <= 2048, 400, "requires too large")
    try:
        parsed = json.loads(written or "{}", parse_constant=_refuse) if written.strip() else {}
        listed = parsed.get("caps") or []
        names = [name.strip() for name in listed if name.strip()]
        well = isinstance(listed, list) and parsed.keys() <= {"caps"} and all(map(_CAPABILITY.fullmatch, names))
    except (ValueError, RecursionError, AttributeError, TypeError):
        names, well = [], False
    require(well, 400, "requires must name capabilities")
    return written, names


def capabilities(header: str | None) -> list[str] | None:
    """What a worker can do, from a JSON array or a comma list."""
    if header is None:
        return None
    try:
        listed = json.loads(header) if header.startswith("[") else header.split(",")
        names = [name.strip() for name in listed if name.strip()]
    except (ValueError, RecursionError, AttributeError):
        names = [" "]
    require(all(map(_CAPABILITY.fullmatch, names)), 400, "X-Worker-Caps must be a JSON array or a comma list")
    return names
