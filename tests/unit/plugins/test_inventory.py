"""The inventory plugin, through ansible-inventory; a tiny program in pulumi's place says what the real one says."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

PROJECT = Path(__file__).resolve().parents[3]
# The texts of pulumi 3.250.0.
NO_STACK = "error: no stack selected; please use `pulumi stack select` or `pulumi stack init` to choose one"
NO_LOGIN = "error: PULUMI_ACCESS_TOKEN must be set for login during non-interactive CLI sessions"
NO_PASSPHRASE = (
    "error: getting stack outputs: constructing secrets manager of type 'passphrase': passphrase must be set with "
    "PULUMI_CONFIG_PASSPHRASE or PULUMI_CONFIG_PASSPHRASE_FILE environment variables"
)
NODES = [
    {
        "name": "broker-1",
        "role": "broker",
        "id": "17",
        "ipv4": "192.0.2.17",
        "ipv6": "2001:db8::1",
        "private": "10.0.0.2",
        "volume_device": "/dev/disk/by-id/scsi-0HC_Volume_5",
        "generation": 1,
    },
    {
        "name": "agents-1",
        "role": "runner",
        "id": 18,
        "ipv4": "192.0.2.18",
        "ipv6": "2001:db8::2",
        "private": "10.0.0.3",
        "volume_device": None,
        "generation": 2,
    },
]


SETTINGS = {"login_server": "", "archive_sha256": None, "version": "1.2.3", "broker_port": 8000, "udp": False}


def outputs(**changes: Any) -> dict[str, Any]:
    stack = {"version": 1, "stack": "prod", "domain": "tail.lab", "settings": SETTINGS, "hosts": NODES}
    return {"inventory": {**stack, **changes}}


class Listing:
    """Runs ansible-inventory on a copy of the project's inventory that has no stack, in a home of its own."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.project = home / "project"
        for part in ("inventory", "plugins"):
            shutil.copytree(PROJECT / part, self.project / part)
        shutil.copy(PROJECT / "ansible.cfg", self.project)
        (self.project / "infra").mkdir()
        self.programs = home / "bin"
        self.programs.mkdir()
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("OPENCLAW_", "PULUMI_", "XDG_"))}
        path = os.pathsep.join([str(self.programs), "/usr/bin", "/bin"])
        self.environment = {**kept, "HOME": str(home), "PATH": path, "ANSIBLE_HOME": str(home / "ansible")}

    def pulumi(self, script: str) -> None:
        """Put a program in pulumi's place."""
        program = self.programs / "pulumi"
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)

    def save(self, text: str) -> str:
        file = self.home / "outputs.json"
        file.write_text(text)
        return str(file)

    def run(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        argv = [str(Path(sys.executable).with_name("ansible-inventory")), "-i", "inventory", *arguments, "--list"]
        return subprocess.run(
            argv,
            cwd=self.project,
            env={**self.environment, **environment},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def listed(self, *arguments: str, **environment: str) -> dict[str, Any]:
        done = self.run(*arguments, **environment)
        assert done.returncode == 0, done.stderr
        listed: dict[str, Any] = json.loads(done.stdout, object_hook=lambda each: each.get("__ansible_unsafe", each))
        return listed


@pytest.fixture
def listing(tmp_path: Path) -> Listing:
    return Listing(tmp_path)


def groups(listed: dict[str, Any]) -> dict[str, list[str]]:
    return {name: group["hosts"] for name, group in listed.items() if name != "_meta" and group.get("hosts")}


def options(variables: dict[str, Any]) -> dict[str, str]:
    words = shlex.split(variables["ansible_ssh_common_args"])
    return dict(word.split("=", 1) for word in words if word != "-o")


def test_nodes_are_in_the_groups_of_their_roles_and_reached_by_their_tailnet_names(listing: Listing) -> None:
    listed = listing.listed(OPENCLAW_OUTPUTS=listing.save(json.dumps(outputs())))
    assert groups(listed) == {
        "brokers": ["broker-1"],
        "runners": ["agents-1"],
        "tailnet": ["broker-1", "agents-1"],
    }
    broker, agents = (listed["_meta"]["hostvars"][name] for name in ("broker-1", "agents-1"))
    assert (broker["ansible_host"], broker["private_address"]) == ("broker-1.tail.lab", "broker-1.tail.lab")
    assert (broker["ansible_user"], broker["server_id"]) == ("deploy", "17")
    assert broker["broker_volume"] == "/dev/disk/by-id/scsi-0HC_Volume_5"
    assert "broker_volume" not in agents
    assert agents["server_id"] == "18"


_ASK = "login {{ tailscale_login_server }} {{ tailscale_install }} {{ %s }} {{ broker_port }} {{ base_firewall_allow }}"
_BROKER = "{'port': %d, 'interface': 'tailscale0'}"


@pytest.mark.parametrize(
    ("changes", "varying", "said"),
    [
        ({}, "tailscale_version", f"login  package 1.2.3 8000 [{_BROKER % 8000}]"),
        (
            {"login_server": "https://hs", "archive_sha256": "ab", "broker_port": 9000, "udp": True},
            "tailscale_archive_checksum",
            f"login https://hs archive ab 9000 [{_BROKER % 9000}, {{'port': 41641, 'proto': 'udp'}}]",
        ),
    ],
)
def test_what_the_stack_was_told_counts_for_ansible_too(
    listing: Listing, changes: dict[str, Any], varying: str, said: str
) -> None:
    saved = listing.save(json.dumps(outputs(settings={**SETTINGS, **changes})))
    argv = [str(Path(sys.executable).with_name("ansible")), "-i", "inventory", "broker-1", "-c", "local"]
    shown = subprocess.run(
        [*argv, "-m", "debug", "-a", f"msg='{_ASK % varying}'"],
        cwd=listing.project,
        env={**listing.environment, "OPENCLAW_OUTPUTS": saved, "ANSIBLE_NOCOLOR": "1"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert shown.returncode == 0, shown.stdout + shown.stderr
    assert yaml.safe_load(shown.stdout.partition("=>")[2])["msg"] == said


def test_host_keys_are_learnt_once_into_a_file_of_the_stack(listing: Listing) -> None:
    saved = listing.save(json.dumps(outputs(stack="acme/fleet/prod")))
    broker = listing.listed(OPENCLAW_OUTPUTS=saved, XDG_STATE_HOME=str(listing.home / "my state"))
    found = options(broker["_meta"]["hostvars"]["broker-1"])
    folder = listing.home / "my state/openclaw-fleet/acme-fleet-prod"
    assert found == {
        "ConnectTimeout": "10",
        "UserKnownHostsFile": f'"{folder}/known_hosts"',
        "StrictHostKeyChecking": "accept-new",
        "HostKeyAlias": "broker-1-17",
        "ProxyCommand": "tailscale nc %h %p",
    }
    assert folder.stat().st_mode & 0o777 == 0o700


def test_a_rebuilt_server_is_another_host_to_ssh(listing: Listing) -> None:
    rebuilt = [{**NODES[0], "id": "99"}]
    saved = listing.save(json.dumps(outputs(hosts=rebuilt)))
    variables = listing.listed(OPENCLAW_OUTPUTS=saved)["_meta"]["hostvars"]["broker-1"]
    assert options(variables)["HostKeyAlias"] == "broker-1-99"
    before = listing.listed(OPENCLAW_OUTPUTS=listing.save(json.dumps(outputs())))["_meta"]["hostvars"]["broker-1"]
    assert variables["ansible_control_path"] != before["ansible_control_path"]


def test_a_connection_to_one_stack_is_none_to_another_of_the_same_names_and_numbers(listing: Listing) -> None:
    saved = listing.save(json.dumps(outputs()))
    homes = [str(listing.home / name) for name in ("one", "two", "one")]
    found = [listing.listed(OPENCLAW_OUTPUTS=saved, XDG_STATE_HOME=home) for home in homes]
    paths = [each["_meta"]["hostvars"]["broker-1"]["ansible_control_path"] for each in found]
    assert paths[0] == paths[2] != paths[1]
    assert len(paths[0]) < 50  # of the 108 that a socket's name may have, with its folder


def test_ssh_goes_through_the_tailscale_that_was_named(listing: Listing) -> None:
    saved = listing.save(json.dumps(outputs()))
    listed = listing.listed(OPENCLAW_OUTPUTS=saved, OPENCLAW_TAILSCALE="/opt/tailscale --socket=/run/my.sock")
    found = options(listed["_meta"]["hostvars"]["agents-1"])
    assert found["ProxyCommand"] == "/opt/tailscale --socket=/run/my.sock nc %h %p"


def test_the_selected_stack_is_asked_at_the_projects_root(listing: Listing) -> None:
    saved = listing.save(json.dumps(outputs()))
    listing.pulumi(
        f'test "$PWD" = {listing.project} && test "$*" = "stack output --json --non-interactive" && cat {saved}'
    )
    assert groups(listing.listed())["tailnet"] == ["broker-1", "agents-1"]


@pytest.mark.parametrize("none", ["", "none"])
def test_ssh_connects_by_itself_where_that_was_asked_for(listing: Listing, none: str) -> None:
    saved = listing.save(json.dumps(outputs()))
    listed = listing.listed(OPENCLAW_OUTPUTS=saved, OPENCLAW_TAILSCALE=none)
    assert "ProxyCommand" not in options(listed["_meta"]["hostvars"]["agents-1"])


@pytest.mark.parametrize(
    ("stack", "succeeds"), [("Pulumi.prod.yaml", False), ("Pulumi.example.yaml", True), ("Pulumi.lab.yaml", True)]
)
def test_to_be_logged_out_is_an_error_where_there_is_a_stack(listing: Listing, stack: str, succeeds: bool) -> None:
    (listing.project / "infra" / stack).touch()
    listing.pulumi(f"echo {shlex.quote(NO_LOGIN)} >&2; exit 255")
    done = listing.run()
    assert (done.returncode == 0) is succeeds, done.stderr
    assert ("pulumi login" in done.stderr) is not succeeds


@pytest.mark.parametrize("said", [None, NO_STACK, NO_LOGIN], ids=["no pulumi", "no stack", "no login"])
def test_without_a_stack_there_are_no_nodes_and_own_hosts_work_as_ever(listing: Listing, said: str | None) -> None:
    if said:
        listing.pulumi(f"echo {shlex.quote(said)} >&2; exit 255")
    own = listing.home / "hosts.yml"
    own.write_text("runners: {hosts: {mine: {ansible_host: 192.0.2.1}}}\n")
    done = listing.run("-i", str(own), "-v")
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stderr
    assert (said or "there is no pulumi on PATH") in done.stdout + done.stderr
    assert groups(listing.listed("-i", str(own))) == {"runners": ["mine"]}


def test_an_empty_saved_output_has_no_nodes(listing: Listing) -> None:
    listing.pulumi("echo it was asked >&2; exit 1")
    assert groups(listing.listed(OPENCLAW_OUTPUTS="/dev/null")) == {}


@pytest.mark.parametrize(
    ("script", "remedy"),
    [
        (f"echo {shlex.quote(NO_PASSPHRASE)} >&2; exit 255", "set PULUMI_CONFIG_PASSPHRASE"),
        ("echo 'error: incorrect passphrase' >&2; exit 255", "PULUMI_CONFIG_PASSPHRASE is not the one"),
        ("echo \"error: no stack named 'x' found\" >&2; exit 255", "pulumi stack ls"),
        ("echo 'error: the cloud is away' >&2; exit 255", "the cloud is away"),
        ("echo {}", "its first `pulumi up` failed; say `pulumi up`"),
        ("echo Welcome", "is not JSON"),
        ("echo '[]'", "has to be a JSON object"),
    ],
)
def test_a_stack_that_cannot_be_told_is_an_error_with_a_remedy(listing: Listing, script: str, remedy: str) -> None:
    listing.pulumi(script)
    done = listing.run()
    assert done.returncode != 0
    assert remedy in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"version": 2}, "has version 2, and this kit reads 1"),
        ({"domain": None}, "`domain` is no str"),
        ({"stack": None}, "`stack` is no str"),
        ({"hosts": None}, "`hosts` is no list"),
        ({"settings": None}, "`settings` is no dict"),
        ({"settings": {**SETTINGS, "udp": "yes"}}, "`udp` is no bool"),
        ({"hosts": [{"name": "a", "id": 1}]}, "`role` is no str"),
        ({"hosts": [{"name": "a", "id": 1, "role": "oracle"}]}, "roles this kit does not know: oracle"),
    ],
)
def test_outputs_of_another_kind_are_refused(listing: Listing, changes: dict[str, Any], said: str) -> None:
    done = listing.run(OPENCLAW_OUTPUTS=listing.save(json.dumps(outputs(**changes))))
    assert done.returncode != 0
    assert said in done.stderr


def test_a_saved_output_that_is_not_there_is_named(listing: Listing) -> None:
    done = listing.run(OPENCLAW_OUTPUTS="/nonexistent/outputs.json")
    assert done.returncode != 0
    assert "/nonexistent/outputs.json" in done.stderr


def test_a_pulumi_that_does_not_answer_is_given_up(listing: Listing) -> None:
    listing.pulumi("exec sleep 60")
    done = listing.run(OPENCLAW_PULUMI_SECONDS="0.5")
    assert done.returncode != 0
    assert "did not answer" in done.stderr
