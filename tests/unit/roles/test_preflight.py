"""What the roles refuse before they change anything. All cases run in one play on this machine."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from fleet import inventory

PROJECT = Path(__file__).resolve().parents[3]
LIMITS: dict[str, Any] = {"memory": "1G", "cpu": "100%", "tasks": 100, "disk": "64M"}
AGENT = {"name": "agent1", "type": "general", "node": "localhost", "limits": LIMITS}
KEY = {"tailscale_auth_key": "key", "tailscale_hostname": "localhost"}
ARCHIVE = {"tailscale_archive": "~/tailscale.tgz", "tailscale_archive_checksum": "0" * 64}
HTTPS = {"mode": "https", "port": 443, "target": "127.0.0.1:8000"}
TAILSCALES = "https://controlplane.tailscale.com/"
FACTS = {
    "distribution": "Debian",
    "distribution_version": "12.9",
    "distribution_major_version": "12",
    "python_version": "3.11.2",
    "env": {"SUDO_USER": "deploy"},
    "user_id": "root",
}

# Role, variables, facts that differ, and what the refusal says; None where nothing is refused.
CASES: dict[str, tuple[str, dict[str, Any], dict[str, Any], str | None]] = {
    "debian 12": ("base", {}, {}, None),
    "debian 13": ("base", {}, {"distribution_major_version": "13"}, None),
    "debian 11": ("base", {}, {"distribution_major_version": "11"}, "is not supported"),
    "ubuntu 24.04": ("base", {}, {"distribution": "Ubuntu", "distribution_version": "24.04"}, None),
    "ubuntu 22.04": ("base", {}, {"distribution": "Ubuntu", "distribution_version": "22.04"}, "is not supported"),
    "other distribution": ("base", {}, {"distribution": "Fedora"}, "is not supported"),
    "root by facts": ("base", {}, {"env": {}}, "You connect as root"),
    "root by name": ("base", {"ansible_user": "root"}, {}, "You connect as root"),
    "root with a key": (
        "base",
        {"ansible_user": "root", "base_sshd_permit_root_login": "prohibit-password"},
        {},
        None,
    ),
    "password": ("base", {"ansible_password": "x"}, {}, "You connect with a password"),
    "password allowed": ("base", {"ansible_password": "x", "base_sshd_password_authentication": True}, {}, None),
    **{
        f"login user {entry}": ("base", {"base_admin_users": [{"name": "deploy", **entry}]}, {}, refusal)
        for entry, refusal in (
            ({}, None),
            ({"keys": ["ssh-ed25519 AAAA"]}, None),
            ({"keys": []}, "You connect as deploy, whose account or last key"),
            ({"state": "absent"}, "You connect as deploy, whose account or last key"),
        )
    },
    "another user's last key": ("base", {"base_admin_users": [{"name": "alice", "keys": []}]}, {}, None),
    "router": ("base", {"kernel_forwards": 1}, {}, "The host passes packets on"),
    "router that may": ("base", {"kernel_forwards": 1, "base_firewall_forward": True}, {}, None),
    "router, switched off": ("base", {"kernel_forwards": 1, "base_enabled": False}, {}, None),
    **{
        f"ssh over {interface} to {address}": (
            "base",
            {"base_firewall_ssh_interface": interface, "ssh_connection": address and f"192.0.2.1 50000 {address} 22"},
            {},
            refusal,
        )
        for interface, address, refusal in (
            ("lo", "127.0.0.1", None),
            ("lo", "::1", None),
            ("lo", "10.0.0.1", "You connect to 10.0.0.1, which is not an address of lo"),
            ("lo", "7.0.0.1", "You connect to 7.0.0.1"),
            ("tailscale0", "127.0.0.1", "which is not an address of tailscale0"),
            ("tailscale0", "", None),
            ("", "10.0.0.1", None),
            ('x" accept', "", "is no network interface's name"),
        )
    },
    "rule over no interface": (
        "base",
        {"base_firewall_allow": [{"port": 1, "interface": "a b"}, {"port": 2}]},
        {},
        "a b in base_firewall_ssh_interface",
    ),
    "rule over any interface": ("base", {"base_firewall_allow": [{"port": 1, "interface": None}]}, {}, None),
    "old python, broker": ("broker", {}, {"python_version": "3.10.1"}, "the broker needs 3.11"),
    "no address": ("broker", {"broker_addresses": []}, {}, "broker_addresses is empty"),
    "broker": ("broker", {}, {}, None),
    "old python, runner": ("runner", {}, {"python_version": "3.9.2"}, "the runner needs 3.11"),
    "upper case": ("runner", {"runner_agents": [{**AGENT, "name": "Agent1"}]}, {}, "Agents Agent1: a name is"),
    "path": ("runner", {"runner_agents": [{**AGENT, "name": "../x"}]}, {}, "a name is"),
    "long name": ("runner", {"runner_agents": [{**AGENT, "name": "a" * 32}]}, {}, "a name is"),
    "declared twice": ("runner", {"runner_agents": [AGENT, AGENT]}, {}, "declared twice"),
    "unknown node": ("runner", {"runner_agents": [{**AGENT, "node": "elsewhere"}]}, {}, "declared on elsewhere"),
    "somebody else": ("runner", {"runner_agents": [{**AGENT, "name": "daemon"}]}, {}, "this user is not an agent's"),
    "limit": ("runner", {"runner_agents": [{**AGENT, "limits": {**LIMITS, "cpu": "1"}}]}, {}, "must be a percentage"),
    **{
        f"limits {limits}": ("runner", {"runner_agents": [{**AGENT, "limits": {**LIMITS, **limits}}]}, {}, refusal)
        for limits, refusal in (
            ({"memory": "255M"}, "at least memory 256M"),
            ({"tasks": 63}, "tasks 64"),
            ({"disk": "ten"}, "limits.disk 'ten' must be bytes"),
            ({"disk": "1M"}, "is too small"),
            ({"disk": "900T"}, "lower limits.disk"),
            ({"job": {"memory": "lots"}}, "limits.job may have"),
            ({"job": {"cpu": "1"}}, "limits.job may have"),
            ({"job": {"tasks": 0}}, "limits.job may have"),
            ({"job": {"memory": "512M", "cpu": "50%", "tasks": 20}}, None),
        )
    },
    "runner": ("runner", {"runner_agents": [AGENT]}, {}, None),
    **{
        f"lease {lease}, heartbeat {heartbeat}": (
            "runner",
            {"runner_lease_seconds": lease, "runner_heartbeat_seconds": heartbeat},
            {},
            f"runner_lease_seconds is {lease} and runner_heartbeat_seconds {heartbeat}" if refused else None,
        )
        for lease, heartbeat, refused in (
            (30, 29, False),
            (3600, 1, False),
            (29, 10, True),
            (3601, 10, True),
            (60, 60, True),
            (60, 0, True),
        )
    },
    **{
        f"tailnet: {what}": ("tailscale", {**KEY, **variables}, {}, refusal)
        for what, variables, refusal in (
            ("a key", {}, None),
            ("no key", {"tailscale_auth_key": ""}, "there is no key to join with"),
            ("no key, switched off", {"tailscale_auth_key": "", "tailscale_enabled": False}, None),
            ("a name", {"tailscale_hostname": "Host_1"}, "hostname 'Host_1'"),
            ("two operators", {"tailscale_operator": "alice,bob"}, "name one user"),
            ("an archive", {"tailscale_install": "archive", **ARCHIVE}, None),
            (
                "no archive",
                {"tailscale_install": "archive", **ARCHIVE, "tailscale_archive": ""},
                "must name a file on the controller",
            ),
            (
                "a short checksum",
                {"tailscale_install": "archive", **ARCHIVE, "tailscale_archive_checksum": "00"},
                "tailscale_archive_checksum its SHA-256",
            ),
            ("https", {"tailscale_serve": [HTTPS]}, None),
            ("https of Tailscale's", {"tailscale_serve": [HTTPS], "tailscale_login_server": TAILSCALES}, None),
            (
                "https of Headscale",
                {"tailscale_serve": [HTTPS], "tailscale_login_server": "https://headscale.example"},
                "the control server https://headscale.example issues no certificates",
            ),
            (
                "http of Headscale",
                {"tailscale_serve": [{**HTTPS, "mode": "http"}], "tailscale_login_server": "https://headscale.example"},
                None,
            ),
            ("a target elsewhere", {"tailscale_serve": [{**HTTPS, "target": "10.0.0.1:1"}]}, "must be 127.0.0.1:PORT"),
            ("a port twice", {"tailscale_serve": [HTTPS, HTTPS]}, "port 443 must be"),
            ("TLS for TCP", {"tailscale_serve": [{**HTTPS, "mode": "tls-terminated-tcp"}]}, "one of: https, http, tcp"),
        )
    },
}


def play(name: str, role: str, variables: dict[str, Any], facts: dict[str, Any]) -> dict[str, Any]:
    """Return a play that notes what a role's preflight refuses."""
    include = {"name": "Include", "ansible.builtin.include_role": {"name": role, "tasks_from": "preflight"}}
    sysctl = ["sysctl", f"net.ipv4.ip_forward={variables.get('kernel_forwards', 0)}"]
    commands = [sysctl, ["ip", "link", "set", "lo", "up"]] if role == "base" else []
    prepare = [{"name": "Prepare", "ansible.builtin.command": {"argv": argv}} for argv in commands]
    session = variables.get("ssh_connection")
    note = {"said": "{{ said | default({}) | combine({case: ansible_failed_result.msg}) }}"}
    return {
        "name": name,
        "hosts": "localhost",
        "gather_facts": False,
        "vars": {**variables, "case": name, "ansible_facts": {**FACTS, **facts}},
        "environment": {"SSH_CONNECTION": session} if session else {},
        "pre_tasks": prepare,
        "tasks": [{"name": "Try", "block": [include], "rescue": [{"name": "Note", "ansible.builtin.set_fact": note}]}],
    }


