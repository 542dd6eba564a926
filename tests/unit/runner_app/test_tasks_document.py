"""docs/tasks.md says of each task what the code does."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from runner_app.handlers import catalogue
from runner_app.job import Job, JobFailedError

if TYPE_CHECKING:
    from runner_app.settings import Settings

_DOCUMENT = Path(__file__).parents[3] / "docs/tasks.md"
_ROWS = dict(re.findall(r"^\| `([a-z:]+)` \| (.+?) \|", _DOCUMENT.read_text(), re.MULTILINE))


def test_all_tasks_are_there() -> None:
    assert list(_ROWS) == list(catalogue.COMMANDS)


@pytest.mark.parametrize("task", _ROWS)
def test_all_fields_are_there(task: str, settings: Settings) -> None:
    job = Job(id="j1", command=task, payload='{"?": 1}', lease_epoch=1, lease_seconds=60, max_deliveries=5)
    with pytest.raises(JobFailedError, match="unknown key") as caught:
        catalogue.command(job, settings)
    known = str(caught.value).rpartition("use ")[2].split(", ")
    assert sorted(re.findall(r"`(\w+)`", _ROWS[task])) == sorted(known)
