"""Every Molecule scenario of every role: converge, idempotence, check, verify."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from fleet import inventory
from tests.support.lab import PROJECT, missing

_SECONDS = 900
_SCENARIOS = sorted(path.parent for path in PROJECT.glob("roles/*/molecule/*/molecule.yml"))


def _title(scenario: Path) -> str:
    return f"{scenario.parts[-3]}-{scenario.name}"


@pytest.mark.parametrize("name", ["default", "alternative"])
def test_every_role_has_the_scenario(name: str) -> None:
    roles = {path.name for path in (PROJECT / "roles").iterdir() if path.is_dir()}
    assert {scenario.parts[-3] for scenario in _SCENARIOS if scenario.name == name} == roles


@pytest.mark.parametrize("scenario", _SCENARIOS, ids=_title)
def test_scenario(scenario: Path) -> None:
    if lacking := missing():
        pytest.skip(lacking)
    programs = Path(sys.executable).parent
    done = subprocess.run(
        [str(programs / "molecule"), "test", "--scenario-name", scenario.name],
        cwd=scenario.parents[1],
        env={**inventory.environment(), "NO_COLOR": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=_SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-8000:]
