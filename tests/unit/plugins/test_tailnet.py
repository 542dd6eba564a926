"""What the module makes of tailscale's own documents; its whole runs are in test_tailnet_run.py."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from plugins.modules import tailnet
from plugins.modules.tailnet import Node, TailnetError

if TYPE_CHECKING:
    from pathlib import Path

NAME = "h1.tail.lab"
RUNNING = Node("Running", has_key=True, dns_name=NAME, address="100.64.0.1")
WANTED: dict[str, Any] = {
    "hostname": "h1",
    "auth_key": "secret",
    "login_server": "https://headscale.fleet.lab",
    "operator": "",
    "serve": [],
}
# As `tailscale debug prefs` says them of a host that was joined with the full set of flags.
PREFS: dict[str, Any] = {
    "ControlURL": "https://headscale.fleet.lab",
    "RouteAll": False,
    "CorpDNS": True,
    "RunSSH": False,
    "WantRunning": True,
    "Hostname": "h1",
    "AdvertiseRoutes": None,
}
HTTP = {"mode": "http", "port": 80, "target": "127.0.0.1:9001"}
HTTPS = {"mode": "https", "port": 443, "target": "127.0.0.1:9001"}
TCP = {"mode": "tcp", "port": 9000, "target": "127.0.0.1:9001"}
# As headscale's hosts said it: notes of the lab, and Molecule.
SERVED: dict[str, Any] = {
    "TCP": {"80": {"HTTP": True}, "9000": {"TCPForward": "127.0.0.1:9001"}},
    "Web": {f"{NAME}:80": {"Handlers": {"/": {"Proxy": "http://127.0.0.1:9001"}}}},
}


def test_parse_of_a_joined_host() -> None:
    status = {
        "BackendState": "Running",
        "HaveNodeKey": True,
        "TailscaleIPs": ["fd7a:115c:a1e0::1", "100.64.0.1"],
        "Self": {"DNSName": f"{NAME}."},
        "CertDomains": None,
    }

    assert tailnet.parse(status) == RUNNING
    assert tailnet.parse({**status, "CertDomains": [NAME]}).certificates


def test_parse_of_a_fresh_host() -> None:
    assert tailnet.parse({"BackendState": "NeedsLogin", "Self": None, "TailscaleIPs": None}) == Node("NeedsLogin")


@pytest.mark.parametrize(
    ("state", "has_key", "answer"),
    [
        ("", False, True),  # not installed yet
        ("NeedsLogin", False, True),
        ("NeedsLogin", True, True),  # its key expired
        ("NoState", False, True),
        ("Running", True, False),
        ("NoState", True, "is not connected to it"),
        ("Starting", True, "is not connected to it"),
        ("Stopped", True, "tailscale up"),
        ("NeedsMachineAuth", True, "approve the device"),
    ],
)
def test_only_a_host_that_is_logged_out_is_joined(state: str, has_key: bool, answer: bool | str) -> None:
    if isinstance(answer, bool):
        assert tailnet.must_join(Node(state, has_key=has_key)) is answer
        return
    with pytest.raises(TailnetError, match=answer):
        tailnet.must_join(Node(state, has_key=has_key))


@pytest.mark.parametrize(
    ("prefs", "wanted", "found"),
    [
        ({}, {}, {}),
        ({"Hostname": "old"}, {}, {"hostname": ("old", "h1")}),
        ({"CorpDNS": False, "RunSSH": True}, {}, {"accept-dns": ("false", "true"), "ssh": ("true", "false")}),
        ({"RouteAll": True}, {}, {"accept-routes": ("true", "false")}),
        ({"AdvertiseRoutes": ["0.0.0.0/0", "::/0"]}, {}, {"advertise-exit-node": ("true", "false")}),
        ({"AdvertiseRoutes": ["10.0.0.0/8"]}, {}, {}),
        ({"OperatorUser": "alice"}, {}, {"operator": ("alice", "")}),
        ({}, {"operator": "bob"}, {"operator": ("", "bob")}),
        ({"ControlURL": "https://headscale.fleet.lab/"}, {}, {}),
        ({"ControlURL": "https://login.tailscale.com"}, {"login_server": ""}, {}),
        ({"ControlURL": ""}, {"login_server": "https://controlplane.tailscale.com/"}, {}),
    ],
)
def test_of_a_joined_host_only_what_differs_is_set(
    prefs: dict[str, Any], wanted: dict[str, Any], found: dict[str, tuple[str, str]]
) -> None:
    assert tailnet.differences({**PREFS, **prefs}, {**WANTED, **wanted}) == found


@pytest.mark.parametrize("server", ["", "https://elsewhere.example"])
def test_a_host_of_another_control_server_is_refused(server: str) -> None:
    with pytest.raises(TailnetError, match=r"is in the tailnet of https://headscale\.fleet\.lab"):
        tailnet.differences(PREFS, {**WANTED, "login_server": server})


@pytest.mark.parametrize(
    ("dns_name", "peers", "answer"),
    [
        (NAME, [], True),
        (NAME, ["h2.tail.lab", "h1.elsewhere.example"], True),  # the other one's device is shared with this tailnet
        (NAME, ["h2.tail.lab", NAME], False),
        ("h1-05u8zal0.tail.lab", [NAME], False),
        ("h1-1.tail.lab", [], False),
        ("", [], False),
    ],
)
def test_a_name_that_another_device_has_is_noticed(dns_name: str, peers: list[str], answer: bool) -> None:
    status = {
        "BackendState": "Running",
        "Self": {"DNSName": f"{dns_name}."},
        "Peer": {f"nodekey:{name}": {"DNSName": f"{name}."} for name in peers},
    }

    assert tailnet.is_called(tailnet.parse(status), "h1") is answer


def test_the_refusal_names_the_other_device_and_the_remedy() -> None:
    said = tailnet.wrong_name(Node("Running", dns_name="h1-05u8zal0.tail.lab"), "h1")

    assert "'h1-05u8zal0.tail.lab'" in said
    assert "another device is called 'h1'" in said
    assert "if that one is an earlier server, delete it" in said


@pytest.mark.parametrize(
    ("now", "serve", "commands"),
    [
        ({}, [], []),
        ({"TCP": None, "Web": {}}, [], []),
        (SERVED, [HTTP, TCP], []),
        (SERVED, [TCP, HTTP], []),
        ({}, [HTTP], [["--bg", "--yes", "--http=80", "http://127.0.0.1:9001"]]),
        ({}, [HTTPS], [["--bg", "--yes", "--https=443", "http://127.0.0.1:9001"]]),
        ({}, [TCP], [["--bg", "--yes", "--tcp=9000", "tcp://127.0.0.1:9001"]]),
        (SERVED, [HTTP], [["--yes", "--tcp=9000", "off"]]),
        (SERVED, [TCP], [["--yes", "--http=80", "off"]]),
        (SERVED, [], [["--yes", "--http=80", "off"], ["--yes", "--tcp=9000", "off"]]),
        (
            SERVED,
            [HTTP, {**TCP, "target": "127.0.0.1:9002"}],
            [["--yes", "--tcp=9000", "off"], ["--bg", "--yes", "--tcp=9000", "tcp://127.0.0.1:9002"]],
        ),
        (
            SERVED,
            [{**TCP, "port": 80}, TCP],
            [["--yes", "--http=80", "off"], ["--bg", "--yes", "--tcp=80", "tcp://127.0.0.1:9001"]],
        ),
        (
            {"TCP": {"8444": {"TCPForward": "127.0.0.1:9001", "TerminateTLS": NAME}}},
            [],
            [["--yes", "--tls-terminated-tcp=8444", "off"]],
        ),
    ],
)
def test_what_is_served_becomes_what_is_listed(
    now: dict[str, Any], serve: list[dict[str, Any]], commands: list[list[str]]
) -> None:
    assert tailnet.serve_commands(now, serve, NAME) == commands


@pytest.mark.parametrize(
    "now",
    [
        {**SERVED, "AllowFunnel": {f"{NAME}:80": True}},
        {**SERVED, "Services": {"svc:web": {"TCP": {"80": {"HTTP": True}}}}},
        {**SERVED, "Foreground": {"1": {"AllowFunnel": {f"{NAME}:80": True}}}},
        {**SERVED, "Web": {"old.tail.lab:80": SERVED["Web"][f"{NAME}:80"]}},
        {**SERVED, "Web": {**SERVED["Web"], "old.tail.lab:9000": {"Handlers": {"/": {"Proxy": "http://127.0.0.1:1"}}}}},
    ],
    ids=["funnel", "service", "foreground", "earlier name", "earlier name too"],
)
def test_what_cannot_be_taken_away_by_port_is_reset(now: dict[str, Any]) -> None:
    first, *others = tailnet.serve_commands(now, [HTTP, TCP], NAME)

    assert first == ["reset"]
    assert [words[2] for words in others] == ["--http=80", "--tcp=9000"]


def test_a_second_handler_on_a_port_goes() -> None:
    handlers = {"/": {"Proxy": "http://127.0.0.1:9001"}, "/x": {"Text": "hello"}}
    commands = tailnet.serve_commands({**SERVED, "Web": {f"{NAME}:80": {"Handlers": handlers}}}, [HTTP, TCP], NAME)

    assert commands == [["--yes", "--http=80", "off"], ["--bg", "--yes", "--http=80", "http://127.0.0.1:9001"]]


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ({"hostname": "Host_1"}, "hostname 'Host_1'"),
        ({"hostname": None}, "hostname"),
        ({"operator": "alice,bob"}, "operator 'alice,bob'"),
        ({"serve": [{**HTTP, "port": 0}]}, "port 0"),
        ({"serve": [HTTP, {**TCP, "port": 80}]}, "port 80"),
        ({"serve": [{**HTTP, "target": "10.0.0.1:80"}]}, "target '10.0.0.1:80'"),
        ({"serve": [{**HTTP, "target": "http://127.0.0.1:80"}]}, "target"),
    ],
)
def test_settings_that_cannot_be_are_refused(setting: dict[str, Any], said: str) -> None:
    with pytest.raises(TailnetError, match=said):
        tailnet.check({**WANTED, **setting})


def test_the_key_is_in_no_argument_and_no_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A program in the place of tailscale reads the key as it does, and notes how it was called."""
    program, note = tmp_path / "tailscale", tmp_path / "note"
    read = "argv[2].removeprefix('--auth-key=file:')"
    program.write_text(
        f"#!{sys.executable}\nimport json, os\nfrom sys import argv\n"
        f"json.dump([argv[1:], open({read}).read(), os.stat({read}).st_nlink], open({str(note)!r}, 'w'))\n"
    )
    program.chmod(0o755)
    monkeypatch.setattr(tailnet, "CLI", str(program))
    tailnet.join(WANTED)
    words, key, names = json.loads(note.read_text())

    assert (key, names) == ("secret", 0)
    assert not [word for word in words if "secret" in word]
    assert words[2:] == [
        "--login-server=https://headscale.fleet.lab",
        "--hostname=h1",
        "--accept-dns=true",
        "--ssh=false",
        "--accept-routes=false",
        "--advertise-exit-node=false",
        "--operator=",
        "--timeout=60s",
    ]


