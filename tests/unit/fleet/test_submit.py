"""Giving jobs, one and many, to a real broker."""

from __future__ import annotations

import io
import json
import re
import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from fleet import broker, submit
from fleet.inventory import PROJECT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from tests.unit.fleet.conftest import Said, Served

    Run = Callable[..., Said]
    Works = Callable[[str, Callable[[dict[str, Any]], None]], None]

PING = '{"type":"ping","payload":"hello"}'


def ids(said: Said) -> list[str]:
    assert said.status == 0, said.err
    return said.out.splitlines()


def test_a_task_has_its_priority_and_its_deliveries(run: Run, served: Served) -> None:
    [job] = ids(run("task", "agent1", PING, "--priority", "-7", "--max-deliveries", "1", "--after", "1h"))
    kept = served.job(job)
    assert (kept["priority"], kept["max_deliveries"], kept["agent"]) == (-7, 1, "agent1")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--priority", "101"), "--priority"),
        (("--max-deliveries", "0"), "--max-deliveries"),
        (("--after", "soon"), "'soon' is no time to begin at"),
        (("--after", "10m", "--key", "k"), "give --after a time"),
        (("--key", "a b"), "idempotency_key must match"),
        (("--after", "1960-01-01"), "not_before"),
    ],
)
def test_a_task_with_a_wrong_option_is_queued_nowhere(run: Run, words: tuple[str, ...], said: str) -> None:
    before = json.loads(run("queue", "--json").out)
    refused = run("task", "agent1", PING, *words)
    assert refused.status != 0
    assert said in refused.err
    assert json.loads(run("queue", "--json").out) == before


def test_a_task_for_later_is_not_waited_for(run: Run, served: Served) -> None:
    started = time.time()
    said = run("task", "agent1", PING, "--after", "2h")
    [job] = ids(said)
    assert abs(served.job(job)["not_before"] - started - 7200) < 5
    assert re.search(r"begins at \d{4}-\d\d-\d\d ", said.err)
    [at] = ids(run("task", "agent1", PING, "--after", "2126-12-24T18:00:00Z"))
    assert served.job(at)["not_before"] == 4953808800


def test_a_delay_counts_by_the_brokers_clock(run: Run, served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.time", lambda: 5.0)
    [job] = ids(run("task", "agent1", PING, "--after", "2h"))
    kept = served.job(job)
    assert abs(kept["not_before"] - kept["created_at"] - 7200) < 5


def test_a_task_under_a_key_is_queued_once(run: Run, works: Works, served: Served) -> None:
    works("agent1", lambda job: served.post(job, "result", result="pong"))
    first = run("task", "agent1", PING, "--key", "nightly")
    assert (first.status, first.out) == (0, "pong\n")
    assert run("task", "agent1", PING, "--key", "nightly") == first
    other = run("task", "agent1", '{"type":"ping"}', "--key", "nightly")
    assert (other.status, "was used for another submission" in other.err) == (1, True)


class TestLostAnswers:
    """The broker hears each submission; the first answer gets lost."""

    @pytest.fixture
    def dial(self, served: Served) -> Callable[[], Any]:
        lost = ["/jobs", "/jobs/batch"]

        class Losing(httpx.HTTPTransport):
            def handle_request(self, request: httpx.Request) -> httpx.Response:
                answer = super().handle_request(request)
                if request.method == "POST" and request.url.path in lost:
                    lost.remove(request.url.path)
                    answer.read()
                    raise httpx.ReadError("connection lost")
                return answer

        @contextmanager
        def dial() -> Iterator[httpx.Client]:
            with served.client(Losing()) as client:
                yield client

        return dial

    def test_a_task_whose_answer_got_lost_is_queued_once(self, run: Run, served: Served) -> None:
        [job] = ids(run("task", "agent1", PING, "--after", "1h"))
        assert [each["id"] for each in json.loads(run("jobs", "--status", "queued", "--json").out)] == [job]

    def test_a_batch_whose_answer_got_lost_is_queued_once(self, run: Run, tmp_path: Path) -> None:
        (tmp_path / "jobs").write_text('{"task":{"type":"ping"}}\n' * 3)
        queued = ids(run("batch", str(tmp_path / "jobs")))
        listed = json.loads(run("jobs", "--status", "queued", "--json").out)
        assert sorted(each["id"] for each in listed) == sorted(queued)


def batch(run: Run, monkeypatch: pytest.MonkeyPatch, text: str | bytes, *words: str) -> Said:
    given = text.encode() if isinstance(text, str) else text
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(given)))
    return run("batch", "-", *words)


