"""A job's unit files. That they do what they promise is shown on real hosts; here, that no line is lost."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from runner_app import execution, records, sandbox
from runner_app.job import Command, Job
from runner_app.journal import Claim
from runner_app.settings import Limits

if TYPE_CHECKING:
    from pathlib import Path

    from runner_app.settings import Settings


@pytest.fixture
def claim(tmp_path: Path) -> Claim:
    job = Job(id="j1", command="exec", payload="", lease_epoch=3, lease_seconds=60, max_deliveries=5)
    directory = tmp_path / "jobs" / job.name
    directory.mkdir(parents=True)
    return Claim(job, "systemd", directory)


@pytest.fixture
def unit(claim: Claim, settings: Settings) -> dict[str, str]:
    return parsed(sandbox.job_unit(claim, Command(("secret $HOME %n",), str(settings.workspace), 1500), settings))


def parsed(text: str) -> dict[str, str]:
    """A unit file whose keys are all different."""
    pairs = [line.split("=", 1) for line in text.splitlines() if "=" in line and "SystemCallFilter" not in line]
    assert len(dict(pairs)) == len(pairs)
    return dict(pairs)


def test_nothing_of_the_submitters_stands_in_the_unit(unit: dict[str, str], claim: Claim) -> None:
    assert not any("secret" in value for value in unit.values())
    assert unit["ExecStart"] == "/bin/sh"
    assert unit["StandardInput"] == f"file:{claim.directory}/script"


def test_the_script_becomes_the_command(claim: Claim) -> None:
    execution.write_script(claim, execution.becoming(Command(("a b", "$x", "'"), "/w s", 1)))
    assert (claim.directory / "script").read_text() == """cd -- '/w s' && exec 'a b' '$x' ''"'"'' </dev/null\n"""


def test_records_are_written_outside_the_sandbox(unit: dict[str, str], claim: Claim) -> None:
    for key, verb in (("ExecStartPre", "started"), ("ExecStopPost", "ended")):
        assert unit[key].endswith(f"{records.__file__} {verb} {claim.directory}")
        assert not unit[key].startswith("-")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("Type", "exec"),
        ("KillMode", "control-group"),
        ("TimeoutStopSec", "10"),
        ("RuntimeMaxSec", "1500ms"),
        ("OOMPolicy", "stop"),
        ("UMask", "0077"),
        ("NoNewPrivileges", "yes"),
        ("RestrictNamespaces", "user pid mnt ipc"),
        ("LimitCORE", "0"),
        ("OOMScoreAdjust", "1000"),
        ("Nice", "10"),
    ],
)
def test_rules(key: str, value: str, unit: dict[str, str]) -> None:
    assert unit[key] == value


def test_a_job_for_root_may_gain_rights_and_keeps_its_limits(claim: Claim, settings: Settings) -> None:
    limited = replace(settings, job_limits=Limits(1000, 50, 7))
    command = Command(("true",), str(settings.workspace), 1500)
    walled = parsed(sandbox.job_unit(claim, command, limited))
    unwalled = parsed(sandbox.job_unit(claim, replace(command, walled=False), limited))
    assert unwalled.items() <= walled.items()
    assert {"MemoryMax", "RuntimeMaxSec", "OOMPolicy", "ExecStopPost"} <= set(unwalled)
    assert {key for key in walled if key not in unwalled} >= {"NoNewPrivileges", "SystemCallArchitectures"}


@pytest.mark.parametrize("key", ["RemainAfterExit", "CollectMode"])
def test_a_unit_that_is_gone_has_left_its_record(key: str, unit: dict[str, str]) -> None:
    assert key not in unit


@pytest.mark.parametrize(("job", "jobs"), [(None, None), (Limits(1000, 50, 7), Limits(2000, 100, 14))])
def test_limits_are_set_where_they_are_given(
    job: Limits | None, jobs: Limits | None, claim: Claim, settings: Settings
) -> None:
    limited = replace(settings, job_limits=job, jobs_limits=jobs)
    unit = parsed(sandbox.job_unit(claim, Command(("true",), str(settings.workspace), 1500), limited))
    found = [unit.get(key) for key in ("MemoryMax", "MemorySwapMax", "CPUQuota", "TasksMax", "LimitNPROC")]
    assert found == (["1000", "0", "50%", "7", "14"] if job else [None] * 5)


def test_the_dead_man_fires_inside_the_lease_and_says_why(claim: Claim) -> None:
    timer = parsed(sandbox.lease_timer(claim))
    assert timer["OnActiveSec"] == "55000ms"
    assert timer["RemainAfterElapse"] == "no"
    why, kill = [line for line in sandbox.lease_service(claim).splitlines() if line.startswith("ExecStart=")]
    assert why.endswith(f" stop {claim.directory} lease")
    assert kill.endswith("--signal=KILL job-j1-e3.service")
