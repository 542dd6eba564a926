"""What is written about the roles' variables, in docs and in the inventory, is what they have."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

PROJECT = Path(__file__).resolve().parents[3]
SPECS = {
    path.parents[1].name: yaml.safe_load(path.read_text())["argument_specs"]["main"]
    for path in sorted(PROJECT.glob("roles/*/meta/argument_specs.yml"))
}
KNOWN = {name for spec in SPECS.values() for name in spec["options"]}
INVENTORY = sorted([*PROJECT.glob("inventory/fleet.yml"), *PROJECT.glob("inventory/group_vars/*.yml")])
INVENTORY += sorted(PROJECT.glob("docs/examples/*.yml"))
PROSE = [PROJECT / "README.md", *sorted(PROJECT.glob("docs/*.md"))]
# Words that look like a role's variable, and are the apps' names or what they say of themselves.
OF_THE_APPS = {"broker_app", "runner_app", "runner_version"}
# What roles tell others as facts.
FACTS = set(
    re.findall(r"^    (tailscale_\w+): .*__tail", (PROJECT / "roles/tailscale/tasks/run.yml").read_text(), re.M)
)


def options(options_: dict[str, Any], above: str = "") -> dict[str, dict[str, Any]]:
    """Return every option by its path, those of elements too."""
    found: dict[str, dict[str, Any]] = {}
    for name, option in options_.items():
        found[above + name] = option
        found |= options(option.get("options", {}), f"{above}{name}.")
    return found


NESTED = [
    (role, path.rpartition(".")[2], option["default"])
    for role, spec in SPECS.items()
    for path, option in options(spec["options"]).items()
    if "." in path and "default" in option
]


def test_the_committed_reference_is_what_the_roles_say() -> None:
    printed = subprocess.run(
        [sys.executable, PROJECT / "scripts/reference.py"], capture_output=True, text=True, check=True
    ).stdout

    assert (PROJECT / "docs/reference.md").read_text() == printed, "say make reference"


@pytest.mark.parametrize("role", SPECS)
def test_every_option_stands_in_the_reference(role: str) -> None:
    text = (PROJECT / "docs/reference.md").read_text()

    assert not [path for path in options(SPECS[role]["options"]) if f"`{path.replace('.', '[].', 1)}" not in text]


@pytest.mark.parametrize(("role", "field", "default"), NESTED)
def test_the_role_takes_the_stated_default_of_a_field(role: str, field: str, default: Any) -> None:
    """Ansible checks fields of elements and fills none in: each place that reads one has the default."""
    files = [path for part in ("tasks", "templates", "vars") for path in (PROJECT / "roles" / role / part).iterdir()]
    text = "\n".join(path.read_text() for path in files)
    taken = re.findall(rf"(?:\.{field} \| default\(|\.get\('{field}', )(.*?)\)", text)

    assert {yaml.safe_dump(yaml.safe_load(each)) for each in taken} == {yaml.safe_dump(default)}


@pytest.mark.parametrize("path", INVENTORY, ids=lambda path: str(path.relative_to(PROJECT)))
def test_the_inventory_sets_known_variables_only(path: Path) -> None:
    """One that no role has must be read by another variable of the inventory."""
    loaded = yaml.safe_load(path.read_text())
    hosts = loaded.get("all", {}).get("hosts", {}).values()
    names = {name for host in hosts for name in host} | set(loaded.get("all", {}).get("vars", {}))
    names |= set(loaded) - {"all"}
    read = "\n".join(re.sub(r"(?m)#.*$|^ *\w+:", "", file.read_text()) for file in INVENTORY)
    own = {name for name in names - KNOWN if not name.startswith("ansible_")}

    assert not [name for name in own if not re.search(rf"\b{name}\b", read)]


@pytest.mark.parametrize("path", PROSE, ids=lambda path: path.name)
def test_prose_names_known_variables_only(path: Path) -> None:
    named = set(re.findall(rf"\b(?:{'|'.join(SPECS)})_[a-z_]+\b", path.read_text()))

    assert named - KNOWN - OF_THE_APPS - FACTS == set()
