"""A lab's tailnet: headscale in Tailscale's place, with its own relay, and the controller's own tailscaled.

The nodes' tailscaled is the real one. headscale answers on the lab's bridge as `headscale.fleet.lab`, over TLS by an
authority of the lab's own. The controller joins in user space, so that nothing of the machine's network changes, and
reaches nodes by `tailscale nc`, as a laptop does.
"""

from __future__ import annotations

import json
import shlex
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import yaml

from lab import cgroups, network, tools
from lab.authority import Authority
from lab.errors import CommandFailedError
from lab.process import run, wait_until

if TYPE_CHECKING:
    from pathlib import Path

    from lab.lab import Lab

SERVER = "headscale.fleet.lab"
_USER = "fleet"
_STUN_PORT = 3478
# Another than a node's, so that the controller's packets are told from theirs.
_CONTROLLER_PORT = 41642
_START_SECONDS = 20.0
_JOIN_SECONDS = 30


@dataclass(frozen=True)
class Node:
    """A node as headscale knows it: `name` is the one in DNS, `hostname` the one it asked for."""

    id: int
    name: str
    hostname: str
    addresses: tuple[str, ...]
    tags: tuple[str, ...]
    online: bool
    created: str
    last_seen: str
    machine_key: str
    node_key: str


class Tailnet:
    """The tailnet of a lab; `down` ends all of it with the lab."""

    domain = "tail.lab"
    login_server = f"https://{SERVER}"

    def __init__(self, lab: Lab) -> None:
        self._lab = lab
        self.folder = lab.folder / "tailnet"
        self._config = self.folder / "headscale.yaml"
        self._socket = self.folder / "tailscaled.sock"
        self._authority = Authority(self.folder)
        self.ca = self._authority.ca

    @property
    def command(self) -> list[str]:
        """The controller's `tailscale`; with `nc HOST PORT` it reaches a node, by name too."""
        return [str(tools.path("tailscale")), f"--socket={self._socket}"]

    def start(self) -> None:
        """Have headscale answer; it begins with no nodes and no policy, or where it was."""
        if not self._lab.is_serving("headscale"):
            self._lab.prepare()
            self._authority.ensure(SERVER)
            self._config.write_text(yaml.safe_dump(self._configuration()))
            headscale = [str(tools.path("headscale")), "--config", str(self._config), "serve"]
            self._lab.service("headscale", "lab.execute", "nsenter", f"--net={self._lab.namespace}", *headscale)
        log = self._lab.folder / "headscale.log"
        wait_until(self._answers, what=f"headscale (log: {log})", timeout=_START_SECONDS)
        if not self.headscale("users", "list"):
            self.headscale("users", "create", _USER)

    def pause(self) -> None:
        """End headscale, as an outage of Tailscale does; nodes keep the connections that they have."""
        cgroups.kill(f"{self._lab.cgroup}/headscale")

    def resume(self) -> None:
        """Have headscale answer again."""
        self.start()

    def _answers(self) -> bool | None:
        with network.tcp_socket(self._lab.namespace) as probe:
            if probe.connect_ex((self._lab.gateway, 443)) != 0:
                return None
        with suppress(CommandFailedError):
            self.headscale("users", "list")
            return True
        return None

    def headscale(self, *arguments: str) -> Any:
        """Run a command of headscale's and return what it answered, from JSON; None where it answers in words.

        Raises:
            CommandFailedError: it refused, or headscale is down.
        """
        said = run([str(tools.path("headscale")), "--config", str(self._config), "--output", "json", *arguments])
        with suppress(json.JSONDecodeError):
            return json.loads(said)
        return None

    def nodes(self) -> list[Node]:
        """Return all nodes by their ids, the controller among them."""
        return sorted((_node(each) for each in self.headscale("nodes", "list") or []), key=lambda node: node.id)

    def prepare(self, base: Path, upper: Path) -> None:
        """Lay into a host's layer, before its first boot, that it finds headscale and trusts its certificate.

        `base` is the root of the host's image, `upper` its own layer.
        """
        self._authority.ensure(SERVER)
        self._authority.trust(base, upper)
        hosts = upper / "etc/hosts"
        known = next(file.read_text() for file in (hosts, base / "etc/hosts") if file.exists())
        line = f"{self._lab.gateway} {SERVER}\n"
        if line not in known:
            hosts.parent.mkdir(parents=True, exist_ok=True)
            hosts.write_text(known + line)

    def key(self, *tags: str, seconds: int = 600, reusable: bool = False, ephemeral: bool = False) -> str:
        """Return a new key, good for one node or for many; a node has the key's tags, whatever it asks for."""
        wanted = [
            *(["--tags", ",".join(tags)] if tags else []),
            *(["--reusable"] if reusable else []),
            *(["--ephemeral"] if ephemeral else []),
        ]
        key = self.headscale("preauthkeys", "create", "--user", self.user, "--expiration", f"{seconds}s", *wanted)
        return str(key["key"])

    @property
    def user(self) -> str:
        """The id of the one user, whom all keys belong to."""
        return str(self.headscale("users", "list")[0]["id"])

    def join_controller(self) -> None:
        """Have this machine's own node, `controller` with tag:admin, in the tailnet."""
        self._start_controller()
        if self._controller_state() == "Running":
            return
        key = self.folder / "controller.key"
        key.touch(mode=0o600)
        key.write_text(self.key("tag:admin"))
        up = ["up", f"--login-server={self.login_server}", f"--auth-key=file:{key}", "--hostname=controller"]
        try:
            run([*self.command, *up, "--accept-dns=false", f"--timeout={_JOIN_SECONDS}s"], timeout=_JOIN_SECONDS + 5)
        finally:
            key.unlink()

    def _start_controller(self) -> None:
        if not self._lab.is_serving("tailscaled"):
            hosts, resolv = self.folder / "hosts", self.folder / "resolv.conf"
            hosts.write_text(f"127.0.0.1 localhost\n{self._lab.gateway} {SERVER}\n")
            resolv.write_text("")
            # It shares no name service with the machine: it must find headscale, and must change nothing.
            script = f"mount --bind {shlex.quote(str(hosts))} /etc/hosts && mount --bind {shlex.quote(str(resolv))} "
            script += '/etc/resolv.conf && exec "$@"'
            enter = ["nsenter", f"--net={self._lab.namespace}", "unshare", "--mount", "--propagation=slave"]
            self._lab.service("tailscaled", "lab.execute", *enter, "sh", "-c", script, "sh", *self._tailscaled())
        log = self._lab.folder / "tailscaled.log"
        wait_until(self._controller_state, what=f"the controller's tailscaled (log: {log})", timeout=_START_SECONDS)

    def _tailscaled(self) -> list[str]:
        return [
            "env",
            f"SSL_CERT_FILE={self.ca}",
            str(tools.path("tailscaled")),
            "--tun=userspace-networking",
            f"--statedir={self.folder / 'controller'}",
            f"--socket={self._socket}",
            f"--port={_CONTROLLER_PORT}",
            "--no-logs-no-support",
        ]

    def _controller_state(self) -> str | None:
        """Return BackendState of `tailscale status`; None while the daemon does not answer or does not know."""
        try:
            state = json.loads(run([*self.command, "status", "--json", "--peers=false"]))["BackendState"]
        except CommandFailedError:
            return None
        return None if state in {"NoState", "Starting"} else str(state)

    def _configuration(self) -> dict[str, Any]:
        folder, gateway = self.folder, self._lab.gateway
        return {
            "server_url": self.login_server,
            "listen_addr": f"{gateway}:443",
            "metrics_listen_addr": "127.0.0.1:9090",
            "grpc_listen_addr": "127.0.0.1:50443",
            "unix_socket": str(folder / "headscale.sock"),
            "unix_socket_permission": "0700",
            "tls_cert_path": str(self._authority.certificate),
            "tls_key_path": str(self._authority.key),
            "noise": {"private_key_path": str(folder / "noise.key")},
            "prefixes": {"v4": "100.64.0.0/10", "v6": "fd7a:115c:a1e0::/48", "allocation": "sequential"},
            "derp": {
                "server": {
                    "enabled": True,
                    "region_id": 999,
                    "region_code": "lab",
                    "region_name": "Lab DERP",
                    "stun_listen_addr": f"{gateway}:{_STUN_PORT}",
                    "private_key_path": str(folder / "derp.key"),
                    "automatically_add_embedded_derp_region": True,
                    "ipv4": gateway,
                },
                "urls": [],
                "paths": [],
                "auto_update_enabled": False,
            },
            "database": {"type": "sqlite", "sqlite": {"path": str(folder / "headscale.sqlite")}},
            # Only so can the policy be set from outside while it runs.
            "policy": {"mode": "database"},
            "dns": {
                "magic_dns": True,
                "base_domain": self.domain,
                "override_local_dns": False,
                "nameservers": {"global": []},
                "search_domains": [],
            },
            "disable_check_updates": True,
            "ephemeral_node_inactivity_timeout": "30m",
            "log": {"level": "info", "format": "text"},
            "logtail": {"enabled": False},
        }


def _node(said: dict[str, Any]) -> Node:
    tags = {*said.get("forced_tags", []), *said.get("valid_tags", [])}
    return Node(
        id=int(said["id"]),
        name=said["given_name"],
        hostname=said["name"],
        addresses=tuple(said.get("ip_addresses", [])),
        tags=tuple(sorted(tags)),
        online=bool(said.get("online")),
        created=_time(said.get("created_at")),
        last_seen=_time(said.get("last_seen")),
        machine_key=said.get("machine_key", ""),
        node_key=said.get("node_key", ""),
    )


def _time(said: dict[str, int] | None) -> str:
    """Return a time of headscale's as RFC 3339; empty where there is none."""
    if not said or said.get("seconds", 0) <= 0:
        return ""
    return datetime.fromtimestamp(said["seconds"], UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
