"""Every Molecule scenario of every role: converge, idempotence, check, verify."""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from fleet import inventory
from tests.support import programs
from tests.support.lab import PROJECT, missing

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterator
    from concurrent.futures import Future

_SECONDS = 900
# A scenario waits on one host at a time, so two of them fill a small machine; each has a lab of its own.
_AT_ONCE = 2
# The tailnet's take longest, and so begin.
_SCENARIOS = sorted((path.parent for path in PROJECT.glob("roles/*/molecule/*/molecule.yml")), reverse=True)

Runs = dict[Path, "Future[subprocess.CompletedProcess[str]]"]


def _title(scenario: Path) -> str:
    return f"{scenario.parts[-3]}-{scenario.name}"


def _run(scenario: Path) -> subprocess.CompletedProcess[str]:
    return programs.run(
        [str(Path(sys.executable).with_name("molecule")), "test", "--scenario-name", scenario.name],
        cwd=scenario.parents[1],
        environment={**inventory.environment(), "NO_COLOR": "1"},
        timeout=_SECONDS,
        merged=True,
    )


@pytest.fixture(scope="module")
def runs(request: pytest.FixtureRequest) -> Iterator[Runs]:
    """Start the scenarios of all tests that were asked for."""
    if lacking := missing():
        pytest.skip(lacking)
    asked = {item.name for item in request.session.items}
    wanted = [scenario for scenario in _SCENARIOS if f"test_scenario[{_title(scenario)}]" in asked]
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        yield {scenario: pool.submit(_run, scenario) for scenario in wanted}


@pytest.mark.parametrize("name", ["default", "alternative"])
def test_every_role_has_the_scenario(name: str) -> None:
    roles = {path.name for path in (PROJECT / "roles").iterdir() if path.is_dir()}
    assert {scenario.parts[-3] for scenario in _SCENARIOS if scenario.name == name} == roles


@pytest.mark.parametrize("scenario", _SCENARIOS, ids=_title)
def test_scenario(runs: Runs, scenario: Path) -> None:
    done = runs[scenario].result()
    assert done.returncode == 0, done.stdout[-8000:]
