"""What records mean."""

from __future__ import annotations

import signal

import pytest

from runner_app.outcome import Ending, Stage, Verdict, describe, judge, kept_ending, stage


@pytest.mark.parametrize(
    ("started", "ended", "alive", "meaning"),
    [
        (False, False, False, Stage.FRESH),
        (False, False, True, Stage.RUNNING),
        (True, False, True, Stage.RUNNING),
        (True, False, False, Stage.LOST),
        (True, True, False, Stage.ENDED),
        (True, True, True, Stage.ENDED),
        (False, True, False, Stage.ENDED),
    ],
)
def test_stage(started: bool, ended: bool, alive: bool, meaning: Stage) -> None:
    assert stage(started=started, ended=ended, alive=alive) is meaning


@pytest.mark.parametrize(
    ("ending", "stop", "verdict", "words"),
    [
        (("success", "exited", "0"), None, Verdict.DONE, None),
        (("exit-code", "exited", "7"), None, Verdict.FAILED, "exit code 7"),
        (("exit-code", "exited", "137"), None, Verdict.FAILED, "exit code 137 (SIGKILL)"),
        (("signal", "killed", "KILL"), None, Verdict.FAILED, "killed by signal KILL"),
        (("core-dump", "dumped", "SEGV"), None, Verdict.FAILED, "killed by signal SEGV"),
        (("success", "killed", "PIPE"), None, Verdict.FAILED, "killed by signal PIPE"),
        (("success", "killed", "TERM"), None, Verdict.ABANDONED, "interrupted"),
        (("timeout", "killed", "TERM"), None, Verdict.FAILED, "timed out after 5 ms"),
        (("timeout", "exited", "0"), None, Verdict.FAILED, "timed out after 5 ms"),
        (("oom-kill", "killed", "KILL"), None, Verdict.FAILED, "out of memory"),
        (("exit-code", "", ""), None, Verdict.FAILED, "could not be started"),
        (("success", "exited", "0"), "lease", Verdict.ABANDONED, "lease"),
        (("signal", "killed", "KILL"), "lease", Verdict.ABANDONED, "lease"),
        (("success", "killed", "TERM"), "output", Verdict.FAILED, "too much output"),
        (("success", "exited", "0"), "output", Verdict.FAILED, "too much output"),
        (("success", "killed", "TERM"), "runner", Verdict.RELEASED, "runner"),
    ],
)
def test_judge(ending: tuple[str, str, str], stop: str | None, verdict: Verdict, words: str | None) -> None:
    assert judge(Ending(*ending), stop=stop) is verdict
    if words:
        assert words in describe(Ending(*ending), stop=stop, duration_ms=5)


@pytest.mark.parametrize(
    ("result", "code", "status", "ending"),
    [
        ("exit-code", 1, 7, ("exit-code", "exited", "7")),
        ("exit-code", 1, 0, ("success", "exited", "0")),
        ("timeout", 1, 0, ("timeout", "exited", "0")),
        ("signal", 2, signal.SIGKILL, ("signal", "killed", "KILL")),
        ("core-dump", 3, signal.SIGSEGV, ("core-dump", "dumped", "SEGV")),
        ("exit-code", 0, 0, ("exit-code", "", "")),
        ("resources", 0, 0, ("resources", "", "")),
    ],
)
def test_what_systemd_keeps_of_a_failed_unit(result: str, code: int, status: int, ending: tuple[str, str, str]) -> None:
    assert kept_ending(result=result, main_code=code, main_status=status) == Ending(*ending)
