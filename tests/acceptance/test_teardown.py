"""The last of this folder's files: `down` leaves nothing of the fleet."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.support import traces

if TYPE_CHECKING:
    from pathlib import Path

    from tests.acceptance.conftest import Deployment
    from tests.support.fleet import TestFleet


def test_down_leaves_nothing_behind(fleet: TestFleet, deployment: Deployment, scratch: Path) -> None:
    down = fleet.fleet("down")
    assert down.returncode == 0, down.stderr
    left = traces.take(fleet.lab.name, ignored=scratch) - deployment.traces_before
    assert not left, "\n".join(sorted(left))
