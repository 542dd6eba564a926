"""A role that is switched off removes what it installed, and can be switched on again."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.support.fleet import TestFleet

_OFF = [word for role in ("runner", "broker", "base") for word in ("-e", f"{{{role}_enabled: false}}")]
_GONE = {
    "broker-1": (
        "/etc/openclaw/broker.env",
        "/etc/systemd/system/openclaw-broker.service",
        "/etc/systemd/system/openclaw-broker.socket",
        "/usr/local/bin/openclaw-broker",
        "/opt/openclaw/broker",
    ),
    "agents-1": (
        "/etc/openclaw/agents",
        "/etc/systemd/user/openclaw-runner.service",
        "/opt/openclaw/agents",
        "/var/lib/systemd/linger/agent1",
        "/etc/ssh/sshd_config.d/00-openclaw.conf",
        "/etc/systemd/system/openclaw-firewall.service",
    ),
}


@pytest.fixture(scope="module")
def fleet_off(fleet: TestFleet) -> TestFleet:
    off = fleet.playbook(*_OFF)
    assert off.returncode == 0, off.stdout
    return fleet


@pytest.mark.parametrize("node", _GONE)
def test_what_a_role_installed_is_gone(fleet_off: TestFleet, node: str) -> None:
    assert [path for path in _GONE[node] if fleet_off.host(node).file(path).exists] == []


def test_nothing_of_it_runs(fleet_off: TestFleet) -> None:
    assert ":8000" not in fleet_off.host("broker-1").run_expect([0], "ss -Hltn").stdout
    for node in ("agents-1", "agents-2"):
        assert fleet_off.host(node).run("pgrep -fa runner_ap[p]").stdout == ""
    assert "openclaw" not in fleet_off.host("agents-2").run_expect([0], "nft list tables").stdout


def test_the_queue_and_the_homes_are_kept(fleet_off: TestFleet) -> None:
    look = "mount -o ro /dev/disk/by-id/scsi-0HC_Volume_* /mnt && ls /mnt && umount /mnt"
    assert "broker.db" in fleet_off.host("broker-1").run_expect([0], look).stdout
    assert fleet_off.host("agents-2").file("/home/agent3/workspace").is_directory


def test_switching_off_again_changes_nothing(fleet_off: TestFleet) -> None:
    again = fleet_off.playbook(*_OFF)
    assert again.returncode == 0, again.stdout
    assert again.stdout.count("changed=0") == 3, again.stdout


def test_the_fleet_comes_back_with_its_history(fleet_off: TestFleet) -> None:
    up = fleet_off.fleet("up")
    assert up.returncode == 0, up.stdout + up.stderr
    listed = fleet_off.host("broker-1").run_expect([0], "openclaw-broker token list").stdout
    assert {line.split()[0] for line in listed.splitlines()} >= {"agent1", "agent2", "agent3", "operator"}
