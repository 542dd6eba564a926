"""`make down` leaves nothing, whether `make up` came to its end or was killed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from lab.process import wait_until
from tests.support import traces
from tests.support.fleet import TestFleet

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

# What is in the lab's folder when `up` is killed: the first namespace, of the stack's services the last, a server that
# Pulumi made, and an agent's disk, which the deployment made.
_MOMENTS = (
    "netns/lab",
    "cloud/tailscale-api.port",
    "hosts/*/spec.json",
    "hosts/*/upper/var/lib/openclaw/volumes/*.ext4",
)
_UP_SECONDS = 300
# With the tools and images that the first one makes where the cache has none.
_FIRST_UP_SECONDS = 1800


@pytest.fixture(scope="module")
def fleet() -> TestFleet:
    fleet = TestFleet("test-leftovers")
    fleet.lab.run("down")
    return fleet


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.getbasetemp().parent


@pytest.fixture(scope="module")
def before(fleet: TestFleet, scratch: Path) -> set[str]:
    return traces.take(fleet.lab.name, ignored=scratch)


@pytest.fixture
def _down_leaves_nothing(fleet: TestFleet, before: set[str], scratch: Path) -> Iterator[None]:
    yield
    fleet.lab.run("down")
    left = traces.take(fleet.lab.name, ignored=scratch) - before
    assert not left, "\n".join(sorted(left))


@pytest.mark.usefixtures("_down_leaves_nothing")
def test_down_leaves_nothing_of_an_up(fleet: TestFleet) -> None:
    up = fleet.fleet("up", timeout=_FIRST_UP_SECONDS)
    assert up.returncode == 0, up.stdout + up.stderr


@pytest.mark.usefixtures("_down_leaves_nothing")
@pytest.mark.parametrize("moment", _MOMENTS)
def test_down_leaves_nothing_of_an_up_that_was_killed(fleet: TestFleet, moment: str) -> None:
    with fleet.started("up"):
        wait_until(lambda: any(fleet.lab.lab.folder.glob(moment)) or None, what=moment, timeout=_UP_SECONDS)
