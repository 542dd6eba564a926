"""Host keys: an SSH server on loopback, our client and ssh(1), which share one file of known keys."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import paramiko
import pytest

from fleet import ssh
from fleet.errors import ConnectError
from fleet.inventory import Node
from tests.support.sshd import identity, server

if TYPE_CHECKING:
    from pathlib import Path

ALIAS = "broker-1-17"


@pytest.fixture
def known(tmp_path: Path) -> Path:
    return tmp_path / "state of the stack" / "known_hosts"


@pytest.fixture(autouse=True)
def _folder(known: Path) -> None:
    known.parent.mkdir()


@pytest.fixture
def node(known: Path, tmp_path: Path) -> Node:
    options = {
        "UserKnownHostsFile": f'"{known}"',
        "GlobalKnownHostsFile": "/dev/null",
        "StrictHostKeyChecking": "accept-new",
        "HostKeyAlias": ALIAS,
        "BatchMode": "yes",
        "ConnectTimeout": "5",
        "IdentitiesOnly": "yes",
    }
    return Node("broker-1", "127.0.0.1", "deploy", 0, identity(tmp_path), options)


def at(node: Node, port: int, **options: str) -> Node:
    return Node(node.name, node.address, node.user, port, node.key_file, {**node.options, **options})


def log_in(node: Node) -> None:
    with ssh.connect(node):
        pass


def log_in_with_ssh(node: Node) -> str:
    talkative = Node(**{**vars(node), "options": {**node.options, "LogLevel": "DEBUG1"}})
    argv = ssh.ssh_argv(talkative, ["true"], terminal=False)
    done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=30, check=False)
    return done.stderr


def test_a_new_hosts_key_is_learnt_once_under_its_alias_and_is_the_only_one_from_then_on(
    node: Node, known: Path
) -> None:
    key = paramiko.ECDSAKey.generate()
    with server(key) as port:
        log_in(at(node, port))
        log_in(at(node, port))
    assert known.read_text() == f"{ALIAS} {key.get_name()} {key.get_base64()}\n"
    assert known.stat().st_mode & 0o777 == 0o600
    with server(paramiko.ECDSAKey.generate()) as port, pytest.raises(ConnectError, match="does not match"):
        log_in(at(node, port))


def test_a_key_of_another_kind_is_not_learnt_beside_the_known_one(node: Node, known: Path) -> None:
    with server(paramiko.ECDSAKey.generate()) as port:
        log_in(at(node, port))
    before = known.read_text()
    with server(paramiko.RSAKey.generate(2048)) as port, pytest.raises(ConnectError):
        log_in(at(node, port))
    assert known.read_text() == before


def test_another_server_of_the_same_name_and_address_is_another_host(node: Node, known: Path) -> None:
    for alias in ("broker-1-17", "broker-1-18"):
        with server(paramiko.ECDSAKey.generate()) as port:
            log_in(at(node, port, HostKeyAlias=alias))
    assert [line.split()[0] for line in known.read_text().splitlines()] == ["broker-1-17", "broker-1-18"]


def test_a_key_that_is_known_for_the_address_says_nothing_of_the_alias(node: Node, known: Path) -> None:
    key = paramiko.ECDSAKey.generate()
    with server(key) as port:
        known.write_text(f"[127.0.0.1]:{port} {key.get_name()} {key.get_base64()}\n")
        with pytest.raises(ConnectError, match="not found in known_hosts"):
            log_in(at(node, port, StrictHostKeyChecking="yes"))


@pytest.mark.parametrize("checking", ["yes", "ask", "no"])
def test_a_new_hosts_key_is_refused_unless_the_inventory_says_accept_new(
    node: Node, known: Path, checking: str
) -> None:
    with server(paramiko.ECDSAKey.generate()) as port, pytest.raises(ConnectError, match="not found in known_hosts"):
        log_in(at(node, port, StrictHostKeyChecking=checking))
    assert not known.exists()


def test_ssh_and_we_share_what_was_learnt(node: Node, known: Path) -> None:
    key = paramiko.ECDSAKey.generate()
    with server(key) as port:
        log_in(at(node, port))
        assert f"Host '{ALIAS}' is known" in log_in_with_ssh(at(node, port))
        known.unlink()
        # As Debian's ssh does: names are hashed.
        log_in_with_ssh(at(node, port, HashKnownHosts="yes"))
        assert ALIAS not in known.read_text()
        log_in(at(node, port))
        assert len(known.read_text().splitlines()) == 1
    with server(paramiko.ECDSAKey.generate()) as port, pytest.raises(ConnectError, match="does not match"):
        log_in(at(node, port))


def test_a_host_that_does_not_answer_is_given_up_when_its_settings_say() -> None:
    """In a process of its own, as the command line is: paramiko leaves what its proxies were to be collected."""
    program = """if True:
        from fleet import ssh
        from fleet.inventory import Node
        node = Node("gone", "192.0.2.1", None, None, None, {"ProxyCommand": "sleep 60", "ConnectTimeout": "1"})
        with ssh.connect(node):
            pass
    """
    argv = [sys.executable, "-c", program]
    done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=9, check=False)
    assert "ConnectError: gone: no SSH to 192.0.2.1" in done.stderr
