"""Times as people write and read them."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from fleet import times
from fleet.errors import FleetError

if TYPE_CHECKING:
    from collections.abc import Iterator

NOW = 1_700_000_000.0


@pytest.mark.parametrize(("text", "seconds"), [("0s", 0), ("30s", 30), ("10m", 600), ("2h", 7200), ("1d", 86400)])
def test_a_delay_counts_from_now(text: str, seconds: int) -> None:
    assert times.later(text).at(NOW) == NOW + seconds


@pytest.mark.parametrize(
    "text", ["2023-11-14T22:13:20Z", "2023-11-14T23:13:20+01:00", "2023-11-14 22:13:20+00:00", "20231114T221320Z"]
)
def test_a_time_is_the_same_whenever_it_is_said(text: str) -> None:
    assert times.later(text).at(0) == times.later(text).at(NOW) == NOW


@pytest.fixture
def _in_tokyo(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with monkeypatch.context() as here:
        here.setenv("TZ", "Asia/Tokyo")
        time.tzset()
        yield
    time.tzset()


@pytest.mark.usefixtures("_in_tokyo")
def test_a_time_without_a_zone_is_of_the_clock_here() -> None:
    assert times.later("2023-11-15T07:13:20").at(0) == NOW
    assert times.moment(NOW) == "2023-11-15 07:13:20"


@pytest.mark.parametrize(
    "text", ["", "soon", "30", "-5s", "1.5h", "5 m", "10M", "1h30m", "2026-13-01", "0001-01-01", "٣s"]
)
def test_what_is_no_time_is_refused_with_examples(text: str) -> None:
    with pytest.raises(FleetError, match="say 30s, 10m, 2h, 1d or a time such as"):
        times.later(text)


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(-3, "0s"), (0, "0s"), (59.9, "59s"), (60, "1m"), (3599, "59m"), (7200, "2h"), (86400, "1d"), (864000, "10d")],
)
def test_a_span_is_told_in_its_largest_unit(seconds: float, words: str) -> None:
    assert times.span(seconds) == words
