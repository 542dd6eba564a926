"""Records, the journal of claims, and plans."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from runner_app import records
from runner_app.execution import duration_ms, recorded_ending
from runner_app.handlers.plans import Plans
from runner_app.job import Job, JobFailedError
from runner_app.journal import Claim, Journal
from runner_app.outcome import Ending

if TYPE_CHECKING:
    from pathlib import Path

JOB = Job(id="j1", command="exec", payload="true", lease_epoch=2, lease_seconds=60, max_deliveries=5)


def names(directory: Path) -> list[str]:
    return sorted(entry.name for entry in directory.iterdir())


def record(directory: Path, *arguments: str, invocation: str = "i1", **variables: str) -> int:
    """Run the script as a unit does: by its path, isolated, with nothing but the standard library."""
    command = [sys.executable, "-I", "-S", records.__file__, arguments[0], str(directory), *arguments[1:]]
    environment = {"INVOCATION_ID": invocation, **variables}
    return subprocess.run(command, env=environment, check=False, capture_output=True).returncode


def ended(directory: Path, invocation: str = "i1", status: str = "0") -> int:
    words = {"SERVICE_RESULT": "success", "EXIT_CODE": "exited", "EXIT_STATUS": status}
    return record(directory, "ended", invocation=invocation, **words)


def test_a_unit_records_its_start_and_end(tmp_path: Path) -> None:
    claim = Claim(JOB, "systemd", tmp_path)
    assert record(tmp_path, "started") == 0
    assert recorded_ending(claim) is None
    assert ended(tmp_path) == 0
    assert recorded_ending(claim) == Ending("success", "exited", "0")
    assert 0 <= duration_ms(claim) < 10_000
    assert names(tmp_path) == ["exit.json", "started.json"]


def test_a_second_start_in_one_directory_fails_and_says_nothing(tmp_path: Path) -> None:
    assert record(tmp_path, "started") == 0
    assert record(tmp_path, "started", invocation="i2") != 0
    assert ended(tmp_path, invocation="i2", status="9") == 0
    assert records.read(tmp_path / records.EXIT) is None
    assert str((records.read(tmp_path / records.STARTED) or {})["invocation"]) == "i1"


def test_the_first_end_stays(tmp_path: Path) -> None:
    record(tmp_path, "started")
    ended(tmp_path)
    assert ended(tmp_path, status="3") != 0
    assert recorded_ending(Claim(JOB, "systemd", tmp_path)) == Ending("success", "exited", "0")


def test_an_end_of_another_invocation_does_not_count(tmp_path: Path) -> None:
    record(tmp_path, "started")
    ending = {"result": "success", "code": "exited", "status": "0", "invocation": "i2"}
    records.write(tmp_path / records.EXIT, {**ending, **records.moment()})
    assert recorded_ending(Claim(JOB, "systemd", tmp_path)) is None


def test_a_record_is_whole_or_absent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    records.write(tmp_path / "a.json", {"n": 1})

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        records.write(tmp_path / "a.json", {"n": 2})
    assert records.read(tmp_path / "a.json") == {"n": 1}
    assert names(tmp_path) == ["a.json"]


def test_a_record_may_be_read_and_closed_before_its_directory_is_synced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = tmp_path / "job-j1-e2"
    directory.mkdir()
    sync = records.sync_directory

    def late(path: Path) -> None:
        shutil.rmtree(path)
        sync(path)

    monkeypatch.setattr(records, "sync_directory", late)
    records.write(directory / records.EXIT, {}, exclusive=True)
    assert not directory.exists()


def test_the_journal_keeps_claims(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    claim = journal.record(JOB, "systemd")
    assert claim.directory.name == "job-j1-e2"
    assert claim.directory.stat().st_mode & 0o777 == 0o700
    assert Journal(tmp_path).claims() == [claim]
    assert journal.holds("job-j1-e2")
    journal.forget(claim)
    assert not journal.holds("job-j1-e2")
    assert journal.claims() == []
    assert names(tmp_path) == []


def test_an_attempt_is_recorded_once(tmp_path: Path) -> None:
    Journal(tmp_path).record(JOB, "systemd")
    with pytest.raises(FileExistsError):
        Journal(tmp_path).record(JOB, "systemd")


def test_what_a_crash_left_half_made_is_removed_and_the_unreadable_is_kept(tmp_path: Path) -> None:
    (tmp_path / "job-half-e1").mkdir()
    (tmp_path / "job-odd-e1").mkdir()
    (tmp_path / "job-odd-e1" / "claim.json").write_text("{")
    claim = Journal(tmp_path).record(JOB, "process")
    assert Journal(tmp_path).claims() == [claim]
    assert names(tmp_path) == ["job-j1-e2", "job-odd-e1"]


@pytest.mark.parametrize(
    ("key", "value"),
    [("id", "../x"), ("id", ""), ("id", "a" * 65), ("id", 1), ("lease_epoch", None), ("lease_seconds", 0)],
)
def test_an_unusable_job_is_refused(key: str, value: object) -> None:
    raw = {"id": "a", "command": "ping", "payload": "", "lease_epoch": 1, "lease_seconds": 60, "max_deliveries": 5}
    assert Job.parse(raw).name == "job-a-e1"
    with pytest.raises(ValueError, match=key):
        Job.parse(raw | {key: value})


def plan_job(job_id: str, payload: str) -> Job:
    return Job(id=job_id, command="plan", payload=payload, lease_epoch=1, lease_seconds=60, max_deliveries=5)


def test_a_plan_is_good_for_one_approval(tmp_path: Path) -> None:
    plan_id = json.loads(Plans(tmp_path).propose(plan_job("p", "tidy up")))["plan_id"]
    assert Plans(tmp_path).approve(plan_job("a", f" {plan_id}\n")) == "tidy up"
    with pytest.raises(JobFailedError, match="used already"):
        Plans(tmp_path).approve(plan_job("b", plan_id))


def test_both_calls_may_be_repeated_for_the_same_job(tmp_path: Path) -> None:
    plans = Plans(tmp_path)
    answer = plans.propose(plan_job("p", "tidy up"))
    assert plans.propose(plan_job("p", "tidy up")) == answer
    plan_id = json.loads(answer)["plan_id"]
    assert [plans.approve(plan_job("a", plan_id)) for _ in range(2)] == ["tidy up"] * 2
    plans.propose(plan_job("p", "tidy up"))
    with pytest.raises(JobFailedError, match="used already"):
        plans.approve(plan_job("b", plan_id))


@pytest.mark.parametrize("plan_id", ["", "../../etc/passwd", "A" * 32, "a" * 31, "a" * 32 + "/x", "a" * 32 + ".used"])
def test_a_malformed_plan_id_reaches_no_file(plan_id: str, tmp_path: Path) -> None:
    with pytest.raises(JobFailedError, match="not a plan id"):
        Plans(tmp_path).approve(plan_job("a", plan_id))


def test_an_unknown_plan_is_refused(tmp_path: Path) -> None:
    with pytest.raises(JobFailedError, match="unknown plan"):
        Plans(tmp_path).approve(plan_job("a", "0" * 32))


def test_the_number_of_plans_is_bounded(tmp_path: Path) -> None:
    for number in range(1100):
        (tmp_path / f"{number:032x}.json").write_text("{}")
    Plans(tmp_path).propose(plan_job("p", "x"))
    assert len(names(tmp_path)) == 1000
