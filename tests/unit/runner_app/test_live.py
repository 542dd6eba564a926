"""What a running job's lines are."""

from __future__ import annotations

from typing import TYPE_CHECKING

from runner_app.health import Health
from runner_app.live import MOST_BYTES, MOST_CHARACTERS, Live, look_seconds

if TYPE_CHECKING:
    from pathlib import Path


def test_lines_are_told_once_and_whole(tmp_path: Path) -> None:
    live = Live(tmp_path, from_now=False)
    assert live.lines(ended=False) == []
    (tmp_path / "stdout").write_text("one\ntw")
    (tmp_path / "stderr").write_text("why\n")
    assert live.lines(ended=False) == ["one", "why"]
    (tmp_path / "stdout").write_text("one\ntwo\nthree")
    assert live.lines(ended=False) == ["two"]
    assert live.lines(ended=True) == ["three"]
    assert live.lines(ended=True) == []


def test_of_too_much_the_end_is_told(tmp_path: Path) -> None:
    live = Live(tmp_path, from_now=False)
    (tmp_path / "stdout").write_text("a" * MOST_BYTES + "b" * 9 + "\nend\n")
    first, line, end = live.lines(ended=False)
    assert (first, end) == ("(14 bytes are left out)", "end")
    assert line == "a" * MOST_CHARACTERS


def test_a_line_that_does_not_end_is_told_in_parts(tmp_path: Path) -> None:
    live = Live(tmp_path, from_now=False)
    (tmp_path / "stdout").write_text("a" * MOST_BYTES)
    assert live.lines(ended=False) == ["a" * MOST_CHARACTERS]
    assert live.lines(ended=False) == []


def test_what_an_earlier_runner_told_is_not_told_again(tmp_path: Path) -> None:
    (tmp_path / "stdout").write_text("before\n")
    live = Live(tmp_path, from_now=True)
    with (tmp_path / "stdout").open("a") as file:
        file.write("after\n")
    assert live.lines(ended=False) == ["after"]


def test_many_jobs_together_write_no_more_often_than_a_hub_reads() -> None:
    assert look_seconds(1) == look_seconds(25) == 1
    assert look_seconds(64) == 64 / 25


def test_health_is_in_percent(tmp_path: Path) -> None:
    health = Health(tmp_path)
    for _ in range(2):
        said = health()
        assert list(said) == ["cpu", "memory", "disk"]
        assert all(0 <= share <= 100 for share in said.values())
    assert said["memory"] > 0
    assert said["disk"] > 0
