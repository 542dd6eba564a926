"""The stand-in of the Tailscale API as a process of its own, over a tailnet in memory or a lab's."""

from __future__ import annotations

import subprocess
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import httpx

from lab import relay
from lab.process import PROJECT, wait_until
from lab.tailscale_api import Credentials, credentials
from tests.support.ports import free_port

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class Client(httpx.Client):
    """Calls as a client of Tailscale's makes them: paths below /api/v2, the person's API key unless said otherwise."""

    def __init__(self, url: str, known: Credentials) -> None:
        super().__init__(base_url=f"{url}/api/v2/", auth=(known.api_key, ""), timeout=30)
        self.headers["Accept"] = "application/json"
        self.url = url
        self.known = known

    def key(self, *tags: str, **create: Any) -> dict[str, Any]:
        """Make a key that must be made."""
        seconds = create.pop("seconds", 600)
        body = {"capabilities": {"devices": {"create": {"tags": list(tags), **create}}}, "expirySeconds": seconds}
        answer = self.post("tailnet/-/keys", json=body)
        assert answer.status_code == 200, answer.text
        return dict(answer.json())

    def set_policy(self, text: str, **headers: str) -> httpx.Response:
        return self.post("tailnet/-/acl", content=text, headers={"Content-Type": "application/hujson", **headers})

    def devices(self) -> dict[str, dict[str, Any]]:
        """Return all devices by the first part of their names."""
        devices = self.get("tailnet/-/devices").json()["devices"]
        return {device["name"].partition(".")[0]: device for device in devices}

    def join(self, key: str, hostname: str) -> httpx.Response:
        return self.post(f"{self.url}/_lab/join", json={"key": key, "hostname": hostname})


@contextmanager
def serve(state: Path, *behind: str) -> Iterator[Client]:
    """Serve a state file; `behind` is `--memory`, or `--lab` and a name."""
    port = free_port()
    log = state.with_suffix(".log")
    with log.open("ab") as output:
        server = subprocess.Popen(
            [sys.executable, "-m", "lab.tailscale_api", "--port", str(port), "--state", str(state), *behind],
            cwd=PROJECT,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )
    try:
        wait_until(lambda: relay.answers(port) or server.poll(), what=f"the stand-in (log: {log})", timeout=20)
        assert server.poll() is None, log.read_text()
        with Client(f"http://127.0.0.1:{port}", credentials(state)) as client:
            yield client
    finally:
        server.kill()
        server.wait()