def test_tailscale_is_not_told_of_the_ssh_session(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Else it asks a person whether the connection may be lost."""
    program = tmp_path / "tailscale"
    program.write_text("#!/bin/sh\nenv\n")
    program.chmod(0o755)
    monkeypatch.setattr(tailnet, "CLI", str(program))
    monkeypatch.setenv("SSH_CLIENT", "100.64.0.9 1 22")

    assert "SSH_CLIENT" not in tailnet._tailscale("status")


def test_the_ssh_session_of_a_process_is_found_above_it() -> None:
    """Between them is a program that clears the environment, as sudo does."""
    ask = "import os; from plugins.modules.tailnet import entry_address; print(entry_address(os.getpid()))"
    settings = {"PATH": os.environ["PATH"], "SSH_CONNECTION": "100.64.0.9 50000 100.64.0.1 22"}
    session = ["sh", "-c", 'env -i "$@"; true', "sh", sys.executable, "-c", ask]
    done = subprocess.run(session, env=settings, capture_output=True, text=True, check=True)

    assert done.stdout == "100.64.0.1\n"


def test_a_process_of_no_ssh_session_has_no_entry(tmp_path: Path) -> None:
    for pid, parent in ((9, 5), (5, 1)):
        (tmp_path / str(pid)).mkdir()
        (tmp_path / str(pid) / "environ").write_bytes(b"HOME=/root\0")
        (tmp_path / str(pid) / "stat").write_text(f"{pid} (a (b) c) S {parent} 1 1\n")

    assert tailnet.entry_address(9, tmp_path) == ""


def test_a_check_announces_the_join_of_a_fresh_host(run_module: Any) -> None:
    result = run_module("tailnet", check=True, **WANTED)

    assert result["changed"]
    assert result["diff"]["after"] == "state: joined\n"
    assert (result["address"], result["dns_name"]) == ("", "")
    assert "secret" not in json.dumps(result)
