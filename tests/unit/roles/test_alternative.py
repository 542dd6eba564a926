"""The scenario `alternative` of each role sets every variable off its default, and says why where it does not."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

if TYPE_CHECKING:
    from collections.abc import Iterator

PROJECT = Path(__file__).resolve().parents[3]
ROLES = sorted(path.name for path in (PROJECT / "roles").iterdir() if path.is_dir())
SWITCHED_OFF = "tests/molecule/test_fresh_hosts.py"
# Variables that the scenario leaves alone, and where their other value is tried.
ELSEWHERE = {
    "base_enabled": SWITCHED_OFF,
    "broker_enabled": SWITCHED_OFF,
    "broker_remove_data": SWITCHED_OFF,
    "runner_enabled": SWITCHED_OFF,
    "runner_remove_home": SWITCHED_OFF,
    "tailscale_enabled": SWITCHED_OFF,
    "tailscale_version": "tests/unit/plugins/test_tailscale_archive.py",
}


def specs(role: str) -> dict[str, Any]:
    loaded = yaml.safe_load((PROJECT / f"roles/{role}/meta/argument_specs.yml").read_text())
    options: dict[str, Any] = loaded["argument_specs"]["main"]["options"]
    return options


def scenario(role: str) -> dict[str, Any]:
    """Return the variables of the play that has the role."""
    plays = yaml.safe_load((PROJECT / f"roles/{role}/molecule/alternative/converge.yml").read_text())
    (variables,) = [play["vars"] for play in plays if play["roles"] == [{"role": role}]]
    assert isinstance(variables, dict)
    return variables


def unchanged(options: dict[str, Any], values: list[dict[str, Any]], above: str = "") -> Iterator[str]:
    """Yield the options, those of elements too, that none of the values sets off its default."""
    for name, option in options.items():
        found = [value[name] for value in values if name in value]
        if not [value for value in found if value != option.get("default")]:
            yield f"{above}{name}"
            continue
        inside = [each for value in found for each in (value if isinstance(value, list) else [value])]
        yield from unchanged(option.get("options", {}), inside, f"{above}{name}.")


@pytest.mark.parametrize("role", ROLES)
def test_every_variable_is_off_its_default(role: str) -> None:
    assert set(unchanged(specs(role), [scenario(role)])) == {name for name in ELSEWHERE if name.startswith(f"{role}_")}


@pytest.mark.parametrize(("name", "place"), ELSEWHERE.items())
def test_the_others_are_tried_where_that_is_said(name: str, place: str) -> None:
    text = (PROJECT / place).read_text()

    assert name.rpartition(".")[2].partition("_enabled")[0] in text
