"""How the API refuses: one envelope, and a status for each code.

The codes are those of the API's reference. Where it leaves a code's status open, 422 is given: clients go by the code.
"""

from __future__ import annotations

from typing import Any

_STATUSES = {
    "json_error": 400,
    "unauthorized": 401,
    "forbidden": 403,
    "resource_limit_exceeded": 403,
    "not_found": 404,
    "conflict": 409,
    "uniqueness_error": 409,
    "resource_unavailable": 412,
    "locked": 423,
    "protected": 423,
    "rate_limit_exceeded": 429,
    "server_error": 500,
    "not_implemented": 501,
    "bad_gateway": 502,
    "maintenance": 503,
    "unavailable": 503,
    "timeout": 504,
}


class ApiError(Exception):
    """A call is refused.

    Attributes:
        code: The machine-readable reason.
        message: The reason for a person.
        details: What the code promises besides, for example the fields of `invalid_input`.
        status: The HTTP status.
    """

    def __init__(self, code: str, message: str, details: Any = None, *, status: int | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.details = details
        self.status = status or _STATUSES.get(code, 422)


def invalid(field: str, message: str) -> ApiError:
    """Return the refusal of a field's value."""
    details = {"fields": [{"name": field, "messages": [message]}]}
    return ApiError("invalid_input", f"invalid input in field '{field}': {message}", details)


def not_implemented(what: str) -> ApiError:
    """Return the refusal of something that the API has and this stand-in has not."""
    return ApiError("not_implemented", f"the stand-in has no {what}; see lab/hetzner_api")
