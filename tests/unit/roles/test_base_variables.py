"""What base derives from its variables and from what the host says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar, trust_as_template

BASE = Path(__file__).resolve().parents[3] / "roles/base"
BROAD = "port 22\nlistenaddress [::]:22\nlistenaddress 0.0.0.0:22"


def derived(expression: str, **variables: Any) -> Any:
    """Return the value that an expression has in the role, with these variables set."""
    role = {
        name: value
        for folder in ("defaults", "vars")
        for name, value in DataLoader()
        .load_from_file(str(BASE / folder / "main.yml"), trusted_as_template=True)
        .items()
    }
    return Templar(DataLoader(), role | variables).template(trust_as_template(expression), escape_backslashes=False)


@pytest.mark.parametrize(
    ("sshd", "connection", "ports"),
    [
        (BROAD, {}, ["22"]),
        ("port 22\nport 2200\nlistenaddress 0.0.0.0:22\nlistenaddress 0.0.0.0:2200", {}, ["22", "2200"]),
        ("port 22\nlistenaddress 0.0.0.0:2222", {}, ["2222"]),
        ("port 22\nlistenaddress 10.0.0.1:2222 rdomain 7", {}, ["2222"]),
        (BROAD, {"ansible_port": 2022}, ["22", "2022"]),
        (BROAD, {"ansible_facts": {"env": {"SSH_CONNECTION": "192.0.2.1 50000 192.0.2.2 2022"}}}, ["22", "2022"]),
    ],
)
def test_the_ways_in_stay_open(sshd: str, connection: dict[str, Any], ports: list[str]) -> None:
    said = {"__base_sshd": {"stdout": sshd}, "ansible_facts": {"env": {}}}

    assert derived("{{ _base_ssh_ports }}", **{**said, **connection}) == ports


@pytest.mark.parametrize(
    ("admin", "content"),
    [
        ({"keys": ["a", "b"]}, "a\nb\n"),
        ({"keys": []}, ""),
        ({}, None),
        ({"keys": None}, None),
        ({"keys": ["a"], "state": "absent"}, None),
    ],
)
def test_keys_that_are_not_declared_are_left_alone(admin: dict[str, Any], content: str | None) -> None:
    template = (BASE / "templates/admin_keys.yml.j2").read_text()
    placed = yaml.safe_load(derived(template, base_admin_users=[{"name": "alice", **admin}]))
    paths = ["/home/alice/.ssh", "/home/alice/.ssh/authorized_keys"]

    assert [file["path"] for file in placed] == (paths if content is not None else [])
    assert [file["content"] for file in placed[1:]] == ([content] if content is not None else [])


@pytest.mark.parametrize(
    ("package", "installs"),
    [
        ("systemd-timesyncd", ["systemd-timesyncd | chrony | ntpsec | ntp | openntpd"]),
        ("chrony", ["chrony"]),
        ("", []),
    ],
)
def test_only_the_default_gives_way_to_another_time_daemon(package: str, installs: list[str]) -> None:
    others = derived("{{ _base_all_packages }}", base_time_package="")

    names = derived("{{ _base_all_packages }}", base_time_package=package)
    assert [name for name in names if name not in others] == installs
