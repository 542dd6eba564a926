"""A job's unit. That the properties do what they promise is shown on real hosts; here, that none is lost."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from runner_app import records, sandbox
from runner_app.job import Command, Job
from runner_app.journal import Claim

if TYPE_CHECKING:
    from pathlib import Path

    from runner_app.settings import Settings

ARGV = ("sh", "-c", "echo $$ $HOME %n")


@pytest.fixture
def claim(tmp_path: Path) -> Claim:
    job = Job(id="j1", command="exec", payload="", lease_epoch=3, lease_seconds=60, max_deliveries=5)
    return Claim(job, "systemd", tmp_path / "jobs" / job.name)


@pytest.fixture
def properties(claim: Claim, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", "/run/credentials/x")
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/run/user/7")
    command = Command(ARGV, str(settings.workspace), 1500)
    listed = sandbox.job_properties(claim, command, settings)
    assert len(dict(listed)) == len(listed)
    return {name: value for name, (_, value) in listed}


def test_the_job_gets_its_arguments_as_they_are(properties: dict[str, Any], settings: Settings) -> None:
    ((path, argv, flags),) = properties["ExecStartEx"]
    assert path == "/bin/sh"
    assert tuple(argv[-4:]) == (str(settings.workspace), *ARGV)
    assert flags == ["no-env-expand"]


def test_records_are_written_outside_the_sandbox(properties: dict[str, Any], claim: Claim) -> None:
    for name, verb in (("ExecStartPreEx", "started"), ("ExecStopPostEx", "ended")):
        ((_, argv, flags),) = properties[name]
        assert argv[-3:] == [records.__file__, verb, str(claim.directory)]
        assert "privileged" in flags


def test_how_a_job_ends(properties: dict[str, Any]) -> None:
    assert properties["Type"] == "exec"
    assert properties["KillMode"] == "control-group"
    assert properties["TimeoutStopUSec"] == 10_000_000
    assert properties["RuntimeMaxUSec"] == 1_500_000
    assert "RemainAfterExit" not in properties
    assert "CollectMode" not in properties


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PrivateUsers", True),
        ("NoNewPrivileges", True),
        ("PrivateTmp", True),
        ("ProtectControlGroups", True),
        ("ProtectSystem", "strict"),
        ("ProtectHome", "tmpfs"),
        ("RestrictNamespaces", 0),
        ("SystemCallFilter", (True, ["@system-service"])),
        ("UMask", 0o077),
    ],
)
def test_walls(name: str, value: object, properties: dict[str, Any]) -> None:
    assert properties[name] == value


def test_what_is_hidden_and_what_is_open(properties: dict[str, Any], settings: Settings) -> None:
    hidden = set(properties["InaccessiblePaths"])
    for path in ("/etc/openclaw", "/run/dbus", "/run/user/7", "/run/credentials/x"):
        assert f"-{path}" in hidden
    for path in (settings.jobs_dir, settings.plans_dir, settings.lock_file):
        assert f"-{path}" in hidden
    assert properties["ReadWritePaths"] == [str(settings.workspace)]
    # With either of these systemd would put the recorders into the sandbox, too, and then refuse to start them.
    assert "TemporaryFileSystem" not in properties
    assert all(source == target for source, target, *_ in properties["BindPaths"])
    assert "XDG_RUNTIME_DIR" in properties["UnsetEnvironment"]


def test_the_dead_man_fires_inside_the_lease_and_says_why(claim: Claim) -> None:
    timer = {name: value for name, (_, value) in sandbox.timer_properties(claim)}
    assert timer["TimersMonotonic"] == [("OnActiveSec", 55_000_000)]
    assert not timer["RemainAfterElapse"]
    killer = {name: value for name, (_, value) in sandbox.killer_properties(claim)}
    (_, why, _), (_, kill, _) = killer["ExecStartEx"]
    assert why[-3:] == ["stop", str(claim.directory), "lease"]
    assert kill[-2:] == ["--signal=KILL", "job-j1-e3.service"]
