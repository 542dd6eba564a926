"""The stand-ins of both APIs, once per file of tests."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.engine import Apis
from tests.support.hetzner import cloud, hetzner

if TYPE_CHECKING:
    from collections.abc import Iterator


__all__ = ["apis", "cloud", "hetzner"]


@pytest.fixture(scope="module")
def apis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Apis]:
    with Apis(tmp_path_factory.mktemp("apis")) as apis:
        yield apis