def test_each_line_of_a_batch_is_a_job(run: Run, served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = [
        {"agent": "agent2", "task": {"type": "exec", "command": "uname"}, "priority": 5, "max_deliveries": 2},
        {"task": {"type": "ping", "payload": "hello"}, "requires": ["gpu"], "after": "1h", "key": "batch-1"},
        {"task": {"type": "ping"}, "priority": None, "agent": None},
    ]
    said = batch(run, monkeypatch, "\n\n".join(map(json.dumps, lines)))
    first, second, third = map(served.job, ids(said))
    assert [first[key] for key in ("command", "payload", "agent", "priority", "max_deliveries")] == [
        "exec",
        '{"command": "uname"}',
        "agent2",
        5,
        2,
    ]
    assert [second[key] for key in ("payload", "requires", "idempotency_key")] == [
        "hello",
        '{"caps": ["gpu"]}',
        "batch-1",
    ]
    assert 3590 < second["not_before"] - second["created_at"] < 3605
    assert (third["agent"], third["requires"], third["priority"]) == (None, None, 0)


def test_a_batch_tells_programs_the_line_of_each_id(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    said = batch(run, monkeypatch, '\n{"task":{"type":"ping"}}\n\n{"task":{"type":"ping"}}\n', "--json")
    assert [each["line"] for each in json.loads(said.out)] == [2, 4]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (b"uname", "it is not JSON"),
        (b"\xff\xfe\xfd", "it is not JSON"),
        (b"[" * 100_000, "it is not JSON"),
        (b'{"task":{"type":"ping"},"priority":NaN}', "it is not JSON: NaN"),
        (b"[]", 'it must be a JSON object with a "task"'),
        (b'{"type":"ping"}', 'it must be a JSON object with a "task"'),
        (b'{"task":"ping"}', 'must be a JSON object with a "type"'),
        (b'{"task":{"type":"ping"},"prio":1}', "there is no prio; beside the task there may be agent, requires"),
        (
            b'{"task":{"type":"ping"},"agent":"nobody"}',
            "no agent 'nobody' in the inventory; there are: agent1, agent2, agent3",
        ),
        (b'{"task":{"type":"ping"},"agent":["agent1"]}', "no agent"),
        (b'{"task":{"type":"ping"},"after":"soon"}', "'soon' is no time to begin at"),
        (b'{"task":{"type":"ping"},"priority":101}', "priority"),
        (b'{"task":{"type":"ping"},"priority":"high"}', "priority"),
        (b'{"task":{"type":"ping"},"requires":"gpu"}', "requires must be"),
        (b'{"task":{"type":"\\ud800"}}', "invalid command"),
        (b'{"task":{"type":"p","payload":"\\ud800"}}', "payload"),
        (b'{"task":{"type":"ping","payload":"other"},"key":"taken"}', "'taken' was used for another submission"),
    ],
)
def test_a_wrong_line_keeps_the_others_out_and_is_named(
    run: Run, monkeypatch: pytest.MonkeyPatch, line: bytes, said: str
) -> None:
    ids(batch(run, monkeypatch, '{"task":{"type":"ping"},"key":"taken","after":"2126-12-24"}'))
    before = json.loads(run("queue", "--json").out)
    refused = batch(run, monkeypatch, b'{"task":{"type":"ping"}}\n\n' + line + b'\n{"task":{"type":"ping"}}\n')
    assert (refused.status, refused.out) == (1, "")
    assert re.fullmatch(rf"fleet: nothing was queued: line 3: .*{re.escape(said)}.*\n", refused.err)
    assert json.loads(run("queue", "--json").out) == before


def test_the_batch_of_the_document_is_one(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    document = (PROJECT / "docs/operations.md").read_text()
    example = document.partition("```json\n")[2].partition("```")[0]
    assert len(ids(batch(run, monkeypatch, example))) == 2


def test_an_empty_batch_is_refused(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    assert batch(run, monkeypatch, "\n \n").err == "fleet: nothing was queued: there is no job in the file\n"


def test_a_file_that_is_not_there_is_said(run: Run) -> None:
    said = run("batch", "/nonexistent")
    assert (said.status, "No such file" in said.err) == (2, True)


def test_a_batch_of_more_than_one_call_tells_how_far_it_came(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(submit, "_CALL_JOBS", 2)
    line = '{"task":{"type":"ping"}}\n'
    said = batch(run, monkeypatch, line * 3 + '{"task":{"type":"ping"},"priority":101}\n' + line)
    assert said.status == 1
    assert said.err.startswith("fleet: the lines up to 2 are queued, those from 3 on are not: line 4: priority")
    assert len(said.out.splitlines()) == 2


def test_a_wrong_line_far_down_keeps_earlier_calls_back(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(submit, "_CALL_JOBS", 2)
    said = batch(run, monkeypatch, '{"task":{"type":"ping"}}\n' * 5 + "ping\n")
    assert (said.status, said.out) == (1, "")
    assert said.err.startswith("fleet: nothing was queued: line 6: it is not JSON")


def test_a_call_has_a_thousand_jobs_at_the_most(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []

    def submit_all(_client: broker.Broker, orders: Sequence[dict[str, Any]]) -> list[str]:
        calls.append(len(orders))
        return ["id"] * len(orders)

    monkeypatch.setattr(broker.Broker, "submit_all", submit_all)
    assert len(ids(batch(run, monkeypatch, '{"task":{"type":"ping"}}\n' * 1500))) == 1500
    assert calls == [1000, 500]


def test_long_lines_are_sent_in_calls_that_the_broker_reads(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    task = {"task": {"type": "ping", "payload": "x" * 100_000}}
    assert len(ids(batch(run, monkeypatch, "\n".join([json.dumps(task)] * 12)))) == 12
