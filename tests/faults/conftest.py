"""One fleet for all tests of this folder."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.faults.stand import Stand, deployed
from tests.support.lab import missing

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="package")
def _stand() -> Iterator[Stand]:
    if lacking := missing():
        pytest.skip(lacking)
    with deployed("test-faults") as stand:
        yield stand


@pytest.fixture
def stand(_stand: Stand) -> Iterator[Stand]:
    """The fleet, whole at the beginning and made so again."""
    _stand.all_well()
    yield _stand
    _stand.all_well()
