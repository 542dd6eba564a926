"""Where jobs write beside their workspace. What a full disk does is shown on real hosts."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from runner_app import walls
from runner_app.execution import StartError
from runner_app.job import Command, Job
from runner_app.journal import Journal
from runner_app.progress import Progress, progress
from runner_app.scratch import Scratch

if TYPE_CHECKING:
    from pathlib import Path

    from runner_app.journal import Claim
    from runner_app.settings import Settings


@pytest.fixture
def claim(settings: Settings) -> Claim:
    job = Job(id="j1", command="exec", payload="", lease_epoch=3, lease_seconds=60, max_deliveries=5)
    return Journal(settings.jobs_dir).record(job, "systemd")


def test_output_is_on_the_workspaces_disk_with_room_of_its_own(claim: Claim, settings: Settings) -> None:
    scratch = Scratch(settings)
    folder = settings.workspace / ".tmp" / claim.name
    for _ in range(2):  # a runner may die before it started the job
        assert scratch.make(claim) == folder / "tmp"
    for name in ("stdout", "stderr"):
        assert (claim.directory / name).resolve() == folder / name
        status = (claim.directory / name).stat()
        assert (status.st_size, status.st_mode & 0o777) == (0, 0o600)
        assert status.st_blocks * 512 >= 64 * 1024
    assert list((folder / "tmp").iterdir()) == []


def test_what_a_job_says_of_its_progress_is_found_in_its_tmp(claim: Claim, settings: Settings) -> None:
    tmp = Scratch(settings).make(claim)
    assert tmp
    arguments = walls.script(Command(("true",), "/", 1), settings, tmp).split()
    variable, value = arguments[arguments.index("--setenv") + 1 :][:2]
    assert (variable, value) == ("JOB_PROGRESS", "/tmp/job-progress")  # noqa: S108 - of the job's own
    (tmp / "job-progress").write_text("40 copying")
    assert progress(claim.directory) == Progress(40, "copying")


def test_what_a_job_left_is_removed(claim: Claim, settings: Settings) -> None:
    scratch = Scratch(settings)
    tmp = scratch.make(claim)
    assert tmp
    (tmp / "a").mkdir(mode=0)
    asyncio.run(scratch.tidy(lambda name: name == claim.name))
    assert tmp.exists()
    asyncio.run(scratch.tidy(lambda _: False))
    assert list((settings.workspace / ".tmp").iterdir()) == []
    assert claim.directory.exists()


def test_a_link_in_its_place_is_not_followed(claim: Claim, settings: Settings, tmp_path: Path) -> None:
    (settings.workspace / ".tmp").symlink_to(tmp_path)
    with pytest.raises(StartError, match="is a link"):
        Scratch(settings).make(claim)
