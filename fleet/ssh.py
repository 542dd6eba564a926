"""SSH to the nodes: fabric for programs, ssh(1) for people. Host keys are always checked."""

from __future__ import annotations

import logging
import socket
import subprocess
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import fabric
import paramiko

from fleet import hostkeys
from fleet.errors import ConnectError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fleet.inventory import Node

_CONNECT_SECONDS = 10
_SSH = ("ssh",)
# What it logs of a connection that broke, it raises too.
logging.getLogger("paramiko").addHandler(logging.NullHandler())
_FOR_PARAMIKO = ("hostname", "user", "port", "identityfile", "proxycommand", "proxyjump")


@contextmanager
def connect(node: Node) -> Iterator[fabric.Connection]:
    """Open a connection to a node, and close it.

    Raises:
        ConnectError: the node does not answer, its host key is not known, or it takes no key of ours.
    """
    settings = resolved(node)
    config = fabric.Config(ssh_config=paramiko.SSHConfig.from_text(ssh_config(node.name, settings)))
    connection = fabric.Connection(node.name, config=config, connect_timeout=_seconds(settings))
    try:
        hostkeys.check(connection, settings)
        connection.open()
    except (OSError, EOFError, paramiko.SSHException) as error:
        connection.client.close()
        raise ConnectError(f"{node.name}: no SSH to {node.address}: {str(error) or type(error).__name__}") from error
    with connection:
        yield connection


@contextmanager
def tunnel(connection: fabric.Connection, remote_port: int) -> Iterator[int]:
    """Give a port on this machine's loopback that leads to one on the node's, while the context lasts.

    Raises:
        ConnectError: nothing listens there; the tunnel would only tell by its silence.
    """
    loopback = "127.0.0.1"
    try:
        probed = connection.transport.open_channel(
            "direct-tcpip", (loopback, remote_port), (loopback, 0), timeout=_CONNECT_SECONDS
        )
        probed.close()
    except (EOFError, paramiko.SSHException) as error:
        why = error.text if isinstance(error, paramiko.ChannelException) else str(error) or type(error).__name__
        raise ConnectError(f"{connection.original_host}: no way to its port {remote_port}: {why}") from error
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    with connection.forward_local(port, remote_port, remote_host="127.0.0.1"):
        yield port


def ssh_config(name: str, settings: dict[str, list[str]]) -> str:
    """Return resolved settings in the form of OpenSSH's client configuration, as far as paramiko knows them."""
    lines = [f"  {keyword} {value}" for keyword in _FOR_PARAMIKO for value in settings.get(keyword, [])]
    return "\n".join([f"Host {name}", *lines, ""])


def resolved(node: Node) -> dict[str, list[str]]:
    """Ask ssh itself what a connection would use, the person's own configuration included."""
    asked = subprocess.run(
        [*_SSH, "-G", *_options(node), node.address],
        capture_output=True,
        text=True,
        timeout=_CONNECT_SECONDS,
        check=False,
    )
    if asked.returncode:
        raise ConnectError(f"{node.name}: ssh does not understand its settings: {asked.stderr.strip()}")
    settings: dict[str, list[str]] = {}
    for line in asked.stdout.splitlines():
        keyword, _, value = line.partition(" ")
        settings.setdefault(keyword, []).append(value)
    keys = (Path(key).expanduser() for key in settings.get("identityfile", []))
    return {**settings, "identityfile": [str(key) for key in keys if key.exists()]}


def ssh_argv(node: Node, command: list[str], *, terminal: bool) -> list[str]:
    """Return the ssh(1) command line that a person would type to get to the node."""
    argv = [*_SSH, *(["-t"] if terminal else []), *_options(node)]
    return [*argv, node.address, *(["--", *command] if command else [])]


def _options(node: Node) -> list[str]:
    argv: list[str] = []
    if node.user:
        argv += ["-l", node.user]
    if node.port:
        argv += ["-p", str(node.port)]
    if node.key_file:
        argv += ["-i", node.key_file]
    for keyword, value in node.options.items():
        argv += ["-o", f"{keyword}={value}"]
    return argv


def _seconds(settings: dict[str, list[str]]) -> int:
    given = settings.get("connecttimeout", [""])[0]
    return int(given) if given.isdigit() else _CONNECT_SECONDS
