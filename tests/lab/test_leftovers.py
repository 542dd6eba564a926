"""`make down` leaves nothing, whenever `make up` was killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.support import traces
from tests.support.lab import PROJECT, TestLab

# Seconds into `up`: before the hosts, while they boot, at the start of the deployment, and well into it. On a fast
# machine the last may find it at its end, which is a moment like the others.
_MOMENTS = (0.4, 1.2, 2.2, 4.0, 9.0, 20.0)


def _start_up(lab: TestLab) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [str(Path(sys.executable).with_name("fleet")), "--lab", "up"],
        cwd=PROJECT,
        env={**os.environ, "OPENCLAW_LAB": lab.name},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


@pytest.fixture(scope="module")
def lab() -> TestLab:
    lab = TestLab("test-leftovers")
    lab.run("down")
    return lab


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.getbasetemp().parent


@pytest.fixture(scope="module")
def before(lab: TestLab, scratch: Path) -> set[str]:
    return traces.take(lab.name, ignored=scratch)


@pytest.mark.parametrize("moment", _MOMENTS)
def test_down_leaves_nothing_of_an_up_that_was_killed(
    lab: TestLab, before: set[str], scratch: Path, moment: float
) -> None:
    up = _start_up(lab)
    time.sleep(moment)
    up.send_signal(signal.SIGKILL)
    up.wait()
    lab.run("down")
    left = traces.take(lab.name, ignored=scratch) - before
    assert not left, "\n".join(sorted(left))
