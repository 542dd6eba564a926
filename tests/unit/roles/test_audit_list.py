"""The auditor's list in docs/security.md names what the audit checks, no more and no less."""

from __future__ import annotations

import re
from pathlib import Path

from tests.acceptance import test_audit

PROJECT = Path(__file__).resolve().parents[3]


def listed() -> list[str]:
    """Return the ids of the rows of the check list."""
    section = (PROJECT / "docs/security.md").read_text().partition("\n## The auditor's list\n")[2].partition("\n## ")[0]
    return re.findall(r"^\| `([a-z-]+)` \|", section, re.MULTILINE)


def test_the_list_is_what_is_checked() -> None:
    tests = [name for name in vars(test_audit) if name.startswith("test_") and name != "test_check"]
    checked = [*test_audit.CHECKS, *(name.removeprefix("test_").replace("_", "-") for name in tests)]

    assert sorted(listed()) == sorted(checked)


def test_every_row_says_why_and_by_whose_word() -> None:
    rows = [line for line in (PROJECT / "docs/security.md").read_text().splitlines() if line.startswith("| `")]

    assert rows
    assert all(len([cell for cell in row.split(" | ") if cell.strip(" |")]) >= 3 for row in rows)
