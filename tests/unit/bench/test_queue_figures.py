"""The queue bench's arithmetic, and what its load understands of an answer."""

from __future__ import annotations

import pytest

from tests.bench.queue.figures import Figures, Goal, judge, percentile
from tests.bench.queue.goals import GOALS
from tests.bench.queue.load import LoadError, Run, Slice, beanstalk_length, http_length, work
from tests.bench.queue.servers import role_environment
from tests.support.lab import PROJECT

OURS, THEIRS = "ours", "theirs"


def figures(**rounds: list[float]) -> Figures:
    kept = Figures()
    for measure, values in rounds.items():
        for value in values:
            kept.add(measure, value)
    return kept


def test_ratios_are_those_of_a_round_and_their_median_counts() -> None:
    found = judge(Goal("x", OURS, 2, to=THEIRS, least=True), figures(ours=[10, 900, 30], theirs=[5, 10, 10]))
    assert found.rounds == (2, 90, 3)
    assert (found.value, found.met, found.word) == (3, True, "met")


@pytest.mark.parametrize(
    ("least", "value", "word"),
    [
        (True, 1.99, "NOT MET"),
        (True, 2.0, "met"),
        (True, 3.0, "met, stretch too"),
        (False, 2.01, "NOT MET"),
        (False, 2.0, "met"),
        (False, 1.5, "met, stretch too"),
    ],
)
def test_a_bound_is_the_least_or_the_most(*, least: bool, value: float, word: str) -> None:
    goal = Goal("x", OURS, 2, least=least, best=3 if least else 1.5)
    found = judge(goal, figures(ours=[value]))
    assert (found.word, found.met) == (word, word != "NOT MET")


def test_what_is_not_there_is_skipped_by_name_and_breaks_nothing() -> None:
    kept = figures(ours=[1.0])
    kept.skip(THEIRS, "no beanstalkd")
    found = judge(Goal("x", OURS, 2, to=THEIRS, least=True), kept)
    assert (found.met, found.word) == (None, "skipped: no beanstalkd")


def test_a_round_that_lacks_one_of_two_figures_is_no_ratio() -> None:
    with pytest.raises(ValueError, match="zip"):
        judge(Goal("x", OURS, 2, to=THEIRS), figures(ours=[1.0, 2.0], theirs=[1.0]))


def test_a_percentile_is_between_values() -> None:
    assert percentile([1, 2, 3, 4, 5], 50) == 3
    assert percentile(list(range(101)), 99) == 99


def test_the_goals_are_the_issues() -> None:
    bounds = {goal.what: (goal.least, goal.bound, goal.best) for goal in GOALS}
    assert len(bounds) == len(GOALS) == 14
    assert bounds["enqueue, 16 clients, to beanstalkd -f 0"] == (True, 2, 3)
    assert bounds["claim+complete, 16 workers, to beanstalkd -f 0"] == (True, 1, 1.5)
    assert bounds["enqueue with the cap on, to without"] == (False, 1.05, None)


@pytest.mark.parametrize(
    ("data", "length"),
    [
        (b"", 0),
        (b"HTTP/1.1 200 OK\r\ncontent-le", 0),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\n{}", 0),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}", 40),
    ],
)
def test_an_answer_counts_when_it_is_whole(data: bytes, length: int) -> None:
    assert http_length(data) == length


@pytest.mark.parametrize(
    ("data", "length"),
    [
        (b"INSERTED 1", 0),
        (b"INSERTED 1\r\n", 12),
        (b"RESERVED 1 3\r\nab", 0),
        (b"RESERVED 1 3\r\nabc\r\n", 19),
        (b"TIMED_OUT\r\n", 11),
    ],
)
def test_an_answer_of_beanstalkds_counts_when_it_is_whole(data: bytes, length: int) -> None:
    assert beanstalk_length(data) == length


def test_a_refusal_is_no_answer() -> None:
    with pytest.raises(LoadError, match="429"):
        http_length(b"HTTP/1.1 429 Too Many Requests\r\n\r\n")
    with pytest.raises(LoadError, match="NOT_FOUND"):
        beanstalk_length(b"NOT_FOUND\r\n")


def test_a_worker_completes_what_it_claimed_under_its_lease_and_ends_when_there_is_no_more() -> None:
    run = Run(Slice("work", 1, 1, 60, workers=("secret",)))
    script = work(run, 0)
    assert b"GET /jobs/next " in next(script)
    sent = script.send(b'HTTP/1.1 200 OK\r\n\r\n{"job":{"id":"abc","lease_epoch":3,"lease_seconds":60}}')
    assert sent.startswith(b"POST /jobs/abc/result ")
    assert b'"lease_epoch": 3' in sent
    assert b"X-Worker-Token: secret\r\n" in sent
    script.send(b'HTTP/1.1 200 OK\r\n\r\n{"ok":true}')
    with pytest.raises(StopIteration):
        script.send(b'HTTP/1.1 200 OK\r\n\r\n{"job":null}')
    assert (run.result.done, len(run.result.waits)) == (1, 2)


def test_the_broker_has_the_roles_environment() -> None:
    environment = role_environment(PROJECT)
    assert environment["BROKER_DB"] == f"{PROJECT}/broker.db"
    assert environment["MAX_QUEUED_JOBS"] == "1000000"
    assert environment["LEASE_SECONDS"] == "60"
