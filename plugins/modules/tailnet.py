#!/usr/bin/python
"""Join a host to a tailnet, hold its settings there and what it serves, or leave, in one module run."""

from __future__ import annotations

import json
import os
import re
import subprocess
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ansible.module_utils.basic import AnsibleModule

if TYPE_CHECKING:
    from collections.abc import Iterator

DOCUMENTATION = r"""
module: tailnet
short_description: Join a host to a tailnet, hold its settings there and what it serves, or leave
description:
  - Joins only a host that is logged out. One that is joined is never reset; of its settings, those that differ are set.
  - A host that was taken down by hand, that waits for approval, or that is in the tailnet of another control server
    is refused, with the remedy.
  - A host whose name in the tailnet is not the wanted one is refused, since another device still has that name and
    whoever connects to it meets that one. So is one whose name another device has too, which Headscale lets happen
    when a host is renamed; it is noticed among the devices that the tailnet's policy shows to the host.
  - What the host serves is exactly what is listed. Nothing is served to the internet (Funnel).
options:
  state:
    description: Whether the host is in the tailnet.
    type: str
    choices: [joined, left]
    default: joined
  hostname:
    description: The host's name in the tailnet; required to join.
    type: str
  auth_key:
    description: Key to join with; not needed by a host that is joined.
    type: str
  login_server:
    description: Address of the control server. Empty is Tailscale's own.
    type: str
    default: ""
  operator:
    description: The user who may change the host's settings in the tailnet besides root. Empty is nobody.
    type: str
    default: ""
  serve:
    description: What the host serves to the tailnet.
    type: list
    elements: dict
    default: []
    suboptions:
      mode:
        description: How it is served.
        type: str
        choices: [https, http, tcp]
        required: true
      port:
        description: The port in the tailnet.
        type: int
        required: true
      target:
        description: Where it is on the host, as C(127.0.0.1:PORT).
        type: str
        required: true
author: openclaw-fleet
"""

RETURN = r"""
address:
  description: The host's IPv4 address in the tailnet; empty while it has none.
  returned: always
  type: str
dns_name:
  description: The host's full name in the tailnet; empty while it has none.
  returned: always
  type: str
version:
  description: Version of the installed program; empty if there is none.
  returned: always
  type: str
packaged:
  description: Whether the program belongs to a package.
  returned: always
  type: bool
"""

SUBOPTIONS: dict[str, Any] = {
    "mode": {"type": "str", "choices": ["https", "http", "tcp"], "required": True},
    "port": {"type": "int", "required": True},
    "target": {"type": "str", "required": True},
}
CLI = "/usr/bin/tailscale"
DAEMON = "/usr/sbin/tailscaled"
PACKAGE_LIST = Path("/var/lib/dpkg/info/tailscale.list")
TAILSCALES_OWN = ("https://controlplane.tailscale.com", "https://login.tailscale.com")
DEFAULT_ROUTES = {"0.0.0.0/0", "::/0"}
JOIN_SECONDS = 60
COMMAND_SECONDS = 30
SETTLE_SECONDS = 15.0


class TailnetError(Exception):
    """The host cannot be brought into the wanted state; the message says why, and the remedy."""


@dataclass(frozen=True)
class Node:
    """What tailscaled says of itself and of the host; see ipnstate.Status in Tailscale's sources.

    Attributes:
        state: BackendState: NoState, NeedsLogin, NeedsMachineAuth, Stopped, Starting or Running; "" if nothing answers.
        has_key: Whether the host was joined before; it may still be logged out.
        peers: Full names of the other devices, those that the tailnet's policy shows to the host.
    """

    state: str
    has_key: bool = False
    dns_name: str = ""
    address: str = ""
    certificates: bool = False
    peers: frozenset[str] = frozenset()


def parse(status: dict[str, Any]) -> Node:
    """Read the output of `tailscale status --json`."""
    own = status.get("Self") or {}
    addresses = [each for each in status.get("TailscaleIPs") or own.get("TailscaleIPs") or [] if ":" not in each]
    return Node(
        state=status.get("BackendState") or "NoState",
        has_key=bool(status.get("HaveNodeKey")),
        dns_name=_name(own),
        address=addresses[0] if addresses else "",
        certificates=bool(status.get("CertDomains")),
        peers=frozenset(map(_name, (status.get("Peer") or {}).values())),
    )


