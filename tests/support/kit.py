"""The kit's own stack without machines: a fleet over its life, and the command line in its environment."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fleet import stack as stacks
from lab.process import PROJECT
from tests.support.engine import Apis, Stack

if TYPE_CHECKING:
    from collections.abc import Callable

PROGRAMS = Path(sys.executable).parent
PUBLIC_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl one"
BROKER: dict[str, Any] = {"role": "broker", "protect": False, "volume": {"size": 10, "keep": False}}
NODES: dict[str, Any] = {"broker-1": BROKER, "agents-1": {"role": "runner"}, "agents-2": {"role": "runner"}}
SETTINGS = {
    "fleet:sshKeys": [PUBLIC_KEY],
    "fleet:nodes": NODES,
    "tailnet:policy": "manage",
    "tailnet:domain": "tail.lab",
    "tailnet:admins": [],
}


class Fleet:
    """A stack of the kit's, and the APIs that it uses."""

    def __init__(self, folder: Path, apis: Apis) -> None:
        self.apis = apis
        self.stack = Stack(folder, apis=apis)
        self.stack.configure(SETTINGS)

    def nodes(self, **changed: Any) -> None:
        """Change nodes of the configuration; underscores are hyphens, and None takes one away."""
        names = {name.replace("_", "-"): node for name, node in changed.items()}
        nodes = {**self.stack.settings["fleet:nodes"], **names}
        self.stack.configure({"fleet:nodes": {name: node for name, node in nodes.items() if node is not None}})

    def up(self) -> dict[str, list[str]]:
        """Bring it up; return what was done, by operation."""
        return self.stack.up().succeeded().operations

    def is_settled(self) -> None:
        """See that nothing is left to do, as the configuration says and as things are."""
        self.stack.up("--refresh", "--expect-no-changes").succeeded()

    def servers(self) -> dict[str, int]:
        return {str(server.name): int(server.id or 0) for server in self.apis.cloud.servers.get_all()}

    def location(self, name: str) -> str:
        server = self.apis.cloud.servers.get_by_name(name)
        assert server
        assert server.location
        return str(server.location.name)

    def hosts(self) -> dict[str, dict[str, Any]]:
        return {host["name"]: host for host in self.stack.outputs()["inventory"]["hosts"]}

    def start(self, program: str) -> subprocess.Popen[str]:
        """Start a Python program in a session of its own, as a terminal would have it."""
        return subprocess.Popen(
            [sys.executable, "-c", program],
            cwd=PROJECT,
            env={**os.environ, **self.environment()},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def environment(self) -> dict[str, str]:
        """Return the variables with which the command line is about this stack."""
        return {
            **self.stack.engine.environment(),
            "XDG_STATE_HOME": str(self.stack.folder / "state"),
            "ANSIBLE_HOME": str(self.stack.folder / "ansible"),
        }

    @staticmethod
    def wait_for(condition: Callable[[], object], what: str) -> None:
        """Wait until a condition holds."""
        deadline = time.monotonic() + 180
        while not condition():
            assert time.monotonic() < deadline, f"waited for {what}"
            time.sleep(0.02)


def selected_stack() -> stacks.Stack:
    """Return what the command line works on."""
    selected = stacks.selected()
    assert selected
    return selected
