"""A lab's tailnet: real nodes join headscale, the stand-in of Tailscale's API governs it, and SSH goes over it."""

from __future__ import annotations

import json
import shlex
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from lab import tools
from lab.errors import CommandFailedError
from lab.process import run, wait_until
from lab.tailnet import Node, Tailnet
from tests.support.lab import TestLab
from tests.support.tailscale_api import Client, serve

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lab.machines import Machine

_HOSTS = {"one": "debian-12", "two": "debian-13"}
_BROKER, _RUNNER, _ADMIN = "tag:broker", "tag:runner", "tag:admin"
# Nodes hear of a change within a second; a machine that is busy with other tests takes longer.
_SOON = 20.0


def _policy(*, runner_ports: str) -> str:
    rules = [
        {"action": "accept", "src": [_ADMIN], "dst": [f"{_BROKER}:22", f"{_RUNNER}:22"]},
        {"action": "accept", "src": [_RUNNER], "dst": [f"{_BROKER}:{runner_ports}"]},
    ]
    return json.dumps({"tagOwners": {tag: [] for tag in (_BROKER, _RUNNER, _ADMIN)}, "acls": rules})


@pytest.fixture(scope="module", autouse=True)
def _tools() -> None:
    if lacking := tools.missing():
        pytest.skip(lacking)


@pytest.fixture(scope="module")
def lab() -> Iterator[TestLab]:
    """Two hosts with Tailscale installed, one of each Debian, and this machine, in a tailnet."""
    lab = TestLab("test-tailnet")
    lab.run("down")
    tailnet = Tailnet(lab.lab)
    tailnet.start()
    for name, base in _HOSTS.items():
        lab.lab.add(name, base, prepare=tailnet.prepare)
    lab.run("create", *(f"{name}:{base}" for name, base in _HOSTS.items()), timeout=900)
    for name in _HOSTS:
        _install(lab, name)
    yield lab
    lab.run("down")


def _install(lab: TestLab, name: str) -> None:
    archive = tools.tailscale_archive()
    run(["scp", "-q", "-F", str(lab.lab.ssh_config), str(archive), f"{name}:tailscale.tgz"])
    lab.machine(name).ssh(
        "tar xzf tailscale.tgz --strip-components=1"
        " && sudo install tailscale /usr/bin && sudo install tailscaled /usr/sbin"
        " && sudo install -m 0644 systemd/tailscaled.defaults /etc/default/tailscaled"
        " && sudo install -m 0644 systemd/tailscaled.service /etc/systemd/system"
        " && sudo systemctl enable --quiet --now tailscaled"
    )


@pytest.fixture(scope="module")
def tailnet(lab: TestLab) -> Tailnet:
    return Tailnet(lab.lab)


