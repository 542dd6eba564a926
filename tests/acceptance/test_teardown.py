"""The last of this folder's files: `down` leaves nothing of the fleet, whatever the tests did to it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.support import traces

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.fleet import TestFleet


def test_down_leaves_nothing_behind(fleet: TestFleet, scratch: Path) -> None:
    assert traces.named(fleet.lab.name, ignored=scratch)
    down = fleet.fleet("down")
    assert down.returncode == 0, down.stderr
    left = traces.named(fleet.lab.name, ignored=scratch)
    assert not left, "\n".join(sorted(left))
