"""What agents log is kept within bounds."""

from __future__ import annotations

from broker_app.logs import MAX_LINE, MAX_LINES, Logs


def test_the_lines_of_an_agent_are_bounded() -> None:
    logs = Logs()
    logs.add("a", None, [str(n) for n in range(MAX_LINES + 500)])
    assert [line.text for line in logs.since("a", 0, 10**6)] == [str(n) for n in range(500, MAX_LINES + 500)]


def test_the_lines_of_all_agents_are_bounded_and_go_first_where_nothing_was_logged_for_longest() -> None:
    logs = Logs(most=100_000)
    for agent in "abca":
        logs.add(agent, None, [f"{agent}{n}".ljust(MAX_LINE) for n in range(7)])
    kept = {agent: [line.text.rstrip() for line in logs.since(agent, 0, 99)] for agent in "abc"}
    assert kept == {"a": [f"a{n}" for n in [*range(7), *range(7)]], "b": ["b6"], "c": [f"c{n}" for n in range(7)]}


def test_what_is_forgotten_or_was_dropped_takes_no_room() -> None:
    logs = Logs(most=400_000)
    logs.add("a", None, ["x"])
    for _ in range(9):
        logs.add("b", None, ["x"] * (MAX_LINES + 100))
        logs.forget("b")
    assert len(logs.since("a", 0, 9)) == 1


def test_wide_characters_take_more_room() -> None:
    logs = Logs(most=20_000)
    logs.add("a", None, ["x"] * 10)
    logs.add("a", None, ["\N{GRINNING FACE}" * MAX_LINE])
    logs.add("a", None, ["\N{GRINNING FACE}" * MAX_LINE])
    assert len(logs.since("a", 0, 99)) == 1


def test_nothing_is_logged_by_no_lines() -> None:
    logs = Logs(most=0)
    logs.add("a", None, [])
    assert logs.since("a", 0, 1) == []
