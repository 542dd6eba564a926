"""Texts and objects: a job has texts, where tasks and hub speak of objects. The rule is in docs/dialects.md."""

import json
from typing import Any

_MAX_NESTING = 30  # a broker refuses more


def shown(text: str) -> dict[str, Any]:
    """Return a kept text as an object."""
    if not text:
        return {}
    try:
        value = json.loads(text)
        # What no JSON number or text can say is left as it is: infinity, half of a surrogate pair.
        json.dumps(value, allow_nan=False, ensure_ascii=False).encode()
    except (ValueError, RecursionError):
        return {"text": text}
    return value if isinstance(value, dict) and not _deeper_than(value, _MAX_NESTING) else {"text": text}


def kept(value: dict[str, Any]) -> str:
    """Return an object as the text to keep; ``shown`` makes the same object of it, where a broker takes that."""
    if not value:
        return ""
    text = value.get("text")
    if len(value) == 1 and isinstance(text, str) and shown(text) == value:
        return text
    return json.dumps(value, ensure_ascii=False)


def _deeper_than(value: dict[str, Any] | list[Any], levels: int) -> bool:
    items = value.values() if isinstance(value, dict) else value
    return levels == 0 or any(_deeper_than(item, levels - 1) for item in items if isinstance(item, dict | list))