@pytest.fixture(scope="module")
def api(lab: TestLab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    """The stand-in, with a policy under which runners reach port 8000 of brokers."""
    with serve(tmp_path_factory.mktemp("api") / "state.json", "--lab", lab.name) as client:
        assert client.set_policy(_policy(runner_ports="8000")).status_code == 200
        yield client


@pytest.fixture(scope="module")
def joined(lab: TestLab, tailnet: Tailnet, api: Client) -> dict[str, Node]:
    """Both hosts and the controller in the tailnet: `one` is a broker, `two` a runner."""
    tailnet.join_controller()
    for name, tag in (("one", _BROKER), ("two", _RUNNER)):
        _join(lab.machine(name), api.key(tag)["key"])
    return {node.name: node for node in tailnet.nodes()}


def _join(machine: Machine, key: str) -> None:
    machine.ssh(
        f"umask 077; echo {key} > join.key;"
        f" sudo tailscale up --login-server={Tailnet.login_server} --auth-key=file:join.key"
        f" --hostname={machine.name} --timeout=30s; status=$?; rm join.key; exit $status"
    )


def _leave(machine: Machine) -> None:
    """Forget who it was, as a server that is built anew does."""
    machine.ssh("sudo systemctl stop tailscaled && sudo rm -rf /var/lib/tailscale && sudo systemctl start tailscaled")


def _me(machine: Machine) -> dict[str, Any]:
    return dict(json.loads(machine.ssh("tailscale status --json"))["Self"])


def test_a_node_joins_with_a_one_off_key_and_has_its_tag_and_name(
    lab: TestLab, joined: dict[str, Node], api: Client
) -> None:
    assert {name: node.tags for name, node in joined.items()} == {
        "controller": (_ADMIN,),
        "one": (_BROKER,),
        "two": (_RUNNER,),
    }
    me = _me(lab.machine("one"))
    assert (me["DNSName"], me["Tags"]) == ("one.tail.lab.", [_BROKER])
    device = api.devices()["one"]
    assert device["name"] == "one.tail.lab"
    assert device["connectedToControl"] is True
    assert device["addresses"] == me["TailscaleIPs"]
    assert device["created"] <= device["lastSeen"] or device["lastSeen"] == ""


@pytest.mark.usefixtures("joined")
def test_a_spent_key_is_refused(lab: TestLab, api: Client) -> None:
    two = lab.machine("two")
    key = api.key(_RUNNER)
    _join_anew(two, api, key["key"])
    assert api.get(f"tailnet/-/keys/{key['id']}").status_code == 404
    api.delete(f"device/{api.devices()['two']['id']}")
    _leave(two)
    with pytest.raises(CommandFailedError, match="already used"):
        _join(two, key["key"])
    assert "two" not in api.devices()
    revoked = api.key(_RUNNER)
    assert api.delete(f"tailnet/-/keys/{revoked['id']}").status_code == 200
    with pytest.raises(CommandFailedError, match="expired"):
        _join(two, revoked["key"])
    _join(two, api.key(_RUNNER)["key"])


def _join_anew(machine: Machine, api: Client, key: str) -> None:
    api.delete(f"device/{api.devices()[machine.name]['id']}")
    _leave(machine)
    _join(machine, key)


def _ssh(lab: TestLab, tailnet: Tailnet, name: str, command: str) -> str:
    """Log in as a laptop does: by the tailnet's name, with only the key of the host that is meant."""
    known = lab.lab.folder / "tailnet/known_hosts"
    known.write_text(f"{name} {lab.machine(name).host_key}\n")
    options = {
        "ProxyCommand": f"{shlex.join(tailnet.command)} nc %h %p",
        "UserKnownHostsFile": str(known),
        "HostKeyAlias": name,
        "StrictHostKeyChecking": "yes",
        "IdentitiesOnly": "yes",
        "BatchMode": "yes",
        "ConnectTimeout": "10",
    }
    return run(
        [
            *("ssh", "-F", "none", "-i", str(lab.lab.private_key)),
            *(f"-o{option}={value}" for option, value in options.items()),
            f"deploy@{name}.{tailnet.domain}",
            command,
        ]
    )


@pytest.mark.usefixtures("joined")
@pytest.mark.parametrize("name", _HOSTS)
def test_the_controller_reaches_a_node_by_name(lab: TestLab, tailnet: Tailnet, name: str) -> None:
    assert _ssh(lab, tailnet, name, "hostname").strip() == name


@pytest.mark.usefixtures("joined")
def test_the_controller_changes_nothing_of_the_machine(lab: TestLab, tailnet: Tailnet) -> None:
    tailnet.join_controller()
    assert [node.name for node in tailnet.nodes()].count("controller") == 1
    assert "fleet.lab" not in Path("/etc/hosts").read_text() + Path("/etc/resolv.conf").read_text()
    assert "tailscale" not in run(["ip", "-oneline", "link"])
    assert "tailscale" not in run(["nsenter", f"--net={lab.lab.namespace}", "ip", "-oneline", "link"])


@pytest.mark.usefixtures("joined")
def test_a_policy_that_is_set_by_the_api_comes_into_force(lab: TestLab, api: Client) -> None:
    one, two = lab.machine("one"), lab.machine("two")
    for port in (8000, 8001):
        one.ssh(
            f"sudo systemd-run --quiet --collect --unit=echo-{uuid.uuid4().hex}"
            f" python3 -m http.server {port} --directory /usr/share/doc"
        )

    def opens(address: str, port: int) -> bool | None:
        status = f"curl -s -o /dev/null --max-time 1 http://{address}:{port}; echo $?"
        return two.ssh(status).strip() == "0" or None

    def closes(address: str, port: int) -> bool | None:
        return True if opens(address, port) is None else None

    for port_open, port_closed in ((8000, 8001), (8001, 8000)):
        assert api.set_policy(_policy(runner_ports=str(port_open))).status_code == 200
        wait_until(lambda: opens("one.tail.lab", port_open), what=f"port {port_open} to open", timeout=_SOON)  # noqa: B023
        wait_until(lambda: closes("one.tail.lab", port_closed), what=f"port {port_closed} to close", timeout=_SOON)  # noqa: B023
        # It is the policy that closed it.
        wait_until(lambda: opens(one.address, port_closed), what="its port beside the tailnet", timeout=_SOON)  # noqa: B023


def test_a_policy_that_headscale_refuses_is_refused(api: Client) -> None:
    before = api.get("tailnet/-/acl").json()
    refused = api.set_policy('{"acls": [{"action": "accept", "src": ["autogroup:nobody"], "dst": ["*:*"]}]}')
    assert refused.status_code == 400
    assert "headscale refuses the policy" in refused.json()["message"]
    assert api.get("tailnet/-/acl").json() == before


def test_names_cannot_be_switched_off(api: Client) -> None:
    assert api.post("tailnet/-/dns/preferences", json={"magicDNS": True}).json() == {"magicDNS": True}
    refused = api.post("tailnet/-/dns/preferences", json={"magicDNS": False})
    assert refused.status_code == 501
    assert api.get("tailnet/-/dns/preferences").json() == {"magicDNS": True}


@pytest.mark.usefixtures("joined")
def test_a_rebuilt_host_has_its_name_only_after_the_old_device_was_deleted(lab: TestLab, api: Client) -> None:
    two = lab.machine("two")
    before = api.devices()["two"]
    _leave(two)
    _join(two, api.key(_RUNNER)["key"])
    other = _me(two)["DNSName"].partition(".")[0]
    assert other.startswith("two-")
    assert set(api.devices()) == {"controller", "one", "two", other}
    for name in ("two", other):
        assert api.delete(f"device/{api.devices()[name]['nodeId']}").status_code == 200
    assert set(api.devices()) == {"controller", "one"}
    _leave(two)
    _join(two, api.key(_RUNNER)["key"])
    after = api.devices()["two"]
    assert _me(two)["DNSName"] == "two.tail.lab."
    assert after["id"] != before["id"]


@pytest.mark.usefixtures("joined")
def test_an_outage_of_headscale_is_told_from_a_refusal_and_ends(lab: TestLab, tailnet: Tailnet, api: Client) -> None:
    tailnet.pause()
    assert api.get("tailnet/-/devices").status_code == 503
    assert api.set_policy(_policy(runner_ports="8000")).status_code == 503
    assert _ssh(lab, tailnet, "one", "hostname").strip() == "one"
    tailnet.resume()
    assert set(api.devices()) == {"controller", "one", "two"}
    assert api.set_policy(_policy(runner_ports="8000")).status_code == 200
    assert _ssh(lab, tailnet, "two", "hostname").strip() == "two"


def test_the_api_says_that_it_needs_headscale(lab: TestLab, tmp_path: Path, tailnet: Tailnet) -> None:
    tailnet.pause()
    try:
        with (
            pytest.raises(AssertionError, match="the control server does not answer"),
            serve(tmp_path / "state.json", "--lab", lab.name),
        ):
            pass
    finally:
        tailnet.resume()