@pytest.fixture(scope="module")
def refusals(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("preflight")
    report = folder / "said.json"
    plays = [play(name, role, variables, facts) for name, (role, variables, facts, _) in CASES.items()]
    write = {"dest": str(report), "content": "{{ said | to_json }}", "mode": "0600"}
    end = {"name": "End", "hosts": "localhost", "gather_facts": False}
    plays.append({**end, "tasks": [{"name": "Write", "ansible.builtin.copy": write}]})
    (folder / "plays.yml").write_text(yaml.safe_dump(plays, sort_keys=False))
    subprocess.run(
        [
            # The network's settings of a namespace are its own.
            *("unshare", "--net", str(Path(sys.executable).with_name("ansible-playbook"))),
            *("-i", "localhost,", "-c", "local", "-e", f"ansible_python_interpreter={sys.executable}"),
            str(folder / "plays.yml"),
        ],
        cwd=PROJECT,
        env={**inventory.environment(), "ANSIBLE_REMOTE_TMP": str(folder)},
        capture_output=True,
        check=True,
    )
    said: dict[str, str] = json.loads(report.read_text())
    return said


@pytest.mark.parametrize("name", CASES)
def test_preflight(refusals: dict[str, str], name: str) -> None:
    expected = CASES[name][3]

    assert (name in refusals) is (expected is not None), refusals.get(name)
    assert (expected or "") in refusals.get(name, "")
