"""The configurations that are checked in."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from infra import config, fields
from infra.text import KEYRING_SHA256
from tests.support.infra import SSH_KEY, values

if TYPE_CHECKING:
    import pytest

    from infra.settings import Settings

INFRA = Path(config.__file__).parent


def read(name: str, **added: Any) -> Settings:
    written = yaml.safe_load((INFRA / name).read_text())["config"]
    return config.read(values(**{key.replace(":", "__"): value for key, value in written.items()} | added), {})


def test_the_example_is_valid_and_says_the_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: set[str] = set()
    take = fields.Fields._take

    def noted(self: fields.Fields, key: str) -> Any:
        asked.add(key)
        return take(self, key)

    monkeypatch.setattr(fields.Fields, "_take", noted)
    settings = read("Pulumi.example.yaml")
    text = (INFRA / "Pulumi.example.yaml").read_text()
    names = {node.name for node in settings.nodes}
    assert [key for key in sorted(asked - names) if f"{key}:" not in text] == []
    shown, plain = settings.tailnet, config.read(values(), {}).tailnet
    assert (shown.policy, shown.version, shown.admins, shown.udp) == (
        plain.policy,
        plain.version,
        plain.admins,
        plain.udp,
    )
    assert (shown.broker_ports, shown.gateway_ports) == (plain.broker_ports, plain.gateway_ports)
    assert settings.network == config.read(values(), {}).network


def test_the_labs_nodes_leave_nothing_behind() -> None:
    archive = {"url": "http://10.0.0.1/tailscale.tgz", "sha256": "0" * 64}
    settings = read("Pulumi.lab.yaml", fleet__sshKeys=[SSH_KEY], tailnet__archive=archive)
    assert [(node.name, node.role, node.image, node.protect) for node in settings.nodes] == [
        ("broker-1", "broker", "debian-12", False),
        ("agents-1", "runner", "debian-12", False),
        ("agents-2", "runner", "debian-13", False),
    ]
    broker = settings.nodes[0]
    assert broker.volume
    assert not broker.volume.keep
    assert settings.tailnet.domain == "tail.lab"


def test_the_program_installs_the_roles_tailscale() -> None:
    role = INFRA.parent / "roles/tailscale"
    assert yaml.safe_load((role / "defaults/main.yml").read_text())["tailscale_version"] == config.TAILSCALE_VERSION

    assert yaml.safe_load((role / "vars/main.yml").read_text())["_tailscale_key_checksum"] == KEYRING_SHA256
