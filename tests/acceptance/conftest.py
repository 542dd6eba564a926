"""One fleet for all tests of this folder: brought up once, interrupted first, and taken down by the last test."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from tests.support import traces
from tests.support.fleet import Submitter, TestFleet
from tests.support.lab import missing

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@dataclass
class Deployment:
    """How the fleet came up: what was on the machine before, and what both runs of `fleet up` printed."""

    traces_before: set[str]
    first: str
    second: str


@pytest.fixture(scope="session")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.getbasetemp().parent


@pytest.fixture(scope="session")
def _fleet() -> Iterator[TestFleet]:
    if lacking := missing():
        pytest.skip(lacking)
    fleet = TestFleet("test-fleet")
    fleet.lab.run("down")
    yield fleet
    fleet.lab.run("down")


@pytest.fixture(scope="session")
def deployment(_fleet: TestFleet, scratch: Path) -> Deployment:
    before = traces.take(_fleet.lab.name, ignored=scratch)
    # Killed in the middle of the deployment; the next one must make good what it left half done.
    _fleet.kill_up(after="deployment")
    runs = [_fleet.fleet("up", timeout=900) for _ in range(2)]
    for run in runs:
        assert run.returncode == 0, run.stdout + run.stderr
    return Deployment(before, runs[0].stdout, runs[1].stdout)


@pytest.fixture(scope="session")
def fleet(_fleet: TestFleet, deployment: Deployment) -> TestFleet:
    assert deployment
    return _fleet


@pytest.fixture
def submitter(fleet: TestFleet) -> Iterator[Submitter]:
    with fleet.token("bot", "tests") as token:
        client = Submitter(fleet.url, token)
        yield client
        client.close()
