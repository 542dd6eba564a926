"""A minute of `make soak`, always the same one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.faults.soak import Soak

if TYPE_CHECKING:
    from pathlib import Path

    from tests.faults.stand import Stand


def test_random_faults_lose_and_double_nothing(stand: Stand, tmp_path: Path) -> None:
    report = Soak(stand, 4, tmp_path).run(60)
    print(report)
    assert report.jobs > 30
    assert report.kills > 3
    assert report.is_good, f"{report}: {report.audit}"
