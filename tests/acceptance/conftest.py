"""One fleet for all tests of this folder: brought up once, interrupted first, and taken down by the last test."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from tests.support import ansible
from tests.support.fleet import CONVERGED, Submitter, TestFleet
from tests.support.lab import missing

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Iterator
    from pathlib import Path


@dataclass
class Deployment:
    """How the fleet came up: what both runs of `fleet up` printed, what the second one ran."""

    fleet: TestFleet
    first: str
    second: str
    second_modules: Counter[str]


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
def deployment(_fleet: TestFleet, tmp_path_factory: pytest.TempPathFactory) -> Deployment:
    # Killed in the middle of the deployment; the next one must make good what it left half done.
    _fleet.kill_up(after="deployment")
    logs = [tmp_path_factory.mktemp("deployment") / name for name in ("first.log", "second.log")]
    runs = [_fleet.fleet("up", timeout=900, settings=ansible.logged(log)) for log in logs]
    for run in runs:
        assert run.returncode == 0, run.stdout + run.stderr
    modules = ansible.module_runs(logs[1].read_text())
    return Deployment(_fleet, runs[0].stdout, runs[1].stdout, modules)


@pytest.fixture(scope="session")
def fleet(request: pytest.FixtureRequest) -> TestFleet:
    if purpose := os.environ.get(CONVERGED):
        return TestFleet(purpose)
    deployment: Deployment = request.getfixturevalue("deployment")
    return deployment.fleet


@pytest.fixture
def submitter(fleet: TestFleet) -> Iterator[Submitter]:
    with fleet.token("bot", "tests") as token:
        client = Submitter(fleet.url, token)
        yield client
        client.close()
