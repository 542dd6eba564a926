"""Hosts in a tailnet of the lab's, judged from each other and by tailscale's own word."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.support import programs
from tests.support.molecule import INVENTORY, connect, listeners

if TYPE_CHECKING:
    from testinfra.host import Host

testinfra_hosts = ["ansible://all"]
SERVER = "https://headscale.fleet.lab"


@pytest.fixture
def name(host: Host) -> str:
    return str(host.backend.get_hostname())


def status(root: Host) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(root.check_output("tailscale status --json"))
    return loaded


def module(name: str, *options: str, **arguments: Any) -> dict[str, Any]:
    """Run the role's module on a host by itself, and return what it says."""
    argv = [str(Path(sys.executable).with_name("ansible")), "-i", str(INVENTORY), name, "--become", *options]
    values = json.dumps({"hostname": name, "login_server": SERVER, **arguments})
    settings = {**os.environ, "ANSIBLE_CALLBACK_RESULT_FORMAT": "json"}
    done = programs.run([*argv, "-m", "tailnet", "-a", values], environment=settings)
    loaded: dict[str, Any] = json.loads("{" + done.stdout.partition("=> {")[2])
    return loaded


def answers(neighbour: Host, address: str, port: int) -> bool:
    return bool(connect(neighbour, address, port).rc == 0)


def test_the_host_is_called_by_its_name(root: Host, name: str, way_in: dict[str, Any]) -> None:
    seen = status(root)

    assert (seen["BackendState"], seen["Self"]["DNSName"]) == ("Running", f"{name}.{way_in['domain']}.")


def test_settings_are_the_full_set(root: Host) -> None:
    prefs = json.loads(root.check_output("tailscale debug prefs"))

    assert {key: prefs.get(key) for key in ("CorpDNS", "RunSSH", "RouteAll", "OperatorUser")} == {
        "CorpDNS": True,
        "RunSSH": False,
        "RouteAll": False,
        "OperatorUser": None,
    }
    assert json.loads(root.check_output("tailscale serve status --json")) == {}


def test_the_key_is_nowhere(root: Host, way_in: dict[str, Any]) -> None:
    """It is told to the host backwards, so that what sudo logs of this search does not have it."""
    witness = "/run/witness"
    root.check_output(f"echo {way_in['key'][::-1]} | rev > {witness}")
    search = f"grep --fixed-strings --file={witness}"
    places = "/run /tmp /var/tmp /root /home /etc /srv /opt /var/lib /var/log"
    # Not into other file systems, where the lab has its own.
    found = root.check_output(f"find {places} -xdev -type f -exec {search} --text --files-with-matches {{}} +; true")
    logged = root.run(f"journalctl --no-pager --output=export | {search} --text --count").stdout
    joined = root.run("journalctl --no-pager --output=export | grep --text --count ansible-tailnet").stdout
    root.check_output(f"rm {witness}")

    assert found.splitlines() == [witness]
    assert (int(logged), int(joined) > 0) == (0, True)


def test_both_firewalls_stand_beside_each_other(root: Host, neighbour: Host, name: str, way_in: dict[str, Any]) -> None:
    """Over the tailnet the neighbour reaches what is declared for it and SSH; over the bridge not even that."""
    bridge = root.check_output("ip -4 -oneline address show dev eth0").split()[3].partition("/")[0]
    tailnet = f"{name}.{way_in['domain']}"
    with listeners(root, 8001, 8002):
        found = {(way, port) for way in (bridge, tailnet) for port in (8001, 8002) if answers(neighbour, way, port)}
        assert found == {(tailnet, 8001)}
        root.check_output("systemctl restart openclaw-firewall")
        assert answers(neighbour, tailnet, 8001)
        root.check_output("systemctl restart tailscaled")
        root.check_output("timeout 20 sh -c 'until tailscale status > /dev/null; do sleep 0.2; done'")
        assert not answers(neighbour, tailnet, 8002)
        root.check_output("nft delete table inet openclaw")
        assert answers(neighbour, tailnet, 8002)
        root.check_output("systemctl restart openclaw-firewall")
    assert answers(neighbour, tailnet, 22)


def test_a_joined_host_needs_no_key_and_is_left_alone(root: Host, name: str, way_in: dict[str, Any]) -> None:
    before = status(root)["Self"]["PublicKey"]
    result = module(name)

    assert (result["changed"], result["dns_name"]) == (False, f"{name}.{way_in['domain']}")
    assert result["address"] == root.check_output("tailscale ip -4")
    assert status(root)["Self"]["PublicKey"] == before


