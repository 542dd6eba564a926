"""A job's unit files. That they do what they promise is shown on real hosts; here, that no line is lost."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from runner_app import execution, records, sandbox
from runner_app.job import Command, Job
from runner_app.journal import Claim

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
def unit(claim: Claim, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", "/run/credentials/x")
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/run/user/7")
    return parsed(sandbox.job_unit(claim, Command(("secret $HOME %n",), str(settings.workspace), 1500), settings))


def parsed(text: str) -> dict[str, str]:
    """A unit file whose keys are all different."""
    pairs = [line.split("=", 1) for line in text.splitlines() if "=" in line]
    assert len(dict(pairs)) == len(pairs)
    return dict(pairs)


def test_nothing_of_the_submitters_stands_in_the_unit(unit: dict[str, str], claim: Claim) -> None:
    assert not any("secret" in value for value in unit.values())
    assert unit["ExecStart"] == "/bin/sh"
    assert unit["StandardInput"] == f"file:{claim.directory}/script"


def test_the_script_becomes_the_command(claim: Claim) -> None:
    execution.write_script(claim, Command(("a b", "$x", "'"), "/w s", 1))
    assert (claim.directory / "script").read_text() == """cd -- '/w s' && exec 'a b' '$x' ''"'"'' </dev/null\n"""


def test_records_are_written_outside_the_sandbox(unit: dict[str, str], claim: Claim) -> None:
    for key, verb in (("ExecStartPre", "started"), ("ExecStopPost", "ended")):
        assert unit[key].startswith("+/")
        assert unit[key].endswith(f"{records.__file__} {verb} {claim.directory}")
    # With these systemd would put the recorders into the sandbox as well, and then start nothing.
    assert "TemporaryFileSystem" not in unit
    assert ":" not in unit["BindPaths"]


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("Type", "exec"),
        ("KillMode", "control-group"),
        ("TimeoutStopSec", "10"),
        ("RuntimeMaxSec", "1500ms"),
        ("OOMPolicy", "stop"),
        ("UMask", "0077"),
        ("PrivateUsers", "yes"),
        ("NoNewPrivileges", "yes"),
        ("PrivateTmp", "yes"),
        ("ProtectControlGroups", "yes"),
        ("ProtectSystem", "strict"),
        ("ProtectHome", "tmpfs"),
        ("RestrictNamespaces", "yes"),
        ("SystemCallFilter", "@system-service"),
    ],
)
def test_limits_and_walls(key: str, value: str, unit: dict[str, str]) -> None:
    assert unit[key] == value


@pytest.mark.parametrize("key", ["RemainAfterExit", "CollectMode"])
def test_a_unit_that_is_gone_has_left_its_record(key: str, unit: dict[str, str]) -> None:
    assert key not in unit


def test_what_is_hidden_and_what_is_open(unit: dict[str, str], settings: Settings) -> None:
    hidden = unit["InaccessiblePaths"].split()
    for path in ("/etc/openclaw", "/run/dbus", "/run/user/7", "/run/credentials/x"):
        assert f"-{path}" in hidden
    for own in (settings.jobs_dir, settings.plans_dir, settings.lock_file):
        assert f"-{own}" in hidden
    assert unit["ReadWritePaths"] == unit["BindPaths"] == str(settings.workspace)
    assert "XDG_RUNTIME_DIR" in unit["UnsetEnvironment"]


def test_the_dead_man_fires_inside_the_lease_and_says_why(claim: Claim) -> None:
    timer = parsed(sandbox.lease_timer(claim))
    assert timer["OnActiveSec"] == "55000ms"
    assert timer["RemainAfterElapse"] == "no"
    why, kill = [line for line in sandbox.lease_service(claim).splitlines() if line.startswith("ExecStart=")]
    assert why.endswith(f" stop {claim.directory} lease")
    assert kill.endswith("--signal=KILL job-j1-e3.service")
