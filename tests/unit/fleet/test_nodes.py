"""Waiting for new nodes: real ssh to a server that says what a node would, and a tailscale that knows who is online."""

from __future__ import annotations

import json
import shlex
from typing import TYPE_CHECKING

import paramiko
import pytest

from fleet import nodes
from fleet.errors import StackError
from fleet.inventory import Node
from tests.support.sshd import identity, server

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(autouse=True)
def _no_tailscale(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENCLAW_TAILSCALE", "/nonexistent/tailscale")


def node(folder: Path, port: int, name: str = "agents-1") -> Node:
    options = {
        "UserKnownHostsFile": str(folder / "known_hosts"),
        "StrictHostKeyChecking": "accept-new",
        "HostKeyAlias": name,
        "ConnectTimeout": "2",
    }
    return Node(name, "127.0.0.1", "deploy", port, identity(folder), options)


def test_a_node_is_ready_when_its_marker_says_zero_and_not_before(tmp_path: Path) -> None:
    answers = iter([(1, "cat: No such file or directory"), (1, "cat: No such file or directory"), (0, "0\n")])
    ready: list[str] = []
    with server(paramiko.ECDSAKey.generate(), lambda _: next(answers)) as port:
        nodes.wait([node(tmp_path, port)], ready.append, 20)
    assert ready == ["agents-1"]
    assert next(answers, None) is None


def test_a_failed_join_ends_the_wait_at_once_and_says_what_the_node_said(tmp_path: Path) -> None:
    with (
        server(paramiko.ECDSAKey.generate(), lambda _: (0, "7\n")) as port,
        pytest.raises(StackError, match=r"agents-1: it could not join the tailnet: 7; look .*cloud-init-output\.log"),
    ):
        nodes.wait([node(tmp_path, port)], lambda _: None, 20)


def test_a_node_that_never_finishes_its_first_start_is_given_up_and_named(tmp_path: Path) -> None:
    with (
        server(paramiko.ECDSAKey.generate(), lambda _: (1, "no such file")) as port,
        pytest.raises(StackError, match="agents-1: it has not finished its first start: no such file"),
    ):
        nodes.wait([node(tmp_path, port)], lambda _: None, 1)


def test_a_node_that_cannot_be_reached_is_given_up_and_named_with_what_ssh_said(tmp_path: Path) -> None:
    with pytest.raises(StackError, match=r"agents-1: it cannot be reached: .*Connection refused"):
        nodes.wait([node(tmp_path, 1)], lambda _: None, 1)


def test_a_node_is_not_dialled_before_the_tailnet_knows_it_to_be_online(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    status = tmp_path / "status.json"
    status.write_text(json.dumps({"Peer": {"a": {"DNSName": "127.0.0.1.", "Online": False}, "b": {"Online": True}}}))
    monkeypatch.setenv("OPENCLAW_TAILSCALE", shlex.join(["sh", "-c", f"cat {status}"]))
    dialled: list[str] = []

    def answer(command: str) -> tuple[int, str]:
        dialled.append(command)
        return 0, "0"

    with server(paramiko.ECDSAKey.generate(), answer) as port:
        with pytest.raises(StackError, match="agents-1: it is not online in the tailnet"):
            nodes.wait([node(tmp_path, port)], lambda _: None, 1)
        assert not dialled
        status.write_text(json.dumps({"Peer": {"a": {"DNSName": "127.0.0.1.", "Online": True}}}))
        (tmp_path / "id").unlink()
        nodes.wait([node(tmp_path, port)], lambda _: None, 10)
    assert dialled == ["cat /var/lib/openclaw/ready"]


def test_no_node_waits_for_others_to_have_had_their_time(tmp_path: Path) -> None:
    never = [Node(f"agents-{number}", "127.0.0.1", "deploy", 1, None, {}) for number in range(20)]
    ready: list[str] = []
    with server(paramiko.ECDSAKey.generate(), lambda _: (0, "0\n")) as port:
        last = node(tmp_path, port, "last")
        with pytest.raises(StackError) as caught:
            nodes.wait([*never, last], ready.append, 10)
    assert ready == ["last"]
    assert "was not tried" not in str(caught.value)
