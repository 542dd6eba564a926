"""A converged broker, judged from outside its own files."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from testinfra.host import Host

testinfra_hosts = ["ansible://brokers"]
OPERATOR_FILE = "/etc/openclaw/operator-token"
OPERATOR = f"X-Bot-Token: $(cat {OPERATOR_FILE})"
CALL = "curl --silent --max-time 10 --header @- --output /dev/stdout --write-out '\\n%{http_code}'"


def call(root: Host, path: str, header: str = "Accept: */*") -> tuple[int, str]:
    """Call the broker. The shell puts the header together, so that no token is in arguments that sudo logs."""
    body, _, status = root.check_output(f'echo "{header}" | {CALL} http://127.0.0.1:8000{path}').rpartition("\n")
    return int(status), body


def address(host: Host) -> str:
    return str(host.check_output("hostname --all-ip-addresses").split()[0])


def test_it_listens_on_loopback_and_the_private_address_only(root: Host) -> None:
    listening = {socket for socket in root.socket.get_listening_sockets() if socket.endswith(":8000")}

    assert listening == {"tcp://127.0.0.1:8000", f"tcp://{address(root)}:8000"}


def test_it_is_healthy(root: Host) -> None:
    status, body = call(root, "/health")

    assert (status, json.loads(body)["ok"]) == (200, True)


def test_the_operator_is_let_in_and_nobody_else(root: Host) -> None:
    assert call(root, "/agents", OPERATOR)[0] == 200
    assert call(root, "/agents", f"{OPERATOR}x")[0] == 401
    assert call(root, "/agents")[0] == 401


def test_it_runs_without_rights(root: Host) -> None:
    pid = root.check_output("systemctl show --property=MainPID --value openclaw-broker.service")

    assert root.check_output(f"ps -o user= -p {pid}") == "openclaw-broker"
    assert "CapEff:\t0000000000000000" in root.check_output(f"cat /proc/{pid}/status")
    # Its own network namespace: whatever takes the broker over reaches no other host.
    own, host = (root.check_output(f"readlink /proc/{who}/ns/net") for who in (pid, 1))
    assert own != host


def test_systemd_finds_it_hardened(root: Host) -> None:
    last = root.check_output("systemd-analyze security --no-pager openclaw-broker.service").splitlines()[-1]

    assert float(last.split(":")[1].split()[0]) <= 2.0


@pytest.mark.parametrize(
    "path",
    [
        OPERATOR_FILE,
        "/etc/openclaw/broker-credentials",
        "/var/lib/openclaw-broker",
        "/var/lib/openclaw-broker/broker.db",
    ],
)
def test_others_cannot_read(host: Host, path: str) -> None:
    with host.sudo():
        assert host.file(path).exists
    assert host.run(f"head -c1 {path}").rc != 0
    assert host.run(f"ls {path}/").rc != 0


def test_its_user_cannot_change_the_release(root: Host) -> None:
    current = root.check_output("readlink --canonicalize /opt/openclaw/broker/current")
    command = f"setpriv --reuid=openclaw-broker --clear-groups touch {current}/lib/broker_app/__init__.py"

    assert current.startswith("/opt/openclaw/releases/broker/")
    assert root.run(command).rc != 0


def test_no_token_shows(root: Host) -> None:
    pid = root.check_output("systemctl show --property=MainPID --value openclaw-broker.service")
    places = [
        "systemctl show openclaw-broker.service",
        f"cat /proc/{pid}/environ /proc/{pid}/cmdline",
        "journalctl --no-pager --output=export",
        "cat /etc/openclaw/broker.env /etc/systemd/system/openclaw-broker.service",
        "cat /var/lib/openclaw-broker/broker.db /var/lib/openclaw-broker/broker.db-wal",
    ]

    assert root.run(f"cat {OPERATOR_FILE} | grep --file={OPERATOR_FILE}").rc == 0
    assert not [place for place in places if root.run(f"{place} | grep --quiet --text --file={OPERATOR_FILE}").rc == 0]


def test_its_command_line_is_for_root(host: Host) -> None:
    refused = host.run("/usr/local/bin/openclaw-broker token list")

    assert refused.rc == 1
    assert "sudo" in refused.stderr
    with host.sudo():
        assert "operator\tadmin" in host.check_output("/usr/local/bin/openclaw-broker token list")


def test_a_killed_broker_is_back_with_its_tokens(root: Host) -> None:
    before = root.check_output("systemctl show --property=MainPID --value openclaw-broker.service")

    root.check_output("systemctl kill --signal=KILL openclaw-broker.service")

    # The socket is systemd's: the call waits in its queue, and is not refused.
    assert call(root, "/agents", OPERATOR)[0] == 200
    assert root.check_output("systemctl show --property=MainPID --value openclaw-broker.service") != before
