"""What the roles' scenarios share: the lab's hosts, seen from the controller and as root."""

from __future__ import annotations

import json
import os
import shlex
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import testinfra
import yaml

from tests.support import programs

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterator, Mapping, Sequence

    from testinfra.backend.base import CommandResult
    from testinfra.host import Host

INVENTORY = Path(os.environ["LAB_INVENTORY"])
LAB: dict[str, Any] = yaml.safe_load(INVENTORY.read_text())["all"]
_KEY = ("-i", LAB["vars"]["ansible_ssh_private_key_file"])
_OPTIONS = (*shlex.split(LAB["vars"]["ansible_ssh_common_args"]), "-o", "ControlPath=none")
_CONNECT = "import socket, sys; socket.create_connection((sys.argv[1], int(sys.argv[2])), 3)"
_OPERATOR = "X-Bot-Token: $(cat /etc/openclaw/operator-token)"


@pytest.fixture
def root(host: Host) -> Iterator[Host]:
    """The host, on which commands are root's meanwhile."""
    with host.sudo():
        yield host


@pytest.fixture
def address(host: Host) -> str:
    """Where the controller finds the host."""
    return str(LAB["hosts"][host.backend.get_hostname()]["ansible_host"])


@pytest.fixture(scope="module")
def broker() -> Iterator[Host]:
    """The broker's host, on which commands are root's."""
    host = other("broker-1")
    with host.sudo():
        yield host


def other(name: str) -> Host:
    """Return another of the lab's hosts."""
    return testinfra.get_host(f"ansible://{name}", ansible_inventory=str(INVENTORY))


def log_in(
    user: str,
    address: str,
    *command: str,
    options: Sequence[str] = _KEY,
    environment: Mapping[str, str] | None = None,
) -> subprocess.CompletedProcess[str]:
    """Log in from the controller, by default with the lab's key, and with nothing else."""
    return programs.run(["ssh", *options, *_OPTIONS, f"{user}@{address}", *command], environment=environment)


@contextmanager
def listeners(root: Host, *ports: int) -> Iterator[None]:
    """Have something listen on these ports of a host."""
    try:
        for port in ports:
            unit = f"systemd-run --quiet --collect --unit=listen-{port}"
            root.check_output(f"{unit} python3 -m http.server --bind 0.0.0.0 {port}")
        for port in ports:
            root.check_output(f"timeout 10 sh -c 'until ss -Hltn sport = :{port} | grep -q .; do sleep 0.05; done'")
        yield
    finally:
        for port in ports:
            root.run(f"systemctl stop listen-{port}.service")


def connect(host: Host, address: str, port: int) -> CommandResult:
    """Connect from a host to a port of another; the attempt fails where nothing answers within three seconds."""
    return host.run(f"python3 -c '{_CONNECT}' {address} {port}")


def call(broker: Host, path: str, body: dict[str, Any] | None = None, *, port: int = 8000) -> dict[str, Any]:
    """Call the broker on its host as the operator; the shell adds the token, so that no log has it."""
    data = f"--json '{json.dumps(body)}'" if body else ""
    curl = f"curl --silent --fail-with-body --max-time 40 --header @- {data} 'http://127.0.0.1:{port}{path}'"
    answer: dict[str, Any] = json.loads(broker.check_output(f'echo "{_OPERATOR}" | {curl}'))
    return answer
