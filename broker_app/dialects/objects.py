"""Texts and objects: a job keeps payload and result as text, where two dialects speak of objects.

`shown(kept(value)) == value` for every JSON object that is not nested too deeply to be told in each dialect; such a one
is refused. docs/dialects.md has the rule in words.
"""

from __future__ import annotations

import json
from typing import Any

from broker_app.dialects.fields import MAX_OBJECT_NESTING, read_object, require_shallow
from broker_app.errors import MalformedError


def shown(text: str) -> dict[str, Any]:
    """A kept text as an object."""
    if not text:
        return {}
    try:
        value = read_object(text.encode(), status=400)
        require_shallow(value, MAX_OBJECT_NESTING, status=400)
        json.dumps(value, ensure_ascii=False).encode()  # half of a surrogate pair can be escaped, and is no text
    except (MalformedError, UnicodeEncodeError):
        return {"text": text}
    return value


def kept(value: dict[str, Any], *, status: int) -> str:
    """An object as the text to keep.

    Raises:
        MalformedError: It is nested too deeply. Has the given status.
    """
    require_shallow(value, MAX_OBJECT_NESTING, status=status)
    if not value:
        return ""
    text = value.get("text")
    if len(value) == 1 and isinstance(text, str) and shown(text) == value:
        return text
    return json.dumps(value, ensure_ascii=False)
