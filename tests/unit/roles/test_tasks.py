"""How tasks read and what they may not do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

PROJECT = Path(__file__).resolve().parents[3]
FILES = sorted(PROJECT.glob("roles/*/tasks/*.yml"))
IDS = [str(path.relative_to(PROJECT / "roles")) for path in FILES]


def tasks(path: Path) -> list[dict[str, Any]]:
    loaded = yaml.safe_load(path.read_text())
    assert isinstance(loaded, list)
    return loaded


@pytest.mark.parametrize("path", FILES, ids=IDS)
def test_names_fit_the_progress_display(path: Path) -> None:
    names = [task["name"] for task in tasks(path)]

    assert not [name for name in names if len(name) > 40 or not name[0].isupper() or name.endswith(".")]


@pytest.mark.parametrize("path", FILES, ids=IDS)
def test_nothing_runs_in_a_shell(path: Path) -> None:
    assert not [task["name"] for task in tasks(path) if {"ansible.builtin.shell", "ansible.builtin.raw"} & set(task)]


@pytest.mark.parametrize("path", FILES, ids=IDS)
def test_a_task_that_handles_a_token_logs_nothing(path: Path) -> None:
    """A token is in what `token mint` prints, and in what the placing of tokens is given."""
    handling = [task for task in tasks(path) if "'mint'" in str(task) or "token_files" in str(task)]
    handling += [task for task in tasks(path) if "credential_files" in str(task) or ".stdout ~" in str(task)]

    assert not [task["name"] for task in handling if task.get("no_log") is not True]


@pytest.mark.parametrize("path", FILES, ids=IDS)
def test_a_file_is_short(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= 120


@pytest.mark.parametrize("role", sorted({path.parent.parent.name for path in FILES}))
def test_a_role_has_the_same_parts_as_the_others(role: str) -> None:
    names = {path.stem for path in (PROJECT / "roles" / role / "tasks").iterdir()}

    assert {"main", "preflight", "install", "configure", "run", "uninstall"} <= names


@pytest.mark.parametrize("path", [path for path in FILES if path.name == "main.yml"])
def test_main_is_a_table_of_contents(path: Path) -> None:
    assert all(set(task) <= {"name", "when", "ansible.builtin.include_tasks"} for task in tasks(path))
