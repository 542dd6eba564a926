"""A stack of the lab's kind without machines: the real engine, the providers, and both APIs, for tests."""

from __future__ import annotations

import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

import httpx
import yaml
from hcloud import Client

from lab import tools
from lab.engine import Engine
from lab.process import PROJECT
from lab.tailscale_api.state import credentials
from tests.support.ports import free_ports

if TYPE_CHECKING:
    from pathlib import Path

    from hcloud.servers import BoundServer

# The engine hides a secret's text wherever it comes up in its output, so it must be in no other word.
TOKEN = secrets.token_hex(16)
SECONDS = 180
_SECRETS = {"hcloud:token", "tailscale:oauthClientSecret"}


@dataclass(frozen=True)
class Result:
    """What a pulumi command came to.

    Attributes:
        steps: what was done, as (operation, name), without what stayed the same and the
            engine's own stack and providers; of a preview, what would be.
    """

    status: int
    output: str
    seconds: float
    steps: list[tuple[str, str]] = field(default_factory=list)

    def succeeded(self) -> Self:
        """Return it; a command that failed is told with all its output."""
        assert self.status == 0, self.output
        return self

    @property
    def operations(self) -> dict[str, list[str]]:
        """The names by operation, sorted."""
        found: dict[str, list[str]] = {}
        for operation, name in sorted(self.steps):
            found.setdefault(operation, []).append(name)
        return found


