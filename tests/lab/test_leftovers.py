"""`make down` leaves nothing, whenever `make up` was killed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from lab.process import wait_until
from tests.support import traces
from tests.support.lab import PROJECT, TestLab

# What is in the lab's folder when `up` is killed: the first namespace, of the stack's services the last, a server that
# Pulumi made, and an agent's disk, which the deployment made.
_MOMENTS = (
    "netns/lab",
    "cloud/tailscale-api.port",
    "hosts/*/spec.json",
    "hosts/*/upper/var/lib/openclaw/volumes/*.ext4",
)
_UP_SECONDS = 300


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
    lab: TestLab, before: set[str], scratch: Path, moment: str
) -> None:
    up = _start_up(lab)
    try:
        wait_until(lambda: any(lab.lab.folder.glob(moment)) or None, what=moment, timeout=_UP_SECONDS)
    finally:
        up.kill()
        up.wait()
        lab.run("down")
    left = traces.take(lab.name, ignored=scratch) - before
    assert not left, "\n".join(sorted(left))
