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
    # Other tests run beside this one; a lease is 60 s.
    assert report.is_good(most_unheld=5), f"{report}\n{report.audit}"
    assert report.jobs > report.kills + report.partitions
    assert report.kills >= 3
    assert report.partitions >= 1
