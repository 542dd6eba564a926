"""What agents log is kept within bounds."""

from __future__ import annotations

from broker_app.logs import MAX_LINES, Logs


def test_the_lines_of_an_agent_are_bounded() -> None:
    logs = Logs()
    logs.add("a", None, [str(n) for n in range(MAX_LINES + 500)])
    assert [line.text for line in logs.since("a", 0, 10**6)] == [str(n) for n in range(500, MAX_LINES + 500)]


def test_the_agents_that_are_remembered_are_bounded() -> None:
    logs = Logs()
    for n in range(1001):
        logs.add(str(n), None, ["x"])
    assert logs.since("0", 0, 1) == []
    assert len(logs.since("1", 0, 1)) == len(logs.since("1000", 0, 1)) == 1