def _name(device: dict[str, Any]) -> str:
    return (device.get("DNSName") or "").rstrip(".")


def check(params: dict[str, Any]) -> None:
    """Refuse settings that cannot be.

    Raises:
        TailnetError: Says which.
    """
    if not re.fullmatch(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", params["hostname"] or ""):
        raise TailnetError(
            f"hostname '{params['hostname']}': a name in a tailnet has small letters, digits and dashes inside."
        )
    if params["operator"] and not re.fullmatch(r"[a-z_][a-z0-9_-]{0,31}", params["operator"]):
        raise TailnetError(f"operator '{params['operator']}': name one user of the host, or nobody.")
    ports = [entry["port"] for entry in params["serve"]]
    for entry in params["serve"]:
        if not 0 < entry["port"] < 65536 or ports.count(entry["port"]) > 1:
            raise TailnetError(f"serve: port {entry['port']} must be from 1 to 65535, and stand there once.")
        if not re.fullmatch(r"127\.0\.0\.1:[1-9][0-9]{0,4}", entry["target"]):
            raise TailnetError(f"serve: target '{entry['target']}' must be 127.0.0.1:PORT.")


def must_join(node: Node) -> bool:
    """Say whether a host whose daemon has settled must be joined.

    Raises:
        TailnetError: It is neither joined nor logged out, and somebody must see to that.
    """
    if node.state == "Running":
        return False
    if node.state in ("", "NeedsLogin") or (node.state == "NoState" and not node.has_key):
        return True
    if node.state == "Stopped":
        raise TailnetError("somebody took the host down with 'tailscale down'; say 'tailscale up' on it.")
    if node.state == "NeedsMachineAuth":
        raise TailnetError("the host waits for approval; approve the device at the control server, and run again.")
    raise TailnetError(
        f"the host is in a tailnet and is not connected to it (state {node.state}); see that it reaches the control"
        " server ('journalctl -u tailscaled'), and run again."
    )


def flags(params: dict[str, Any]) -> dict[str, str]:
    """Return the settings of a joined host by the name of their flag; `tailscale up` wants them all each time."""
    return {
        "hostname": params["hostname"],
        "accept-dns": "true",
        "ssh": "false",
        "accept-routes": "false",
        "advertise-exit-node": "false",
        "operator": params["operator"],
    }


def _current(prefs: dict[str, Any]) -> dict[str, str]:
    def word(name: str) -> str:
        return "true" if prefs.get(name) else "false"

    return {
        "hostname": prefs.get("Hostname") or "",
        "accept-dns": word("CorpDNS"),
        "ssh": word("RunSSH"),
        "accept-routes": word("RouteAll"),
        "advertise-exit-node": "true" if DEFAULT_ROUTES & set(prefs.get("AdvertiseRoutes") or []) else "false",
        "operator": prefs.get("OperatorUser") or "",
    }


def differences(prefs: dict[str, Any], params: dict[str, Any]) -> dict[str, tuple[str, str]]:
    """Return (now, wanted) of each setting of a joined host that differs, by the name of its flag.

    Args:
        prefs: The output of `tailscale debug prefs`.
        params: The module's.

    Raises:
        TailnetError: The host is in the tailnet of another control server.
    """
    server = (prefs.get("ControlURL") or TAILSCALES_OWN[0]).rstrip("/")
    wanted = params["login_server"].rstrip("/") or TAILSCALES_OWN[0]
    if server != wanted and not {server, wanted} <= set(TAILSCALES_OWN):
        raise TailnetError(
            f"the host is in the tailnet of {server}, and login_server says {wanted}. Have it leave first"
            " ('tailscale logout' on the host), and give a key of the other."
        )
    now = _current(prefs)
    return {name: (now[name], value) for name, value in flags(params).items() if now[name] != value}


def is_taken(node: Node, hostname: str) -> bool:
    """Say whether another device of a joined host's tailnet has a name."""
    return f"{hostname}.{node.dns_name.partition('.')[2]}" in node.peers


def is_called(node: Node, hostname: str) -> bool:
    """Say whether the tailnet knows a host, and no other device, by its name."""
    return node.dns_name.partition(".")[0] == hostname and not is_taken(node, hostname)


def wrong_name(node: Node, hostname: str) -> str:
    """Say why a host cannot be called by a name that another device has."""
    return (
        f"the tailnet calls this host '{node.dns_name}': another device is called '{hostname}', and whoever connects to"
        " that name may meet it. Give this host another name; or, if that one is an earlier server, delete it at the"
        f" control server, then rename this one to '{hostname}' there, or say 'tailscale logout' on it and run again"
        " with a new key."
    )


def expected(serve: list[dict[str, Any]], dns_name: str) -> dict[str, Any]:
    """Return what `tailscale serve status --json` says when exactly this is served."""
    config: dict[str, Any] = {}
    for entry in serve:
        port, web = str(entry["port"]), entry["mode"] != "tcp"
        handler = {entry["mode"].upper(): True} if web else {"TCPForward": entry["target"]}
        config.setdefault("TCP", {})[port] = handler
        if web:
            root = {"Proxy": f"http://{entry['target']}"}
            config.setdefault("Web", {})[f"{dns_name}:{port}"] = {"Handlers": {"/": root}}
    return config


def _without_empty(config: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in config.items() if value}


def _flag(handler: dict[str, Any]) -> str:
    if "TCPForward" in handler:
        return "tls-terminated-tcp" if handler.get("TerminateTLS") else "tcp"
    return "https" if handler.get("HTTPS") else "http"


def serve_commands(now: dict[str, Any], serve: list[dict[str, Any]], dns_name: str) -> list[list[str]]:
    """Return the arguments of `tailscale serve` that bring what is served to what is listed; the rest is not touched.

    What cannot be taken away by port, such as Funnel or what was served under an earlier name, goes by a reset.
    """
    now = _without_empty(now)
    if now == expected(serve, dns_name):
        return []
    ports: dict[str, Any] = now.get("TCP", {})
    web: dict[str, Any] = now.get("Web", {})

    def stands(entry: dict[str, Any]) -> bool:
        alone = expected([entry], dns_name)
        port, name = str(entry["port"]), f"{dns_name}:{entry['port']}"
        return (ports.get(port), web.get(name)) == (alone["TCP"][port], alone.get("Web", {}).get(name))

    kept = [entry for entry in serve if stands(entry)]
    stale = [port for port in ports if port not in {str(entry["port"]) for entry in kept}]
    rest = {
        "TCP": {port: handler for port, handler in ports.items() if port not in stale},
        "Web": {name: handlers for name, handlers in web.items() if name.rpartition(":")[2] not in stale},
    }
    names = {name.rpartition(":")[0] for name in web}
    if names <= {dns_name} and _without_empty({**now, **rest}) == expected(kept, dns_name):
        commands = [["--yes", f"--{_flag(ports[port])}={port}", "off"] for port in stale]
    else:
        kept, commands = [], [["reset"]]
    return commands + [_serve(entry) for entry in serve if entry not in kept]


def _serve(entry: dict[str, Any]) -> list[str]:
    scheme = "tcp" if entry["mode"] == "tcp" else "http"
    return ["--bg", "--yes", f"--{entry['mode']}={entry['port']}", f"{scheme}://{entry['target']}"]


def tell(config: dict[str, Any]) -> str:
    """Return what is served as lines for a diff."""
    config = _without_empty(config)
    return f"serve: {json.dumps(config, indent=2, sort_keys=True)}\n" if config else ""


def _run(*argv: str, seconds: float = COMMAND_SECONDS, pass_fds: tuple[int, ...] = ()) -> tuple[int, str, str]:
    # With SSH_CLIENT set, tailscale asks a person whether the connection may be lost.
    environment = {"PATH": os.defpath, "LC_ALL": "C.UTF-8"}
    try:
        run = subprocess.run(
            argv,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=seconds,
            pass_fds=pass_fds,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise TailnetError(f"'{' '.join(argv)}' gave no answer in {seconds:.0f} s; is the network up?") from error
    return run.returncode, run.stdout, run.stderr


def _tailscale(*words: str, seconds: float = COMMAND_SECONDS, pass_fds: tuple[int, ...] = ()) -> str:
    status, output, errors = _run(CLI, *words, seconds=seconds, pass_fds=pass_fds)
    if status:
        raise TailnetError(f"'tailscale {' '.join(words)}' failed: {(errors or output).strip()}")
    return output


def look() -> Node:
    """Ask tailscaled; a host without it, or on which it does not run, has an empty state."""
    if not Path(CLI).exists():
        return Node("")
    _, output, _ = _run(CLI, "status", "--json")
    return parse(json.loads(output)) if output.startswith("{") else Node("")


def settled() -> Node:
    """Ask tailscaled until it has made up its mind, which takes a moment after its start."""
    deadline = time.monotonic() + SETTLE_SECONDS
    while (node := look()).state in ("NoState", "Starting") and time.monotonic() < deadline:
        time.sleep(0.2)
    return node


def version() -> str:
    """Return the version of the installed daemon without what a build adds to it, "" if there is none."""
    if not Path(DAEMON).exists():
        return ""
    return _run(DAEMON, "--version")[1].partition("\n")[0].partition("-")[0]


@contextmanager
def _in_memory(secret: str) -> Iterator[int]:
    """Hand a secret over in a file without a name, for root only, that is gone with the last process that has it."""
    descriptor = os.memfd_create("tailscale-key", 0)
    try:
        os.fchmod(descriptor, 0o600)
        os.write(descriptor, secret.encode())
        yield descriptor
    finally:
        os.close(descriptor)


def join(params: dict[str, Any]) -> None:
    """Join the host.

    Raises:
        TailnetError: The control server refused, or did not answer.
    """
    server = [f"--login-server={params['login_server']}"] if params["login_server"] else []
    words = [*server, *(f"--{name}={value}" for name, value in flags(params).items()), f"--timeout={JOIN_SECONDS}s"]
    with _in_memory(params["auth_key"]) as key:
        source = f"--auth-key=file:/proc/self/fd/{key}"
        _tailscale("up", source, *words, seconds=JOIN_SECONDS + 10, pass_fds=(key,))


def named(hostname: str) -> Node:
    """Return the host once the tailnet calls it, and no other device, by its name.

    Raises:
        TailnetError: It is called otherwise, or another is called so too.
    """
    deadline = time.monotonic() + SETTLE_SECONDS
    while not is_called(node := settled(), hostname):
        if time.monotonic() > deadline:
            raise TailnetError(wrong_name(node, hostname))
        time.sleep(0.2)
    return node


def entry_address(pid: int, processes: Path = Path("/proc")) -> str:
    """Return the address of this host that the SSH session came in by to which a process belongs, "" if to none."""
    while pid > 1:
        settings = (processes / str(pid) / "environ").read_bytes().split(b"\0")
        for setting in settings:
            if setting.startswith(b"SSH_CONNECTION="):
                return setting.split()[2].decode()
        # Past the program's name, which may have any character: state, parent.
        pid = int((processes / str(pid) / "stat").read_text().rpartition(")")[2].split()[1])
    return ""


class Run:
    """One run of the module: what it found, what it did or, in check mode, would have done."""

    def __init__(self, params: dict[str, Any], *, check_mode: bool) -> None:
        self.params = params
        self.check_mode = check_mode
        self.node = Node("")
        self.before: list[str] = []
        self.after: list[str] = []

    def joined(self) -> None:
        """Bring the host into the tailnet, with its settings and what it serves.

        Raises:
            TailnetError: See the module's description.
        """
        check(self.params)
        self.node = settled()
        if must_join(self.node):
            self._join()
        else:
            self._set()
        if self.node.state == "Running":
            self._serve()

    def _join(self) -> None:
        if not self.params["auth_key"]:
            raise TailnetError(
                "the host is in no tailnet, and there is no key to join with: make a one-off, tagged one at the control"
                " server, and give it as auth_key (tailscale_auth_key) for this run."
            )
        self._note("state: joined\n", f"state: {self.node.state or 'not running'}\n")
        if self.check_mode:
            return
        if not self.node.state:
            raise TailnetError("tailscaled does not answer; see 'journalctl -u tailscaled'.")
        join(self.params)
        self.node = named(self.params["hostname"])

    def _set(self) -> None:
        found = differences(json.loads(_tailscale("debug", "prefs")), self.params)
        for name, (now, wanted) in found.items():
            self._note(f"{name}: {wanted}\n", f"{name}: {now}\n")
        if "hostname" in found and is_taken(self.node, self.params["hostname"]):
            raise TailnetError(wrong_name(self.node, self.params["hostname"]))
        if "hostname" in found and self.check_mode:
            return
        if found and not self.check_mode:
            _tailscale("set", *(f"--{name}={wanted}" for name, (_, wanted) in found.items()))
        self.node = named(self.params["hostname"])

    def _serve(self) -> None:
        wanted = self.params["serve"]
        if not self.node.certificates and any(entry["mode"] == "https" for entry in wanted):
            raise TailnetError(
                "serve: mode https needs certificates, which this tailnet does not issue. Switch HTTPS on in its DNS"
                " settings, or use mode http (inside the tailnet's encryption) or tcp."
            )
        now = json.loads(_tailscale("serve", "status", "--json"))
        commands = serve_commands(now, wanted, self.node.dns_name)
        if not commands:
            return
        self._note(tell(expected(wanted, self.node.dns_name)), tell(now))
        if self.check_mode:
            return
        for words in commands:
            _tailscale("serve", *words)
        now = _without_empty(json.loads(_tailscale("serve", "status", "--json")))
        if now != expected(wanted, self.node.dns_name):
            raise TailnetError(
                f"what is served is not what was asked for: {json.dumps(now)}. Has somebody 'tailscale serve' or"
                " 'funnel' running on the host? End it, and run again."
            )

    def left(self) -> None:
        """Take the host out of the tailnet.

        Raises:
            TailnetError: This connection came in over the tailnet, or the control server does not answer.
        """
        self.node = settled()
        if not self.node.state or (self.node.state in ("NoState", "NeedsLogin") and not self.node.has_key):
            return
        if self.node.address and entry_address(os.getpid()) == self.node.address:
            raise TailnetError(
                "you connect over the tailnet, which this host is to leave. Connect another way (ansible_host), and"
                " see that the firewall lets that in (base_firewall_ssh_interface)."
            )
        self._note("state: left\n", f"state: {self.node.state}\n")
        if not self.check_mode:
            _tailscale("logout")
            self.node = Node("NeedsLogin")

    def _note(self, after: str, before: str) -> None:
        self.before.append(before)
        self.after.append(after)

    def result(self) -> dict[str, Any]:
        """Return what Ansible is told."""
        return {
            "changed": bool(self.after),
            "address": self.node.address,
            "dns_name": self.node.dns_name,
            "version": version(),
            "packaged": PACKAGE_LIST.exists(),
            "diff": {"before": "".join(self.before), "after": "".join(self.after)},
        }


def main() -> None:
    """Run as an Ansible module."""
    module = AnsibleModule(
        argument_spec={
            "state": {"type": "str", "choices": ["joined", "left"], "default": "joined"},
            "hostname": {"type": "str"},
            "auth_key": {"type": "str", "no_log": True},
            "login_server": {"type": "str", "default": ""},
            "operator": {"type": "str", "default": ""},
            "serve": {"type": "list", "elements": "dict", "default": [], "options": SUBOPTIONS},
        },
        supports_check_mode=True,
    )
    run = Run(module.params, check_mode=module.check_mode)
    try:
        (run.joined if module.params["state"] == "joined" else run.left)()
        result = run.result()
    except (OSError, ValueError, TailnetError) as error:
        module.fail_json(msg=str(error), changed=bool(run.after))
    module.exit_json(**result)


if __name__ == "__main__":
    main()
