"""Fresh hosts: a check announces what a run then does and does nothing; switched-off roles leave them as they were."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from lab.tailnet import Tailnet
from tests.support.fleet import TestFleet, changed_tasks
from tests.support.lab import NODES, PROJECT, missing

if TYPE_CHECKING:
    from collections.abc import Iterator
    from collections.abc import Set as AbstractSet

    Listing = set[str]

_GROUPS = {name: group for name, _, group in NODES}
_AGENTS = yaml.safe_load((PROJECT / "inventory/group_vars/all.yml").read_text())["agents"]
_ADMIN = {"base_admin_users": [{"name": "alice"}]}
# On one node the agents' homes go too.
_HOMELESS = "agents-2"
_OFF: dict[str, object] = {
    **{f"{role}_enabled": False for role in ("base", "tailscale", "broker", "runner")},
    "runner_remove_home": f"{{{{ inventory_hostname == '{_HOMELESS}' }}}}",
}
_TAILNET = "tailnet.yml"
_LISTING = (PROJECT / "tests/support/listing.py").read_text()
# Ansible's own, for whatever it copies; what it puts there it must take away.
_CONNECTION = {"file /home/deploy/.ansible", "file /home/deploy/.ansible/tmp"}
# What the role tailscale says it leaves until the next boot: tables without a rule.
_EMPTY_TABLE = re.compile(
    r"nft (table ip6? (filter|nat|mangle) \{|chain (INPUT|OUTPUT|FORWARD|PREROUTING|POSTROUTING) \{"
    r"|type .* policy accept;|\})"
)


@dataclass(frozen=True)
class Story:
    """What was on the hosts and what Ansible said, from the first boot to a deployment that was taken back."""

    fresh: dict[str, Listing]
    check: str
    checked: dict[str, Listing]
    run: str
    switched_off: dict[tuple[str, str], Listing]
    packages_alone: dict[str, Listing]
    joined: set[str]
    logged_out: set[str]


@pytest.fixture(scope="module")
def story() -> Iterator[Story]:
    if lacking := missing():
        pytest.skip(lacking)
    fleet = TestFleet("fresh-hosts")
    fleet.lab.run("down")
    way_in = json.loads(fleet.lab.run("tailnet", timeout=900))
    fleet.lab.run("create", *(":".join(node) for node in NODES), timeout=900)
    _on_each(fleet, dict.fromkeys(_GROUPS, _trust(way_in)))
    (fleet.lab.lab.folder / _TAILNET).write_text(yaml.safe_dump(_inventory(way_in)))
    fresh = _listings(fleet)
    for name in _GROUPS:
        fleet.lab.run("snapshot", name, "fresh")
    check = _playbook(fleet, "--check", "--diff")
    checked = _listings(fleet)
    run = _playbook(fleet)
    joined = _devices(fleet, logged_out=False)
    _playbook(fleet, "-e", json.dumps(_OFF))
    logged_out = _devices(fleet, logged_out=True)
    off = {(host, "runner_remove_home" * (host == _HOMELESS)): lines for host, lines in _listings(fleet).items()}
    _playbook(fleet, "-e", json.dumps({**_OFF, "broker_remove_data": True}), "--limit", "brokers")
    off["broker-1", "broker_remove_data"] = _listings(fleet)["broker-1"]
    for name in _GROUPS:
        fleet.lab.run("restore", name, "fresh")
    _on_each(fleet, {host: _install(lines - fresh[host]) for (host, _), lines in off.items()})
    yield Story(fresh, check, checked, run, off, _listings(fleet), joined, logged_out)
    fleet.lab.run("down")


def _trust(way_in: dict[str, str]) -> str:
    """Return the command by which a host finds the lab's control server and trusts it, as it does Tailscale's."""
    authority = "/usr/local/share/ca-certificates/lab-tailnet.crt"
    place = f"echo {shlex.quote(way_in['certificate'])} | sudo tee {authority}"
    name = f"echo {way_in['hosts_line']} | sudo tee --append /etc/hosts"
    return f"({place}; {name}; sudo update-ca-certificates) > /dev/null"


def _inventory(way_in: dict[str, str]) -> dict[str, Any]:
    """Return an inventory that has all hosts in the tailnet, and Ansible's connections on the lab's bridge."""
    variables = {
        "tailscale_install": "archive",
        "tailscale_archive": way_in["archive"],
        "tailscale_archive_checksum": way_in["checksum"],
        "tailscale_auth_key": way_in["key"],
        "tailscale_login_server": way_in["login_server"],
        "base_firewall_ssh_interface": "eth0",
    }
    hosts = {name: {**variables, "private_address": f"{name}.{way_in['domain']}"} for name in _GROUPS}
    return {"all": {"children": {"tailnet": {"hosts": hosts}}}}


def _devices(fleet: TestFleet, *, logged_out: bool) -> set[str]:
    """Return the names of the tailnet's devices that are logged out, or of those that are not."""
    devices = Tailnet(fleet.lab.lab).headscale("nodes", "list") or []
    ends = {device["given_name"]: (device.get("expiry") or {}).get("seconds", 0) for device in devices}
    return {name for name, seconds in ends.items() if (0 < seconds <= time.time()) == logged_out}


