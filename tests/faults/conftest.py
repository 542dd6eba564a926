"""One fleet for all tests of this folder, with leases short enough to see them run out."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.faults.stand import LEASE_SECONDS, Stand
from tests.support.fleet import TestFleet
from tests.support.lab import missing

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="session")
def _stand() -> Iterator[Stand]:
    if lacking := missing():
        pytest.skip(lacking)
    fleet = TestFleet("test-faults")
    fleet.lab.run("down")
    try:
        up = fleet.fleet("up", timeout=900)
        assert up.returncode == 0, up.stdout + up.stderr
        setting = f"sed -i s/^LEASE_SECONDS=.*/LEASE_SECONDS={LEASE_SECONDS}/ /etc/openclaw/broker.env"
        fleet.host("broker-1").run_expect([0], f"{setting} && systemctl restart openclaw-broker")
        with fleet.token("bot", "faults") as token:
            stand = Stand(fleet, token)
            yield stand
            stand.bot.close()
    finally:
        fleet.lab.run("down")


@pytest.fixture
def stand(_stand: Stand) -> Iterator[Stand]:
    """The fleet, whole at the beginning and made so again."""
    _stand.all_well()
    yield _stand
    _stand.all_well()
