"""docs/first-fleet.md says what there is."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml
from typer.main import get_command

from fleet import cli
from infra import config
from tests.support.infra import NODES, values

ROOT = Path(config.__file__).parent.parent
TEXT = (ROOT / "docs/first-fleet.md").read_text()


def blocks(language: str, text: str = TEXT) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


def test_its_commands_of_ours_exist() -> None:
    commands = getattr(get_command(cli.app), "commands")  # noqa: B009  of a group, which typer does not type
    said = set(re.findall(r"^fleet ([a-z]+)", "\n".join(blocks("bash")), re.MULTILINE)) | set(
        re.findall(r"`fleet ([a-z]+)`", TEXT)
    )
    assert said == {"up", "status", "exec", "shell", "destroy"}
    assert said <= set(commands)
    assert all((ROOT / name).exists() for name in re.findall(r"ansible-playbook (\S+\.yml)", TEXT))


def test_its_configuration_is_accepted() -> None:
    merged: dict[str, Any] = {}
    for block in blocks("yaml"):
        found = yaml.safe_load(block.replace("AAAA…", "A" * 68))
        merged |= found if "agents-1" not in found else {"fleet:nodes": NODES | found}
    assert {"fleet:nodes", "fleet:sshKeys", "fleet:rescueCidr", "tailnet:domain"} <= set(merged)
    config.read(values(**{key.replace(":", "__"): value for key, value in merged.items()}), {})


def test_its_links_lead_somewhere() -> None:
    links = [link for link in re.findall(r"\]\(([^)]+)\)", TEXT) if not link.startswith("http")]
    assert links
    assert all((ROOT / "docs" / link).exists() for link in links)


def test_the_readme_begins_with_a_configuration_that_is_accepted_and_that_the_agents_fit() -> None:
    deploy = (ROOT / "README.md").read_text().partition("## Deploy to Hetzner Cloud\n")[2].partition("\n## ")[0]
    configuration = yaml.safe_load("".join(blocks("yaml", deploy)).replace("AAAA…", "A" * 68))
    settings = config.read(values(**{key.replace(":", "__"): value for key, value in configuration.items()}), {})
    agents = yaml.safe_load((ROOT / "inventory/group_vars/all.yml").read_text())["agents"]
    assert {agent["node"] for agent in agents} <= {node.name for node in settings.nodes if node.role == "runner"}
    assert "Pulumi.example.yaml" not in "".join(blocks("bash", deploy)), "its placeholders are refused"
