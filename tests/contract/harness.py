"""A real broker process, and clients whose every answer is held against its own OpenAPI document."""

from __future__ import annotations

import importlib
import os
import re
import shlex
import signal
import socket
import ssl
import subprocess
import sys
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import httpx

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

_COMMAND = shlex.join([sys.executable, "-m", "broker_app"])
_START_SECONDS = 15.0
_STOP_SECONDS = 15.0
# Made once: reading the authorities for each client, which none needs here, would be most of the suite's time.
TLS = ssl.create_default_context()
_jsonschema = importlib.import_module("jsonschema")


def program() -> list[str]:
    """The broker's command line: ours, or that of the other program that `CONTRACT_COMMAND` names."""
    return shlex.split(os.environ.get("CONTRACT_COMMAND", _COMMAND))


class NotStartedError(Exception):
    """The broker ended, or did not answer in time."""


class Document:
    """An OpenAPI document, as the judge of answers."""

    def __init__(self, document: dict[str, Any]) -> None:
        self.document = document
        self._validators: dict[str, Any] = {}
        # The fixed paths first: /jobs/next also looks like /jobs/{id}.
        paths = sorted(document["paths"], key=lambda path: path.count("{"))
        self._patterns = {path: re.compile(re.sub(r"\{[^/]*\}", "[^/]+", path)) for path in paths}

    def statuses(self) -> set[tuple[str, str, int]]:
        """Every documented (method, path, status)."""
        return {
            (method.upper(), path, int(status))
            for path, item in self.document["paths"].items()
            for method, operation in item.items()
            for status in operation["responses"]
        }

    def operation(self, method: str, path: str) -> tuple[str, dict[str, Any]] | None:
        """The documented path that a request's path is of, and its operation."""
        for template, pattern in self._patterns.items():
            if pattern.fullmatch(path):
                operation = self.document["paths"][template].get(method.lower())
                return None if operation is None else (template, operation)
        return None

    def judge(self, response: httpx.Response) -> None:
        """Fail on an answer that the document does not promise; calls it does not know are 404 or 405."""
        request = response.request
        found = self.operation(request.method, request.url.path)
        if found is None:
            assert response.status_code in (404, 405), response
            return
        promised = found[1]["responses"].get(str(response.status_code))
        assert promised is not None, f"{request.method} {found[0]} → {response.status_code} is not documented"
        promised = self._resolved(promised)
        kind = response.headers["content-type"].partition(";")[0]
        content = promised["content"][kind]
        if kind == "application/json":
            assert response.headers["content-type"] == kind
            self._validator(content["schema"]).validate(response.json())
        for name, header in promised.get("headers", {}).items():
            if header["required"] or name in response.headers:
                assert re.fullmatch(header["schema"].get("pattern", ".*"), response.headers[name])

    def _resolved(self, item: dict[str, Any]) -> dict[str, Any]:
        if "$ref" not in item:
            return item
        found: Any = self.document
        for part in item["$ref"].removeprefix("#/").split("/"):
            found = found[part]
        return dict(found)

    def _validator(self, schema: dict[str, Any]) -> Any:
        key = repr(schema)
        if key not in self._validators:
            whole = {**schema, "components": self.document["components"]}
            self._validators[key] = _jsonschema.Draft202012Validator(whole)
        return self._validators[key]