def test_settings_that_somebody_changed_are_set_again(root: Host, name: str) -> None:
    before = status(root)["Self"]["PublicKey"]
    root.check_output("tailscale set --accept-dns=false --operator=mallory --advertise-exit-node")

    assert module(name, "--check")["changed"]
    assert module(name)["changed"]
    assert not module(name)["changed"]
    prefs = json.loads(root.check_output("tailscale debug prefs"))
    assert (prefs["CorpDNS"], prefs.get("OperatorUser"), prefs["AdvertiseRoutes"]) == (True, None, None)
    assert status(root)["Self"]["PublicKey"] == before


def test_what_somebody_serves_is_taken_away(root: Host, name: str) -> None:
    """Also a mode that headscale takes and that cannot work."""
    root.check_output("tailscale serve --bg --yes --http=81 http://127.0.0.1:9001")
    root.check_output("tailscale serve --bg --yes --set-path=/x --http=81 http://127.0.0.1:9002")
    root.check_output("tailscale serve --bg --yes --tls-terminated-tcp=8444 tcp://127.0.0.1:9001")

    assert module(name, "--check")["changed"]
    assert json.loads(root.check_output("tailscale serve status --json"))["TCP"].keys() == {"81", "8444"}
    assert module(name)["changed"]
    assert json.loads(root.check_output("tailscale serve status --json")) == {}


def test_https_is_refused_and_changes_nothing(root: Host, name: str) -> None:
    said = module(name, serve=[{"mode": "https", "port": 443, "target": "127.0.0.1:9001"}])["msg"]

    assert "needs certificates, which this tailnet does not issue" in said
    assert json.loads(root.check_output("tailscale serve status --json")) == {}


def test_a_host_that_was_taken_down_stays_down(root: Host, name: str, way_in: dict[str, Any]) -> None:
    root.check_output("tailscale down")
    said = module(name, auth_key=way_in["key"])["msg"]
    state = status(root)["BackendState"]
    root.check_output("tailscale up")

    assert "say 'tailscale up' on it" in said
    assert state == "Stopped"


def test_another_control_server_is_refused(root: Host, name: str, way_in: dict[str, Any]) -> None:
    said = module(name, login_server="https://elsewhere.example", auth_key=way_in["key"])["msg"]

    assert f"is in the tailnet of {SERVER}" in said
    assert status(root)["BackendState"] == "Running"


def test_a_name_that_another_device_has_is_refused(
    root: Host, neighbour: Host, name: str, way_in: dict[str, Any]
) -> None:
    """headscale itself would give it to both, and the one who connects to it meets either."""
    taken = str(neighbour.backend.get_hostname())

    for options in ([], ["--check"]):
        assert f"another device is called '{taken}'" in module(name, *options, hostname=taken)["msg"]
    assert status(root)["Self"]["DNSName"] == f"{name}.{way_in['domain']}."
    root.check_output(f"tailscale set --hostname={taken}")
    root.check_output(
        f"timeout 20 sh -c 'until tailscale status --json --peers=false | grep -q {taken}; do sleep 0.2; done'"
    )
    assert module(name)["changed"]
    assert status(root)["Self"]["DNSName"] == f"{name}.{way_in['domain']}."


def test_a_logged_out_host_joins_with_a_key_only(root: Host, name: str, way_in: dict[str, Any]) -> None:
    root.check_output("tailscale logout")
    without, checked = module(name), module(name, "--check", auth_key=way_in["key"])
    state = status(root)["BackendState"]
    wrong = module(name, auth_key="0" * 48)
    joined = module(name, auth_key=way_in["key"])

    assert "there is no key to join with" in without["msg"]
    assert (checked["changed"], state) == (True, "NeedsLogin")
    assert "failed" in wrong["msg"]
    assert "0" * 48 not in json.dumps(wrong)
    assert joined.get("msg") is None
    assert (joined["changed"], joined["dns_name"]) == (True, f"{name}.{way_in['domain']}")


def test_a_host_leaves_once(root: Host, name: str, way_in: dict[str, Any]) -> None:
    assert module(name, "--check", state="left")["changed"]
    assert module(name, state="left")["changed"]
    assert not module(name, state="left")["changed"]
    assert status(root)["BackendState"] == "NeedsLogin"
    assert module(name, auth_key=way_in["key"])["changed"]
