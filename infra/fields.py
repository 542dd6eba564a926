"""Reading one mapping of the configuration strictly: each value by its kind, each mistake noted, nothing left over."""

from __future__ import annotations

import json
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    import re
    from collections.abc import Iterator, Mapping, Sequence

T = TypeVar("T")


class Fields:
    """The values below one key. What is wrong goes to `problems`, and a usable value is returned all the same.

    Args:
        path: What stands before a field's name in messages: "fleet:", or "fleet:nodes.broker-1.".
        values: The fields. Those of a whole namespace are texts, as Pulumi hands them over; nested ones have types.
        problems: Where mistakes are noted, one line each: the key, what is wrong, the remedy.
    """

    def __init__(self, path: str, values: Mapping[str, Any], problems: list[str]) -> None:
        self._path = path
        self._values = values
        self._problems = problems
        self._known: set[str] = set()

    def text(self, key: str, default: str | None = None, *, matching: re.Pattern[str], remedy: str) -> str:
        """Return a text that matches as a whole. Without a default it must be there."""
        value = self._take(key)
        if value is None and default is not None:
            return default
        if not isinstance(value, str) or not matching.fullmatch(value):
            self.refuse(key, f"{_shown(value)}; {remedy}")
            return default or ""
        return value

    def optional(self, key: str, *, matching: re.Pattern[str], remedy: str) -> str | None:
        """Return a text that matches as a whole, or None where the field is missing or empty."""
        return self.text(key, "", matching=matching, remedy=remedy) or None

    def choice(self, key: str, choices: Sequence[T], default: T | None = None) -> T:
        """Return one of the choices. Without a default it must be there."""
        value = self._take(key)
        if value is None and default is not None:
            return default
        if value not in choices:
            self.refuse(key, f"{_shown(value)}; choose {_or(choices)}")
            return choices[0]
        return next(choice for choice in choices if choice == value)

    def number(self, key: str, default: int, *, least: int, most: int) -> int:
        """Return a whole number within bounds."""
        value = self._typed(key)
        if value is None:
            return default
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
            self.refuse(key, f"{_shown(value)}; give a whole number from {least} to {most}")
            return default
        return value

    def numbers(self, key: str, default: tuple[int, ...], *, least: int, most: int) -> tuple[int, ...]:
        """Return a list of whole numbers within bounds, in order and without repetition."""
        value = self._typed(key)
        if value is None:
            return default
        if not isinstance(value, list) or not all(type(item) is int and least <= item <= most for item in value):
            self.refuse(key, f"{_shown(value)}; give a list of whole numbers from {least} to {most}")
            return default
        return tuple(sorted(set(value)))

    def flag(self, key: str, *, default: bool) -> bool:
        """Return true or false."""
        value = self._typed(key)
        if value is None:
            return default
        if not isinstance(value, bool):
            self.refuse(key, f"{_shown(value)}; give true or false")
            return default
        return value

    def texts(
        self, key: str, default: tuple[str, ...] | None = None, *, matching: re.Pattern[str], remedy: str
    ) -> tuple[str, ...]:
        """Return a list of texts that match, without repetition. Without a default it must hold at least one."""
        value = self._typed(key)
        if value is None and default is not None:
            return default
        if not isinstance(value, list) or (default is None and not value):
            self.refuse(key, f"{_shown(value)}; {remedy}, as a list")
            return ()
        wrong = [item for item in value if not isinstance(item, str) or not matching.fullmatch(item)]
        for item in wrong:
            self.refuse(key, f"holds {_shown(item)}; {remedy}")
        if not wrong and len(set(value)) < len(value):
            self.refuse(key, "holds the same entry twice; give each once")
        return () if wrong else tuple(value)

    def has(self, key: str) -> bool:
        """Say whether a field is there, right or wrong."""
        return self._values.get(key) is not None

    def mapping(self, key: str) -> Fields | None:
        """Return the fields below a key, or None where it is missing."""
        value = self._typed(key)
        if value is None:
            return None
        if not isinstance(value, dict):
            self.refuse(key, f"{_shown(value)}; give a mapping")
            return None
        return Fields(f"{self._path}{key}.", value, self._problems)

    def children(self) -> Iterator[tuple[str, Fields]]:
        """Yield each key with the fields below it, for a mapping whose keys are names."""
        for key, value in self._values.items():
            child = self.mapping(key)
            if child is None and value is None:
                child = Fields(f"{self._path}{key}.", {}, self._problems)
            if child is not None:
                yield key, child

    @property
    def sound(self) -> bool:
        """Say whether nothing was noted so far, here or elsewhere: else what follows from a value may be nonsense."""
        return not self._problems

    def refuse(self, key: str, trouble: str) -> None:
        """Note a mistake in a field."""
        self._problems.append(f"{self._path}{key}: {trouble}")

    def end(self) -> None:
        """Note every field that nothing asked for."""
        for key in sorted(set(self._values) - self._known):
            near = get_close_matches(key, self._known, n=1)
            remedy = f"did you mean {near[0]}?" if near else f"remove it; there are {', '.join(sorted(self._known))}"
            self.refuse(key, f"no such key; {remedy}")

    def _take(self, key: str) -> Any:
        self._known.add(key)
        return self._values.get(key)

    def _typed(self, key: str) -> Any:
        value = self._take(key)
        if not isinstance(value, str):
            return value
        try:
            return json.loads(value)
        except ValueError:
            return value


def _shown(value: object) -> str:
    return "is missing" if value is None else f"is {json.dumps(value, default=str)}"


def _or(choices: Sequence[object]) -> str:
    *most, last = (str(choice) for choice in choices)
    return f"{', '.join(most)} or {last}" if most else last
