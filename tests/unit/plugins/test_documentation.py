"""A module's documentation and what it accepts are the same."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

import pytest
import yaml

MODULES = sorted((Path(__file__).resolve().parents[3] / "plugins/modules").glob("*.py"))


def constants(path: Path) -> dict[str, ast.expr]:
    tree = ast.parse(path.read_text())
    found: dict[str, ast.expr] = {}
    for node in tree.body:
        target = node.targets[0] if isinstance(node, ast.Assign) else getattr(node, "target", None)
        if isinstance(node, ast.Assign | ast.AnnAssign) and node.value and isinstance(target, ast.Name):
            found[target.id] = node.value
    return found


def argument_spec(path: Path) -> dict[str, Any]:
    """Return the module's own, with the constant for suboptions put in."""
    known = constants(path)
    calls = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
    call = next(call for call in calls if isinstance(call.func, ast.Name) and call.func.id == "AnsibleModule")
    text = ast.unparse(next(keyword.value for keyword in call.keywords if keyword.arg == "argument_spec"))
    if "SUBOPTIONS" in known:
        text = text.replace("SUBOPTIONS", ast.unparse(known["SUBOPTIONS"]))
    spec: dict[str, Any] = ast.literal_eval(text)
    return spec


def documented(options: dict[str, Any]) -> dict[str, Any]:
    """Return documented options in the form of an argument spec."""
    spec: dict[str, Any] = {}
    for name, option in options.items():
        spec[name] = {key: value for key, value in option.items() if key not in ("description", "suboptions")}
        if "suboptions" in option:
            spec[name]["options"] = documented(option["suboptions"])
    return spec


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.stem)
def test_documentation_and_argument_spec_agree(path: Path) -> None:
    loaded = yaml.safe_load(ast.literal_eval(constants(path)["DOCUMENTATION"]))
    accepted = argument_spec(path)
    for option in accepted.values():
        option.pop("no_log", None)

    assert loaded["module"] == path.stem
    assert documented(loaded["options"]) == accepted


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.stem)
def test_return_values_parse(path: Path) -> None:
    assert yaml.safe_load(ast.literal_eval(constants(path)["RETURN"]))
