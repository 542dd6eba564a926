"""What calls ask for, held against what Tailscale takes."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from lab.tailscale_api.errors import ApiError, NotHereError

# What a host may be called (RFC 1123), in small letters.
LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_LONGEST_SECONDS = 90 * 86400
_DESCRIPTION = re.compile(r"[A-Za-z0-9 -]{0,50}")


@dataclass(frozen=True)
class KeyRequest:
    """An auth key that somebody wants; it is good for `seconds`."""

    description: str
    seconds: int
    tags: list[str]
    reusable: bool = False
    ephemeral: bool = False
    preauthorized: bool = False

    @classmethod
    def parse(cls, body: dict[str, Any]) -> KeyRequest:
        """Return what the body of `POST /tailnet/-/keys` asks for.

        Raises:
            ApiError: 400, a field is none; the message names it. 501, another kind of key.
        """
        if body.get("keyType", "auth") != "auth":
            raise NotHereError(f"keys of the type {body['keyType']!r}")
        create = _object(_object(_object(body, "capabilities"), "devices"), "create")
        return cls(
            description=_description(body),
            seconds=_seconds(body),
            tags=_tags(create),
            reusable=_flag(create, "reusable"),
            ephemeral=_flag(create, "ephemeral"),
            preauthorized=_flag(create, "preauthorized"),
        )


def _description(body: dict[str, Any]) -> str:
    description = body.get("description") or ""
    if not isinstance(description, str) or not _DESCRIPTION.fullmatch(description):
        raise ApiError(400, "description: use up to 50 letters, digits, hyphens and spaces")
    return description


def _tags(create: dict[str, Any]) -> list[str]:
    tags = create.get("tags") or []
    if not isinstance(tags, list) or not all(isinstance(tag, str) for tag in tags):
        raise ApiError(400, "capabilities.devices.create.tags must be a list of strings")
    return tags


def _object(body: dict[str, Any], name: str) -> dict[str, Any]:
    value = body.get(name)
    if not isinstance(value, dict):
        raise ApiError(400, f"{name} must be an object")
    return value


def _flag(body: dict[str, Any], name: str) -> bool:
    value = body.get(name, False)
    if not isinstance(value, bool):
        raise ApiError(400, f"capabilities.devices.create.{name} must be true or false")
    return value


def _seconds(body: dict[str, Any]) -> int:
    seconds = body.get("expirySeconds") or _LONGEST_SECONDS
    if isinstance(seconds, bool) or not isinstance(seconds, int) or not 1 <= seconds <= _LONGEST_SECONDS:
        raise ApiError(400, f"expirySeconds must be a number from 1 to {_LONGEST_SECONDS}")
    return seconds
