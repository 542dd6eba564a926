"""A lab's stack: what answers for Hetzner and Tailscale, and the configuration that leads Pulumi to it."""

from __future__ import annotations

import os
import secrets
import shlex
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import yaml

from lab import files, relay, tools
from lab.engine import Engine
from lab.errors import CommandFailedError
from lab.process import PROJECT, wait_until
from lab.tailnet import Tailnet
from lab.tailscale_api.state import credentials

if TYPE_CHECKING:
    from pathlib import Path

    from lab.lab import Lab

_NODES = PROJECT / "infra/Pulumi.lab.yaml"
_HETZNER_PORT = 8090
_TAILSCALE_PORT = 8091
_FILES_PORT = 8092  # in the lab's own network
_SERVICE_SECONDS = 20.0
_PULUMI_SECONDS = 60


class LabStack:
    """The stack of one lab. Everything it keeps is in the lab's folder."""

    def __init__(self, lab: Lab) -> None:
        self._lab = lab
        self._cloud = lab.folder / "cloud"
        self._tailscale_state = lab.folder / "tailnet/api.json"
        self._token_file = self._cloud / "token"
        self.variables = self._cloud / "variables.yml"
        self.tailnet = Tailnet(lab)

    @property
    def is_up(self) -> bool:
        """Whether what its configuration leads to answers."""
        serving = all(map(self._lab.is_serving, ("hetzner-api", "tailscale-api", "headscale")))
        return serving and tools.is_cached("pulumi") and self.engine.config.exists()

    @property
    def engine(self) -> Engine:
        """Pulumi, with a home in the lab's folder."""
        return Engine(self._lab.folder / "pulumi", tools.path("pulumi"))

    def start(self) -> None:
        """Have the two APIs answer, and the archive of tailscale's programs be there for the hosts to fetch."""
        self._cloud.mkdir(parents=True, exist_ok=True)
        if not self._token_file.exists():
            files.replace(self._token_file, secrets.token_urlsafe(32), mode=0o600)
        lab, state = self._lab.name, self._cloud / "state.sqlite"
        hetzner = ("--state", str(state), "--token-file", str(self._token_file), "--lab", lab)
        self._serve("hetzner-api", "lab.hetzner_api", _HETZNER_PORT, *hetzner)
        tailscale = ("--state", str(self._tailscale_state), "--lab", lab)
        self._serve("tailscale-api", "lab.tailscale_api", _TAILSCALE_PORT, *tailscale)
        self._serve_files(tools.tailscale_archive().parent)

    def _serve(self, name: str, module: str, preferred_port: int, *arguments: str) -> None:
        if not self._lab.is_serving(name):
            port = relay.free_port(self._port(name) or preferred_port)
            self._port_file(name).write_text(str(port))
            self._lab.service(name, module, "--port", str(port), *arguments)
        log = self._lab.folder / f"{name}.log"
        wait_until(lambda: relay.answers(self._port(name)), what=f"{name} (log: {log})", timeout=_SERVICE_SECONDS)

    def _port_file(self, name: str) -> Path:
        return self._cloud / f"{name}.port"

    def _port(self, name: str) -> int:
        file = self._port_file(name)
        return int(file.read_text()) if file.exists() else 0

    def _serve_files(self, folder: Path) -> None:
        if self._lab.is_serving("files"):
            return
        server = [sys.executable, "-m", "http.server", "--bind", self._lab.gateway, "--directory", str(folder)]
        enter = ["nsenter", f"--net={self._lab.namespace}"]
        self._lab.service("files", "lab.execute", *enter, *server, str(_FILES_PORT))

    def configure(self) -> None:
        """Write the stack's configuration: the checked-in nodes, the lab's endpoints, and its secrets.

        What `pulumi config set` has changed since stays, until the checked-in nodes are others.
        """
        self._write_variables()
        self.engine.create_stack()
        kept: dict[str, Any] = yaml.safe_load(self.engine.config.read_text()) or {}
        own: dict[str, Any] = kept.get("config", {})
        hidden = {key: value for key, value in own.items() if isinstance(value, dict) and "secure" in value}
        salt = {key: value for key, value in kept.items() if key.startswith("encryption")}
        nodes, taken = _NODES.read_text(), self._cloud / "nodes.yml"
        if not taken.exists() or taken.read_text() != nodes:
            own = yaml.safe_load(nodes)["config"]
        configuration = {**salt, "config": {**own, **self._endpoints(), **hidden}}
        files.replace(self.engine.config, yaml.safe_dump(configuration, sort_keys=False))
        taken.write_text(nodes)
        for key, value in self._secrets().items():
            if key not in hidden:
                self._hide(key, value)

    def _write_variables(self) -> None:
        """Write, as an inventory, what Ansible must know of this tailnet and cannot learn from the stack."""
        variables = {"tailscale_archive": str(tools.tailscale_archive())}
        self.variables.write_text(yaml.safe_dump({"tailnet": {"vars": variables}}))

    @staticmethod
    def _digest(archive: Path) -> str:
        return archive.with_name(f"{archive.name}.sha256").read_text().split()[0]

    def _endpoints(self) -> dict[str, Any]:
        archive = tools.tailscale_archive()
        url = f"http://{self._lab.gateway}:{_FILES_PORT}/{archive.name}"
        return {
            "hcloud:endpoint": f"http://127.0.0.1:{self._port('hetzner-api')}/v1",
            "tailscale:baseUrl": f"http://127.0.0.1:{self._port('tailscale-api')}",
            "fleet:sshKeys": [self._lab.public_key.read_text().strip()],
            "tailnet:archive": {"url": url, "sha256": self._digest(archive)},
        }

    def _secrets(self) -> dict[str, str]:
        client = credentials(self._tailscale_state)
        return {
            "hcloud:token": self._token_file.read_text(),
            "tailscale:oauthClientId": client.client_id,
            "tailscale:oauthClientSecret": client.client_secret,
        }

    def _hide(self, key: str, value: str) -> None:
        """Have pulumi encrypt a value; it goes in by standard input, where no list of processes shows it."""
        done = subprocess.run(
            ["pulumi", "config", "set", "--secret", key, "--non-interactive"],
            cwd=PROJECT,
            env={**os.environ, **self.settings()},
            input=value,
            capture_output=True,
            text=True,
            timeout=_PULUMI_SECONDS,
            check=False,
        )
        if done.returncode:
            raise CommandFailedError(f"pulumi config set {key}: status {done.returncode}: {done.stderr.strip()}")

    def settings(self) -> dict[str, str]:
        """Return the variables with which the product's own commands are about this stack."""
        engine = self.engine
        return {
            **engine.environment(),
            "OPENCLAW_TAILSCALE": shlex.join(self.tailnet.command),
        }
