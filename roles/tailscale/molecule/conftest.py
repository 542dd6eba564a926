"""Fixtures of all scenarios of this role."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.molecule import INVENTORY, other, root

if TYPE_CHECKING:
    from testinfra.host import Host

__all__ = ["neighbour", "root", "way_in"]
OTHER = {"bookworm": "trixie", "trixie": "bookworm"}


@pytest.fixture(scope="session")
def way_in() -> dict[str, Any]:
    """What `python -m lab tailnet` says of the tailnet."""
    loaded: dict[str, Any] = json.loads((INVENTORY.parent / "tailnet.json").read_text())
    return loaded


@pytest.fixture
def neighbour(host: Host) -> Host:
    """The other host of the scenario."""
    return other(OTHER[host.backend.get_hostname()])
