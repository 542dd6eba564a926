"""Texts and objects: a job keeps payload and result as text, where two dialects speak of objects.

`shown(kept(value)) == value` for every JSON object; docs/dialects.md has the rule in words.
"""

from __future__ import annotations

import json
from typing import Any

from broker_app.dialects.fields import read_object
from broker_app.errors import MalformedError


def shown(text: str) -> dict[str, Any]:
    """A kept text as an object."""
    if not text:
        return {}
    try:
        return read_object(text.encode("utf-8", "surrogatepass"), status=400)
    except MalformedError:
        return {"text": text}


def kept(value: dict[str, Any]) -> str:
    """An object as the text to keep."""
    if not value:
        return ""
    text = value.get("text")
    if len(value) == 1 and isinstance(text, str) and shown(text) == value:
        return text
    return json.dumps(value, ensure_ascii=False)
