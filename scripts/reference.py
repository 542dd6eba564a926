#!/usr/bin/env python3
"""Print docs/reference.md: every variable of every role, from the roles' own argument_specs."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

if TYPE_CHECKING:
    from collections.abc import Iterator

_ROLES = Path(__file__).resolve().parents[1] / "roles"
_HEAD = """\
# Variables of the roles

Written by `make reference` from `roles/*/meta/argument_specs.yml`: change it there.
"""


def main() -> None:
    """Print a section for each role."""
    print(_HEAD)
    print("\n".join(section(path.parents[1].name) for path in sorted(_ROLES.glob("*/meta/argument_specs.yml"))), end="")


def section(role: str) -> str:
    """Return a role's part of the document."""
    spec = yaml.safe_load((_ROLES / role / "meta/argument_specs.yml").read_text())["argument_specs"]["main"]
    paragraphs = [f"## {role}", f"{spec['short_description']}.", *(_markdown(line) for line in spec["description"])]
    table = ["| variable | type | default | meaning |", "| --- | --- | --- | --- |", *rows("", spec["options"])]
    return "\n\n".join([*paragraphs, "\n".join(table)]) + "\n"


def rows(above: str, options: dict[str, Any]) -> Iterator[str]:
    """Yield a line of the table for each option, those of its elements right after it."""
    for name, option in options.items():
        path = f"{above}{name}"
        kind = f"{option['type']} of {option['elements']}" if "elements" in option else option["type"]
        yield f"| `{path}` | {kind} | {_default(option)} | {_meaning(option)} |"
        yield from rows(f"{path}{'[]' if option['type'] == 'list' else ''}.", option.get("options", {}))


def _default(option: dict[str, Any]) -> str:
    if "default" not in option:
        return "must be given" if option.get("required") else "none"
    value = option["default"]
    # A template stands as it is written, everything else as JSON, which is YAML too.
    text = value if isinstance(value, str) and "{{" in value else json.dumps(value)
    return f"`{text}`".replace("|", "\\|")


def _meaning(option: dict[str, Any]) -> str:
    choices = f" One of {', '.join(f'`{choice}`' for choice in option['choices'])}." if "choices" in option else ""
    return f"{_markdown(option['description'])}{choices}"


def _markdown(text: str) -> str:
    """Turn Ansible's markup (C, O and V around a term in brackets) into Markdown's."""
    return re.sub(r"\b[COV]\((.+?)\)", r"`\1`", text)


if __name__ == "__main__":
    main()