class Endpoint:
    """Where a broker answers, and the tokens it takes."""

    def __init__(self, url: str, bot_token: str, worker_token: str) -> None:
        self.url = url
        self.bot_token = bot_token
        self.worker_token = worker_token
        self._clients: list[httpx.Client] = []
        self._document: Document | None = None

    @property
    def document(self) -> Document:
        """The broker's own OpenAPI document."""
        if self._document is None:
            self._document = Document(httpx.get(f"{self.url}/openapi.json", verify=TLS).json())
        return self._document

    def client(self, headers: Mapping[str, str] | None = None) -> httpx.Client:
        """A client whose answers are judged; closed with the broker."""

        def judge(response: httpx.Response) -> None:
            response.read()
            self.document.judge(response)

        hooks = {"response": [judge]}
        client = httpx.Client(base_url=self.url, headers=headers, timeout=30, event_hooks=hooks, verify=TLS)
        self._clients.append(client)
        return client

    def bot(self) -> httpx.Client:
        """A submitter."""
        return self.client({"X-Bot-Token": self.bot_token})

    def worker(self, name: str | None = None, caps: str | None = None) -> httpx.Client:
        """A worker, with X-Worker-Id and X-Worker-Caps if given."""
        headers = {"X-Worker-Token": self.worker_token}
        if name is not None:
            headers["X-Worker-Id"] = name
        if caps is not None:
            headers["X-Worker-Caps"] = caps
        return self.client(headers)

    @property
    def admin_token(self) -> str:
        """An admin's token, of one that runs already."""
        return os.environ["CONTRACT_ADMIN_TOKEN"]

    def admin(self) -> httpx.Client:
        """One who may do everything, as the hub knows it."""
        return self.client({"Authorization": f"Bearer {self.admin_token}"})

    def socket(self) -> socket.socket:
        """A bare connection."""
        host, port = self.url.removeprefix("http://").rsplit(":", 1)
        return socket.create_connection((host, int(port)), timeout=10)

    def disconnect(self) -> None:
        """Close the clients."""
        for client in self._clients:
            client.close()
        self._clients.clear()

    def close(self) -> None:
        """Close the clients."""
        self.disconnect()


class Broker(Endpoint):
    """A broker process of the test's own."""

    def __init__(self, directory: Path, settings: Mapping[str, str]) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        super().__init__(f"http://127.0.0.1:{port}", "bot-secret", "worker-secret")
        self.log = directory / "broker.log"
        self._admin_token = ""
        self.environment = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": os.environ.get("PYTHONPATH", ""),
            "BROKER_DB": str(directory / "broker.db"),
            "BROKER_PORT": str(port),
            "BOT_TOKEN": self.bot_token,
            "WORKER_TOKEN": self.worker_token,
            **settings,
        }
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """The process."""
        assert self.process is not None
        return self.process.pid

    def start(self) -> Broker:
        """Start, and wait until it answers."""
        command = [*program(), "serve"]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(command, env=self.environment, stdout=log, stderr=log)
        deadline = time.monotonic() + _START_SECONDS
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                break
            with suppress(httpx.TransportError):
                httpx.get(f"{self.url}/health", timeout=1, verify=TLS)
                return self
            time.sleep(0.02)
        raise NotStartedError(self.log.read_text())

    @property
    def admin_token(self) -> str:
        """An admin's token, minted when it is needed first."""
        if not self._admin_token:
            self._admin_token = self.command("token", "mint", "admin", "--role", "admin").stdout.strip()
        return self._admin_token

    def command(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run another command of the broker's command line beside it."""
        command = [*program(), *arguments]
        return subprocess.run(
            command, env=self.environment, capture_output=True, text=True, timeout=_STOP_SECONDS, check=False
        )

    def signal(self, number: signal.Signals) -> int:
        """Send a signal that ends it; returns its exit status."""
        assert self.process is not None
        self.process.send_signal(number)
        return self.process.wait(_STOP_SECONDS)

    def restart(self) -> None:
        """Stop as systemd does, and start again."""
        assert self.signal(signal.SIGTERM) == 0, self.log.read_text()
        self.start()

    def close(self) -> None:
        """Close the clients and end the process."""
        super().close()
        if self.process is not None and self.process.poll() is None:
            self.signal(signal.SIGKILL)


def submit(bot: httpx.Client, **fields: Any) -> str:
    """Queue a job (a ping unless said otherwise); returns its id."""
    response = bot.post("/jobs", json={"command": "ping", **fields})
    assert response.status_code == 200, response.text
    return str(response.json()["id"])


def claim(worker: httpx.Client, wait: float = 0) -> Any:
    """The next job of a worker, None if there is none."""
    response = worker.get("/jobs/next", params={"wait": wait} if wait else None)
    assert response.status_code == 200, response.text
    return response.json()["job"]


def caps(*names: str) -> dict[str, list[str]]:
    """A requirement."""
    return {"caps": list(names)}
