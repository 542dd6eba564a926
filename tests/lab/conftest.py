"""Tests of the lab itself; each module has a lab of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.lab import TestLab, missing

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="session", autouse=True)
def _requirements() -> None:
    if lacking := missing():
        pytest.skip(lacking)


@pytest.fixture(scope="module")
def lab() -> Iterator[TestLab]:
    """Two hosts, one of each Debian."""
    lab = TestLab("test-machines")
    lab.run("down")
    lab.run("create", "debian12", "debian13:debian-13", timeout=900)
    yield lab
    lab.run("down")
