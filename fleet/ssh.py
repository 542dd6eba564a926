"""SSH to the nodes: fabric for programs, ssh(1) for people. Host keys are always checked."""

from __future__ import annotations

import socket
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import fabric
import paramiko

from fleet.errors import ConnectError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fleet.inventory import Node

_CONNECT_SECONDS = 10


@contextmanager
def connect(node: Node) -> Iterator[fabric.Connection]:
    """Open a connection to a node, and close it.

    Raises:
        ConnectError: the node does not answer, its host key is not known, or it takes no key of ours.
    """
    config = fabric.Config(ssh_config=paramiko.SSHConfig.from_text(ssh_config(node)))
    connection = fabric.Connection(node.name, config=config, connect_timeout=_CONNECT_SECONDS)
    connection.client.set_missing_host_key_policy(paramiko.RejectPolicy())
    if known_hosts := node.options.get("UserKnownHostsFile"):
        connection.client.load_host_keys(str(Path(known_hosts).expanduser()))
    try:
        connection.open()
    except (OSError, EOFError, paramiko.SSHException) as error:
        raise ConnectError(f"{node.name}: no SSH to {node.address}: {error or type(error).__name__}") from error
    with connection:
        yield connection


@contextmanager
def tunnel(connection: fabric.Connection, remote_port: int) -> Iterator[int]:
    """Give a port on this machine's loopback that leads to one on the node's, while the context lasts."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    with connection.forward_local(port, remote_port, remote_host="127.0.0.1"):
        yield port


def ssh_config(node: Node) -> str:
    """Return how to connect to a node, in the form of OpenSSH's client configuration."""
    settings = {
        "HostName": node.address,
        "User": node.user,
        "Port": node.port,
        "IdentityFile": node.key_file,
        **node.options,
    }
    lines = [f"  {keyword} {value}" for keyword, value in settings.items() if value is not None]
    return "\n".join([f"Host {node.name}", *lines, ""])


def ssh_argv(node: Node, command: list[str], *, terminal: bool) -> list[str]:
    """Return the ssh(1) command line that a person would type to get to the node."""
    argv = ["ssh", *(["-t"] if terminal else [])]
    if node.user:
        argv += ["-l", node.user]
    if node.port:
        argv += ["-p", str(node.port)]
    if node.key_file:
        argv += ["-i", node.key_file]
    for keyword, value in node.options.items():
        argv += ["-o", f"{keyword}={value}"]
    return [*argv, node.address, *(["--", *command] if command else [])]
