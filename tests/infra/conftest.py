"""The stand-ins of both APIs, once per file of tests."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest

from tests.support.engine import Apis
from tests.support.hetzner import cloud, hetzner
from tests.support.kit import Fleet

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


__all__ = ["apis", "cloud", "hetzner"]


@pytest.fixture(scope="module")
def apis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Apis]:
    with Apis(tmp_path_factory.mktemp("apis")) as apis:
        yield apis


@pytest.fixture(scope="module")
def grown(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a fleet that is up."""
    folder = tmp_path_factory.mktemp("fleet")
    with Apis(folder / "apis") as apis:
        Fleet(folder / "stack", apis).up()
    return folder


@pytest.fixture
def fleet(grown: Path, tmp_path: Path) -> Iterator[Fleet]:
    shutil.copytree(grown, tmp_path / "fleet")
    with Apis(tmp_path / "fleet/apis") as apis:
        yield Fleet(tmp_path / "fleet/stack", apis)


@pytest.fixture
def new(tmp_path: Path) -> Iterator[Fleet]:
    """Return a fleet of which nothing is there yet."""
    with Apis(tmp_path / "apis") as apis:
        yield Fleet(tmp_path / "stack", apis)


@pytest.fixture
def selected(new: Fleet, monkeypatch: pytest.MonkeyPatch) -> Fleet:
    """Return a new fleet whose stack is the selected one."""
    for name, value in new.environment().items():
        monkeypatch.setenv(name, value)
    return new
