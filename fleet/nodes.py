"""Waiting for new nodes: each joins its tailnet by itself, and leaves how that ended in a file of its own."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from fleet import ssh
from fleet.errors import StackError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from fleet.inventory import Node

# The exit status of the join, written by what templates/cloud-init.yml.j2 runs at a node's first start.
_MARKER = "/var/lib/openclaw/ready"
# A server boots within a minute or two; a slow mirror of packages may take several.
READY_SECONDS = 600.0
_LOGIN_SECONDS = 30
_PAUSE_SECONDS = 0.3
_UNREACHABLE = 255  # ssh(1)'s own status
_LOOK = f"look on its console, in {_MARKER} and /var/log/cloud-init-output.log"


def wait(nodes: Iterable[Node], on_ready: Callable[[str], None], seconds: float = READY_SECONDS) -> None:
    """Return when each node can be reached and has joined.

    Raises:
        StackError: one has failed to join, or could not be reached for so many seconds; the message names each.
    """
    deadline = time.monotonic() + seconds

    def one(node: Node) -> str | None:
        trouble = _wait(node, deadline)
        if not trouble:
            on_ready(node.name)
        return trouble and f"{node.name}: {trouble}"

    waiting = list(nodes)
    # One deadline for all, so none may wait for its turn.
    with ThreadPoolExecutor(max_workers=max(1, len(waiting))) as pool:
        troubles = [trouble for trouble in pool.map(one, waiting) if trouble]
    if troubles:
        raise StackError("\n".join(["not every node is ready:", *troubles]))


def _wait(node: Node, deadline: float) -> str | None:
    """Return None when the node is ready, or what is wrong with it."""
    trouble = "it was not tried"
    while time.monotonic() < deadline:
        if not _is_online(node):
            trouble = f"it is not online in the tailnet; {_LOOK}"
        else:
            status, said = _marker(node)
            if status == 0:
                return None if said == "0" else f"it could not join the tailnet: {said or 'no status'}; {_LOOK}"
            reached = "it has not finished its first start" if status != _UNREACHABLE else "it cannot be reached"
            trouble = f"{reached}: {said}; {_LOOK}"
        time.sleep(_PAUSE_SECONDS)
    return trouble


def _marker(node: Node) -> tuple[int, str]:
    argv = ssh.ssh_argv(node, [f"cat {_MARKER}"], terminal=False)
    try:
        done = subprocess.run(
            [argv[0], "-o", "BatchMode=yes", *argv[1:]],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_LOGIN_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return _UNREACHABLE, f"ssh did not end within {_LOGIN_SECONDS} s"
    return done.returncode, (done.stdout if done.returncode == 0 else done.stderr).strip()


def _is_online(node: Node) -> bool:
    """Say whether the tailnet knows the node to be online; where it cannot be asked, ssh has to find out.

    To dial a node before that costs seconds: the first handshake is lost, and repeated late.
    """
    tailscale = shlex.split(os.environ.get("OPENCLAW_TAILSCALE", "tailscale"))
    if not tailscale or not shutil.which(tailscale[0]):
        return True
    try:
        done = subprocess.run(
            [*tailscale, "status", "--json"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_LOGIN_SECONDS,
            check=False,
        )
        peers = json.loads(done.stdout)["Peer"] or {}
    except (subprocess.TimeoutExpired, ValueError, KeyError):
        return True
    return any(peer.get("Online") and peer.get("DNSName") == f"{node.address}." for peer in peers.values())
