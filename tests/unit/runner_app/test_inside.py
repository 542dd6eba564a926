"""Tasks on files and repositories: payload → order."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from runner_app.handlers.inside import TASKS, parse
from runner_app.job import JobFailedError

if TYPE_CHECKING:
    from runner_app.settings import Settings


@pytest.mark.parametrize(
    ("task", "payload", "order"),
    [
        ("file:read", {"filePath": "a"}, {"encoding": "utf-8"}),
        ("file:write", {"filePath": "a", "content": ""}, {"encoding": "utf-8", "createDirs": False}),
        ("git:clone", {"repo": "r", "destination": "d"}, {"branch": ""}),
        ("git:clone", {"repo": "r", "destination": "d", "branch": "b"}, {}),
        ("git:pull", {"repoPath": "d"}, {}),
        ("git:push", {"repoPath": "d"}, {"remote": "origin", "branch": ""}),
        ("git:push", {"repoPath": "d", "remote": "r", "branch": "b"}, {}),
    ],
)
def test_orders(task: str, payload: dict[str, Any], order: dict[str, Any], settings: Settings) -> None:
    command = parse(task, json.dumps({**payload, "timeout": 1500}), settings)
    expected = {"task": task, "workspace": str(settings.workspace), **payload, **order}
    assert json.loads(command.stdin or "") == expected
    assert command.timeout_ms == 1500


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("payload", ["a line", "[]", "null", "[" * 100_000])
def test_a_payload_is_an_object(task: str, payload: str, settings: Settings) -> None:
    with pytest.raises(JobFailedError, match=f"{task}: the payload must be a JSON object with"):
        parse(task, payload, settings)


_GOOD = {
    "file:read": {"filePath": "a"},
    "file:write": {"filePath": "a", "content": "c"},
    "git:clone": {"repo": "r", "destination": "d"},
    "git:pull": {"repoPath": "d"},
    "git:push": {"repoPath": "d"},
}
_BAD = [
    *((task, name, value) for task, good in _GOOD.items() for name in good for value in (None, 1, ["a"], "a\0")),
    *((task, name, "") for task, good in _GOOD.items() for name in good if name != "content"),
    *((task, "timeout", 0) for task in _GOOD),
    *((task, "surprise", 1) for task in _GOOD),
    ("file:read", "encoding", "latin-1"),
    ("file:write", "encoding", 1),
    ("file:write", "createDirs", "yes"),
    ("file:write", "content", "é" * 131_073),
    ("git:clone", "branch", 1),
    ("git:push", "branch", "a\0"),
    ("git:push", "remote", ""),
]


@pytest.mark.parametrize(("task", "name", "value"), _BAD)
def test_an_error_names_task_and_field(task: str, name: str, value: object, settings: Settings) -> None:
    with pytest.raises(JobFailedError, match=f"^{task}: .*{name}"):
        parse(task, json.dumps(_GOOD[task] | {name: value}), settings)
