"""The judges of the soak: what they call lost, doubled, stuck, and held by nobody."""

from __future__ import annotations

import pytest

from tests.faults.ledger import Audit, Book, Span, audit
from tests.faults.vigil import Delivery, Spells

_WHOLE = "start j a 10.0\nend j a 12.0\n"
_CUT = "start j a 10.0\ntick j a 11.0\n"
_SECOND = "start j b 30.0\nend j b 31.0\n"


@pytest.mark.parametrize(
    ("status", "lines", "deaths", "verdict"),
    [
        ("done", _WHOLE, [], None),
        (None, _WHOLE, [], "lost"),
        ("failed", _WHOLE, [], "lost"),
        ("done", "", [], "lost"),
        ("done", _CUT, [], "lost"),
        ("done", _WHOLE + _CUT.replace(" a ", " b ").replace("1", "3"), [Span(11, 11)], "lost"),
        ("cancelled", _CUT, [], None),
        ("cancelled", "", [], None),
        ("cancelled", _CUT + _SECOND, [], "doubled"),
        ("queued", "", [], "stuck"),
        ("running", _CUT, [], "stuck"),
        ("done", _CUT + _SECOND, [Span(11, 11.5)], None),
        ("done", _WHOLE + _SECOND, [Span(12.5, 13)], None),
        ("done", _CUT + _SECOND, [], "doubled"),
        ("done", _WHOLE + _SECOND, [], "doubled"),
        ("done", _WHOLE + _SECOND, [Span(8, 9)], "doubled"),
        ("done", _WHOLE + _SECOND, [Span(20, 21)], "doubled"),
        ("done", _WHOLE + _SECOND.replace("30", "11"), [Span(11, 11)], "doubled"),
    ],
)
def test_a_verdict(status: str | None, lines: str, deaths: list[Span], verdict: str | None) -> None:
    book = Book()
    for line in lines.splitlines():
        book.add(*line.split())
    assert audit({"j": status}, book, {"j": deaths}) == Audit(**({verdict: ["j"]} if verdict else {}))


@pytest.mark.parametrize(
    ("looks", "longest", "unseen"),
    [
        ([(1, ""), (2, "")], 0, 1),
        ([(1, ""), (2, "a"), (3, "a"), (4, "")], 3, 1),
        ([(1, ""), (2, "a"), (5, "")], 4, 3),
        ([(1, ""), (2, "a"), (3, "b"), (4, "")], 2, 1),
        ([(1, ""), (2, "a"), (4, None), (9, "a")], 5, 5),
    ],
)
def test_spells(looks: list[tuple[float, str | None]], longest: float, unseen: float) -> None:
    """Times, and what was held by nobody then; None is an interruption."""
    spells = Spells(0)
    for now, jobs in looks:
        if jobs is None:
            spells.interrupted(now)
        else:
            spells.looked([Delivery(job, 1) for job in jobs], now, now)
    assert (spells.longest, spells.unseen) == (longest, unseen)