def _playbook(fleet: TestFleet, *arguments: str) -> str:
    done = fleet.playbook("-i", str(fleet.lab.lab.folder / _TAILNET), "-e", json.dumps(_ADMIN), *arguments)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def _listings(fleet: TestFleet) -> dict[str, Listing]:
    printed = _on_each(fleet, dict.fromkeys(_GROUPS, "sudo python3 -"), feed=_LISTING)
    return {name: set(text.splitlines()) for name, text in printed.items()}


def _on_each(fleet: TestFleet, commands: dict[str, str], feed: str = "") -> dict[str, str]:
    """Run a shell command on each host at once and return what they printed."""

    def run(name: str) -> str:
        argv = ["ssh", "-F", str(fleet.lab.lab.ssh_config), name, commands[name]]
        return subprocess.run(argv, input=feed, capture_output=True, text=True, timeout=300, check=True).stdout

    with ThreadPoolExecutor() as pool:
        return dict(zip(commands, pool.map(run, commands), strict=True))


def _install(listing: Listing) -> str:
    """Return the command that installs by hand what a listing has of packages."""
    packages = [line.split()[1:3] for line in listing if line.startswith("package ")]
    wanted = " ".join(f"{name}={version}" for name, version in packages)
    install = f"sudo DEBIAN_FRONTEND=noninteractive apt-get install -qq --no-install-recommends {wanted}"
    return f"sudo apt-get update -qq && {install} < /dev/null"


def _stated(host: str, flag: str) -> set[str]:
    """Return what the roles of a host say they keep, in C(…) of the line of their descriptions that says so."""
    usual = "Kept when it is switched off"
    titles = {
        "base": usual,
        "tailscale": usual,
        _GROUPS[host].removesuffix("s"): f"Kept with O({flag})" if flag else usual,
    }
    kept: set[str] = set()
    for role, title in titles.items():
        spec = yaml.safe_load((PROJECT / f"roles/{role}/meta/argument_specs.yml").read_text())["argument_specs"]["main"]
        (line,) = [line for line in spec["description"] if line.startswith(f"{title}: ")]
        kept.update(re.findall(r"C\((.+?)\)", line))
    agents = [agent["name"] for agent in _AGENTS if agent["node"] == host]
    return {each.replace("ADMIN", "alice").replace("AGENT", agent) for each in kept for agent in agents or [""]}


def _is_kept(line: str, kept: AbstractSet[str]) -> bool:
    """Say whether a line is of an account that is kept, of a path that is, is in it or leads to it, or of no rule."""
    if _EMPTY_TABLE.fullmatch(line):
        return True
    kind, name = re.split(r"[ :]", line)[:2]
    if kind == "file":
        return any(f"{name}/".startswith(f"{path}/") or path.startswith(f"{name}/") for path in kept)
    return kind in ("user", "group", "password") and name in kept


def _differences(before: Listing, after: Listing, kept: AbstractSet[str] = frozenset()) -> list[str]:
    """Return what two listings do not share, signed as diff(1) does: what is kept may be there besides."""
    known = {line.split()[1] for line in before}
    gone = [f"- {line}" for line in before - after]
    more = [f"+ {line}" for line in after - before if line.split()[1] in known or not _is_kept(line, kept)]
    return sorted(line for line in (*gone, *more) if line[2:].rpartition(" drwx")[0] not in _CONNECTION)


def test_a_check_announces_what_the_run_changes(story: Story) -> None:
    announced, changed = set(changed_tasks(story.check)), set(changed_tasks(story.run))

    assert len(announced & changed) >= 0.9 * len(changed), sorted(changed - announced)
    assert sorted(announced - changed) == []


@pytest.mark.parametrize("host", _GROUPS)
def test_a_check_changes_nothing(story: Story, host: str) -> None:
    assert _differences(story.fresh[host], story.checked[host]) == []


@pytest.mark.parametrize(
    ("host", "flag"),
    [
        ("broker-1", ""),
        ("broker-1", "broker_remove_data"),
        ("agents-1", ""),
        (_HOMELESS, "runner_remove_home"),
    ],
)
def test_switched_off_roles_leave_what_they_say(story: Story, host: str, flag: str) -> None:
    kept = _stated(host, flag)
    after = story.switched_off[host, flag]

    assert _differences(story.packages_alone[host], after, kept) == []
    assert sorted(path for path in kept if "/" in path and f"file {path} " not in "\n".join(after)) == []


def test_a_host_leaves_the_tailnet_when_it_is_switched_off(story: Story) -> None:
    """Its state is removed besides, but whoever has a copy of that must find it logged out."""
    assert (story.joined, story.logged_out) == (set(_GROUPS), set(_GROUPS))