class Apis:
    """Hetzner's and Tailscale's APIs without machines; ends them when it is left. Servers join the tailnet at once.

    Attributes:
        settings: the configuration keys with which providers use them.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self.settings: dict[str, str] = {}

    def __enter__(self) -> Self:
        self._folder.mkdir(parents=True, exist_ok=True)
        cloud, tailnet = self._ports()
        self._cloud_url, self._tailnet_url = f"http://127.0.0.1:{cloud}", f"http://127.0.0.1:{tailnet}"
        kept = self._folder / "tailnet.json"
        self._credentials = credentials(kept)
        self._serve("lab.tailscale_api", tailnet, kept, "--memory")
        token_file = self._folder / "token"
        token_file.write_text(TOKEN)
        joins = ["--token-file", str(token_file), "--seconds", "0.1", "--tailscale", self._tailnet_url]
        self._serve("lab.hetzner_api", cloud, self._folder / "cloud.sqlite", *joins)
        self._await("lab.tailscale_api", tailnet)
        self._await("lab.hetzner_api", cloud)
        self.settings = {
            "hcloud:token": TOKEN,
            "hcloud:endpoint": f"{self._cloud_url}/v1",
            "hcloud:pollInterval": "50ms",
            "tailscale:oauthClientId": self._credentials.client_id,
            "tailscale:oauthClientSecret": self._credentials.client_secret,
            "tailscale:baseUrl": self._tailnet_url,
        }
        return self

    def _ports(self) -> list[int]:
        """Return the same ports each time: a refresh asks where the state says."""
        noted = self._folder / "ports.json"
        if not noted.exists():
            noted.write_text(json.dumps(free_ports(2)))
        ports: list[int] = json.loads(noted.read_text())
        return ports

    def __exit__(self, *_: object) -> None:
        for process in self._processes.values():
            process.terminate()
        for process in self._processes.values():
            process.wait(timeout=20)

    @property
    def cloud(self) -> Client:
        """Hetzner's client, for what a person would do by hand."""
        return Client(TOKEN, f"{self._cloud_url}/v1", poll_interval=0.05)

    def fault(self, **fault: Any) -> None:
        """Have Hetzner's API fail: see lab/hetzner_api/faults.py."""
        headers = {"Authorization": f"Bearer {TOKEN}"}
        url = f"{self._cloud_url}/_lab/faults"
        httpx.post(url, json=fault, headers=headers, trust_env=False).raise_for_status()

    def mend(self) -> None:
        """Have Hetzner's API fail no more."""
        headers = {"Authorization": f"Bearer {TOKEN}"}
        httpx.delete(f"{self._cloud_url}/_lab/faults", headers=headers, trust_env=False).raise_for_status()

    def await_server(self, name: str, status: str = "") -> BoundServer:
        """Wait until a server of this name is in the API, in this state if one is given, and return it."""
        deadline = time.monotonic() + 60
        while (server := self.cloud.servers.get_by_name(name)) is None or server.status != (status or server.status):
            assert time.monotonic() < deadline, f"no server {name} {status}"
            time.sleep(0.1)
        return server

    def await_device(self, name: str) -> None:
        """Wait until a machine of this name has joined the tailnet."""
        deadline = time.monotonic() + 60
        while name not in self.devices():
            assert time.monotonic() < deadline, f"no device {name}"
            time.sleep(0.1)

    def tailnet(self, method: str, path: str, **options: Any) -> httpx.Response:
        """Call Tailscale's API, as a person with an API key."""
        headers = {"Authorization": f"Bearer {self._credentials.api_key}", **options.pop("headers", {})}
        url = f"{self._tailnet_url}/api/v2/{path}"
        return httpx.request(method, url, headers=headers, trust_env=False, **options).raise_for_status()

    def join(self, key: str, hostname: str) -> None:
        """Let a machine join the tailnet."""
        body = {"key": key, "hostname": hostname}
        httpx.post(f"{self._tailnet_url}/_lab/join", json=body, trust_env=False).raise_for_status()

    def leave(self, hostname: str) -> None:
        """Have a machine be in touch with the tailnet no more."""
        body = {"hostname": hostname}
        httpx.post(f"{self._tailnet_url}/_lab/leave", json=body, trust_env=False).raise_for_status()

    def devices(self) -> dict[str, dict[str, Any]]:
        """Return the tailnet's devices by their names."""
        devices = self.tailnet("GET", "tailnet/-/devices").json()["devices"]
        return {device["name"].partition(".")[0]: device for device in devices}

    def _serve(self, module: str, port: int, state: Path, *options: str) -> None:
        argv = [sys.executable, "-m", module, "--port", str(port), "--state", str(state), *options]
        with (self._folder / f"{module}.log").open("wb") as log:
            process = subprocess.Popen(argv, cwd=PROJECT, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        self._processes[module] = process

    def _await(self, module: str, port: int) -> None:
        process = self._processes[module]
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline and process.poll() is None:
            with socket.socket() as attempt:
                if attempt.connect_ex(("127.0.0.1", port)) == 0:
                    return
            time.sleep(0.05)
        raise AssertionError((self._folder / f"{module}.log").read_text())


class Stack:
    """A stack of a Pulumi project, with an engine of its own.

    Args:
        folder: where everything is kept.
        project: the folder of Pulumi.yaml; the kit's own by default.
        apis: whose settings the configuration begins with.
    """

    def __init__(self, folder: Path, *, project: Path = PROJECT, apis: Apis | None = None) -> None:
        self.folder = folder
        self.project = project
        self.engine = Engine(folder / "pulumi", tools.path("pulumi"))
        self.engine.create_stack()
        self._environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("PULUMI_")},
            **self.engine.environment(),
            "PULUMI_DEBUG_COMMANDS": "true",  # for --event-log
        }
        self.settings: dict[str, Any] = {}
        given = apis.settings if apis else {}
        self.configure({key: value for key, value in given.items() if key not in _SECRETS})
        self._hide({key: value for key, value in given.items() if key in _SECRETS})

    def configure(self, settings: dict[str, Any]) -> None:
        """Set configuration keys; one that is None is taken away."""
        self.settings |= settings
        written = yaml.safe_load(self.engine.config.read_text()) or {}
        written["config"] = {key: value for key, value in self.settings.items() if value is not None}
        self.engine.config.write_text(yaml.safe_dump(written))

    def _hide(self, hidden: dict[str, str]) -> None:
        """Set configuration keys encrypted, as the program wants its tokens."""
        if hidden:
            pairs = [word for key, value in hidden.items() for word in ("--secret", f"{key}={value}")]
            self._checked("config", "set-all", *pairs)
            written = yaml.safe_load(self.engine.config.read_text())["config"]
            self.settings |= {key: written[key] for key in hidden}

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """Start a pulumi command on the stack and return its process."""
        return subprocess.Popen(
            [str(self.engine.pulumi), "--non-interactive", *arguments],
            cwd=self.project,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def run(self, *arguments: str) -> Result:
        """Run a pulumi command to its end."""
        began = time.monotonic()
        process = self.start(*arguments)
        try:
            output, _ = process.communicate(timeout=SECONDS)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            raise
        return Result(process.returncode, output, time.monotonic() - began)

    def up(self, *options: str) -> Result:
        """Bring the stack up to the program, without a preview first."""
        return self._operate("up", "--yes", "--skip-preview", *options)

    def preview(self, *options: str) -> Result:
        return self._operate("preview", *options)

    def refresh(self, *options: str) -> Result:
        return self._operate("refresh", "--yes", "--skip-preview", *options)

    def destroy(self, *options: str) -> Result:
        """Destroy the stack, with the program's hooks."""
        return self._operate("destroy", "--yes", "--skip-preview", "--run-program", *options)

    def outputs(self) -> dict[str, Any]:
        """Return the stack's outputs, secrets too."""
        found: dict[str, Any] = json.loads(self._checked("stack", "output", "--json", "--show-secrets"))
        return found

    def state(self) -> str:
        """Return the state as it is kept, for what must not be in it."""
        return (self.engine.folder / f"state/.pulumi/stacks/{self.engine.project}/{self.engine.stack}.json").read_text()

    def resources(self) -> list[dict[str, Any]]:
        """Return the resources in the state."""
        found: list[dict[str, Any]] = json.loads(self.state())["checkpoint"]["latest"].get("resources") or []
        return found

    def _checked(self, *arguments: str) -> str:
        return self.run(*arguments).succeeded().output

    def _operate(self, command: str, *options: str) -> Result:
        log = self.folder / "events.json"
        log.unlink(missing_ok=True)
        result = self.run(command, "--event-log", str(log), *options)
        return Result(result.status, result.output, result.seconds, _steps(log))


def _steps(log: Path) -> list[tuple[str, str]]:
    if not log.exists():
        return []
    steps = []
    for line in log.read_text().splitlines():
        event = json.loads(line)
        done = event.get("resOutputsEvent", {}).get("metadata")
        if done and done["op"] not in {"same", "read"} and not done["type"].startswith("pulumi:"):
            steps.append((done["op"], done["urn"].rpartition("::")[2]))
    return sorted(set(steps))
