"""Jobs as people write and read them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from fleet import jobs
from fleet.errors import FleetError


@pytest.mark.parametrize(
    ("text", "command", "payload"),
    [
        ('{"type":"exec","command":"ls -la","timeout":30000}', "exec", '{"command": "ls -la", "timeout": 30000}'),
        ('{"type":"ping","payload":"hello"}', "ping", "hello"),
        ('{"type":"capabilities"}', "capabilities", ""),
        ('{"type":"x","payload":{"a":1}}', "x", '{"payload": {"a": 1}}'),
    ],
)
def test_a_task_is_a_command_and_its_payload(text: str, command: str, payload: str) -> None:
    assert jobs.parse_task(text) == (command, payload)


@pytest.mark.parametrize(
    "text", ["", "ls -la", "[]", '"exec"', "{}", '{"type":1}', '{"type":null}', '{"type":"x","y":NaN}', "[" * 10**5]
)
def test_a_task_that_is_none_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(FleetError, match="JSON"):
        jobs.parse_task(text)


def _job(**fields: Any) -> dict[str, Any]:
    asked = {"dialect": "jobs", "command": "ping", "payload": ""}
    ended = {"status": "done", "result": "", "error": None, "duration_ms": 120}
    return {**asked, **ended, **fields}


@pytest.mark.parametrize(
    ("job", "words"),
    [
        (None, "none"),
        (_job(payload="hello", result="pong: hello"), "done in 0.1 s   jobs ping: hello → pong: hello"),
        (
            _job(command="exec", payload='{"command":"uname -sr"}', result=json.dumps({"stdout": "Linux 6\nmore"})),
            "done in 0.1 s   jobs exec: uname -sr → Linux 6",
        ),
        (
            _job(command="exec", payload='{"argv":["ls","-l"]}', result='{"stdout":""}'),
            "done in 0.1 s   jobs exec: ls -l → ",
        ),
        (_job(status="failed", error="exit status 3", result=None), "failed in 0.1 s   jobs ping → exit status 3"),
        (_job(status="running", result=None, duration_ms=None), "running   jobs ping"),
        (
            _job(status="failed", outcome="cancelled", error="not today", result=None, duration_ms=None),
            "cancelled   jobs ping → cancelled: not today",
        ),
        (_job(status="failed", outcome="dead", error="lease lost"), "dead in 0.1 s   jobs ping → lease lost"),
    ],
)
def test_a_job_in_a_few_words(job: dict[str, Any] | None, words: str) -> None:
    assert jobs.summary(job) == words


def test_long_words_are_cut() -> None:
    assert len(jobs.summary(_job(payload="x" * 500, result="y" * 500))) < 150


def test_standard_error_is_kept_apart() -> None:
    assert jobs.output(_job(result='{"stdout":"out","stderr":"warn"}')) == ("out", "warn")
    assert jobs.output(_job(status="failed", error="exit status 3")) == ("", "exit status 3")


@pytest.mark.parametrize("result", ['{"stdout":5}', '{"stdout":null}', "[" * 10**5, None])
def test_a_result_that_is_no_programs_is_shown_as_it_is(result: str | None) -> None:
    assert jobs.output(_job(result=result)) == (result or "", "")
    assert not jobs.is_of_program(_job(result=result))


@pytest.mark.parametrize("payload", ['{"argv":5}', '{"command":null}', "[" * 10**5, "\x1b[2J\x07"])
def test_a_job_about_anything_has_its_words(payload: str) -> None:
    assert jobs.asked(_job(payload=payload)).isprintable()


def test_a_submission_has_a_key_of_its_own_or_the_given_one() -> None:
    first, second = (jobs.order("ping", "", priority=None)["idempotency_key"] for _ in range(2))
    assert first != second
    assert jobs.order("ping", "", idempotency_key="k", priority=0) == {
        "command": "ping",
        "payload": "",
        "idempotency_key": "k",
        "priority": 0,
    }
    assert jobs.order("ping", "", idempotency_key=None)["idempotency_key"].startswith("fleet-")
