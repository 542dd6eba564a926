"""The stand-in of Hetzner's API as a process, and the official client for it."""

from __future__ import annotations

import contextlib
import secrets
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from hcloud import Client
from hcloud.images import Image
from hcloud.locations import Location
from hcloud.server_types import ServerType

from tests.support.ports import free_port

if TYPE_CHECKING:
    from collections.abc import Iterator

_PROJECT = Path(__file__).resolve().parents[2]
_START_SECONDS = 60


class Hetzner:
    """A stand-in with a state file of its own. Its actions take no time unless told otherwise."""

    def __init__(self, state: Path, *, seconds: float = 0, tailscale: str = "") -> None:
        self.state = state
        self.token = secrets.token_hex(16)
        self._options = ["--seconds", str(seconds), "--tailscale", tailscale]
        self._port = free_port()
        self.root = f"http://127.0.0.1:{self._port}"
        self.endpoint = f"{self.root}/v1"
        self.process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        """Start it, or start it again with the state that it left."""
        token_file = self.state.with_name(f"{self.state.name}.token")
        token_file.write_text(self.token)
        files = ["--state", str(self.state), "--token-file", str(token_file)]
        options = ["--port", str(self._port), *files, *self._options]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "lab.hetzner_api", *options],
            cwd=_PROJECT,
            stdin=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        deadline = time.monotonic() + _START_SECONDS
        while self.process.poll() is None and time.monotonic() < deadline:
            with contextlib.suppress(httpx.TransportError):
                self.call("GET", "/v1/locations")
                return
            time.sleep(0.05)
        self.stop(signal.SIGKILL)
        raise AssertionError("the stand-in did not start")

    def stop(self, how: signal.Signals = signal.SIGTERM) -> str:
        """End it and return what it wrote to its standard error."""
        assert self.process
        self.process.send_signal(how)
        return self.process.communicate(timeout=30)[1]

    def client(self, *, retries: int = 0) -> Any:
        """Return the official client, which polls without delay and retries as often as told, at once."""
        client = Client(self.token, self.endpoint, poll_interval=0.01, poll_max_retries=5000, timeout=60)
        # The client has no public way to say either.
        client._client._retry_max_retries = retries
        client._client._retry_interval_func = lambda retries: 0.01
        return client

    def call(self, method: str, path: str, body: Any = None, **options: Any) -> httpx.Response:
        """Make a call without the official client; `path` begins with /v1 or /_lab."""
        options.setdefault("headers", {"Authorization": f"Bearer {self.token}"})
        return httpx.request(method, self.root + path, json=body, timeout=60, trust_env=False, **options)

    def fault(self, **fault: Any) -> None:
        """Have a call or an action go wrong: see lab/hetzner_api/faults.py."""
        assert self.call("POST", "/_lab/faults", fault).status_code == httpx.codes.CREATED

    def limit(self, **limits: int) -> None:
        """Set how many resources of each kind the project may have."""
        assert self.call("PUT", "/_lab/limits", limits).status_code == httpx.codes.NO_CONTENT


def unique(stem: str = "x") -> str:
    """Return a name that no other test has."""
    return f"{stem}-{secrets.token_hex(4)}"


def create_server(client: Any, **options: Any) -> Any:
    """Make a server, wait until it runs, and return it as it is then."""
    created = start_server(client, **options)
    created.action.wait_until_finished()
    for action in created.next_actions:
        action.wait_until_finished()
    return client.servers.get_by_id(created.server.id)


def start_server(client: Any, **options: Any) -> Any:
    """Ask for a server, and do not wait for it."""
    options = {
        "name": unique("server"),
        "server_type": ServerType(name="cx23"),
        "image": Image(name="debian-12"),
        "location": Location(name="fsn1"),
        **options,
    }
    return client.servers.create(**options)


@pytest.fixture(scope="module")
def hetzner(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hetzner]:
    """A stand-in that the tests of a module share."""
    stand_in = Hetzner(tmp_path_factory.mktemp("hetzner") / "state")
    stand_in.start()
    yield stand_in
    stand_in.stop()


@pytest.fixture
def cloud(hetzner: Hetzner) -> Any:
    """The official client."""
    return hetzner.client()
