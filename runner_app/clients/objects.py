"""Texts and objects: a job has texts, where tasks and hub speak of objects. The rule is in docs/dialects.md."""

import json
from typing import Any

_MAX_NESTING = 32  # a broker refuses more


def shown(text: str) -> dict[str, Any]:
    """Return a kept text as an object."""
    if not text:
        return {}
    try:
        value = json.loads(text)
        json.dumps(value, allow_nan=False)  # what no JSON number can say is left as text
    except (ValueError, RecursionError):
        return {"text": text}
    return value if isinstance(value, dict) and not _deeper_than(value, _MAX_NESTING) else {"text": text}


def kept(value: dict[str, Any]) -> str:
    """Return an object as the text to keep; ``shown`` makes the same object of it."""
    if not value:
        return ""
    text = value.get("text")
    if len(value) == 1 and isinstance(text, str) and shown(text) == value:
        return text
    return json.dumps(value, ensure_ascii=False)


def _deeper_than(value: object, levels: int) -> bool:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return levels == 0 or any(_deeper_than(item, levels - 1) for item in inner)
