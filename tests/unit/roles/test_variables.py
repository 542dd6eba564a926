"""What a role's variables promise: documented, named by their tier, and read by something."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

PROJECT = Path(__file__).resolve().parents[3]
ROLES = sorted(path.parent.parent.name for path in PROJECT.glob("roles/*/meta/argument_specs.yml"))


def load(path: Path) -> dict[str, Any]:
    loaded = yaml.safe_load(path.read_text())
    assert isinstance(loaded, dict)
    return loaded


def specs(role: str) -> dict[str, Any]:
    found = load(PROJECT / "roles" / role / "meta/argument_specs.yml")["argument_specs"]["main"]["options"]
    assert isinstance(found, dict)
    return found


def defaults(role: str) -> dict[str, Any]:
    return load(PROJECT / "roles" / role / "defaults/main.yml")


def texts(role: str) -> str:
    files = [path for path in (PROJECT / "roles" / role).rglob("*") if path.suffix in (".yml", ".j2")]
    return "\n".join(path.read_text() for path in files if "molecule" not in path.parts and "meta" not in path.parts)


def test_every_role_states_its_variables() -> None:
    assert sorted(path.name for path in (PROJECT / "roles").iterdir() if path.is_dir()) == ROLES


@pytest.mark.parametrize("role", ROLES)
def test_defaults_and_argument_specs_name_the_same(role: str) -> None:
    assert list(defaults(role)) == list(specs(role))


@pytest.mark.parametrize("role", ROLES)
def test_defaults_and_argument_specs_give_the_same_values(role: str) -> None:
    assert {name: spec["default"] for name, spec in specs(role).items()} == defaults(role)


@pytest.mark.parametrize("role", ROLES)
def test_public_names_begin_with_the_role(role: str) -> None:
    assert not [name for name in defaults(role) if not name.startswith(f"{role}_")]


@pytest.mark.parametrize("role", ROLES)
def test_derived_names_begin_with_an_underscore_and_the_role(role: str) -> None:
    assert not [name for name in load(PROJECT / "roles" / role / "vars/main.yml") if not name.startswith(f"_{role}_")]


@pytest.mark.parametrize("role", ROLES)
def test_every_variable_is_read(role: str) -> None:
    names = [*defaults(role), *load(PROJECT / "roles" / role / "vars/main.yml")]
    text = texts(role)

    assert not [name for name in names if len(re.findall(rf"\b{name}\b", text)) < 2]


@pytest.mark.parametrize("role", ROLES)
def test_every_template_is_placed(role: str) -> None:
    text = texts(role)

    assert not [path.name for path in (PROJECT / "roles" / role / "templates").iterdir() if path.name not in text]


@pytest.mark.parametrize("role", ROLES)
def test_every_default_has_its_comment(role: str) -> None:
    blocks = (PROJECT / "roles" / role / "defaults/main.yml").read_text().removeprefix("---\n").split("\n\n")

    assert not [block for block in blocks if not block.startswith("# ")]


@pytest.mark.parametrize("role", ROLES)
def test_secrets_are_marked(role: str) -> None:
    secret = {name for name in defaults(role) if name.endswith(("_token", "_password", "_key", "_keys"))}

    assert secret == {name for name, spec in specs(role).items() if spec.get("no_log")}


def test_the_lab_rehearses_the_version_of_tailscale_that_the_role_installs() -> None:
    pinned = re.findall(r"(?m)^\s*tailscale\.com v(\S+)", (PROJECT / "lab/tools/tailscale/go.mod").read_text())

    assert pinned == [defaults("tailscale")["tailscale_version"]]
