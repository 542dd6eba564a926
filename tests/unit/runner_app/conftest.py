"""A real broker and real runners on loopback."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from runner_app.settings import Settings, from_environment

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

SECONDS = 30.0
_IDENTITY = {f"GIT_{who}_{what}": "somebody@example" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
GIT = {"PATH": os.environ["PATH"], "GIT_CONFIG_GLOBAL": "/dev/null", "GIT_TEMPLATE_DIR": "", **_IDENTITY}
_GLOBAL = {"Authorization": "Bearer global"}


def until(condition: Callable[[], Any], seconds: float = SECONDS) -> Any:
    """Wait until something is true, and return it."""
    end = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.02)
    return value


class Broker:
    """`python -m broker_app serve`, which can be stopped and started again on its port."""

    def __init__(self, directory: Path, lease_seconds: float) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._environment = {
            "PATH": os.environ["PATH"],
            "BROKER_DB": str(directory / "broker.db"),
            "BROKER_PORT": str(self.port),
            "WORKER_TOKEN": "worker",
            "BOT_TOKEN": "bot",
            "API_KEY": "global",
            "AGENT_API_KEYS": "w1=own",
            "LEASE_SECONDS": str(lease_seconds),
        }
        self._http = httpx.Client(base_url=self.url, headers={"X-Bot-Token": "bot"}, timeout=40, trust_env=False)
        self._process: subprocess.Popen[bytes] | None = None

    def mint(self, role: str, name: str) -> str:
        """Have it know one more token."""
        command = [sys.executable, "-m", "broker_app", "token", "mint", "--role", role, name]
        done = subprocess.run(command, env=self._environment, capture_output=True, text=True, check=True)
        return done.stdout.strip()

    def start(self) -> None:
        """Start it, and wait until it answers."""
        self._process = subprocess.Popen([sys.executable, "-m", "broker_app", "serve"], env=self._environment)
        until(self._answers)

    def stop(self) -> None:
        """End it in order."""
        if self._process:
            self._process.terminate()
            self._process.wait(SECONDS)
            self._process = None

    def close(self) -> None:
        """End it and its client."""
        self.stop()
        self._http.close()

    def _answers(self) -> bool:
        try:
            return self._http.get("/health").is_success
        except httpx.HTTPError:
            return False

    def submit(self, command: str, payload: object = "", **more: object) -> str:
        """Submit a job; a payload that is no string is sent as JSON."""
        text = payload if isinstance(payload, str) else json.dumps(payload)
        answer = self._http.post("/jobs", json={"command": command, "payload": text, **more})
        return str(answer.raise_for_status().json()["id"])

    def submit_task(self, kind: str, payload: dict[str, Any], **more: object) -> str:
        """Submit a job in the tasks dialect."""
        answer = self._http.post("/api/tasks", json={"type": kind, "payload": payload, **more}, headers=_GLOBAL)
        return str(answer.raise_for_status().json()["task"]["id"])

    def task(self, job_id: str) -> dict[str, Any]:
        """Look a job up in the tasks dialect."""
        return dict(self._http.get(f"/api/tasks/{job_id}", headers=_GLOBAL).raise_for_status().json())

    def register(self, agent: str) -> None:
        """Register an agent in the hub's dialect."""
        headers = {"Authorization": f"Bearer {self.mint('admin', 'registrar')}"}
        self._http.post("/agents/register", json={"agentId": agent}, headers=headers).raise_for_status()

    def submit_to(self, agent: str, kind: str, **payload: object) -> str:
        """Submit a job in the hub's dialect."""
        answer = self._http.post(f"/agents/{agent}/task", json={"type": kind, **payload})
        return str(answer.raise_for_status().json()["taskId"])

    def agent(self, name: str) -> dict[str, Any]:
        """Look an agent up in the hub's dialect."""
        return dict(self._http.get(f"/agents/{name}/status").raise_for_status().json()["agent"])

    def log(self, name: str, job_id: str) -> list[str]:
        """What an agent has told of a job's output."""
        return [line["text"] for line in self.log_lines(name) if line["taskId"] == job_id]

    def log_lines(self, name: str) -> list[dict[str, Any]]:
        """What an agent has told, with when it came."""
        return list(self._http.get(f"/agents/{name}/log").raise_for_status().json()["lines"])

    def job(self, job_id: str, wait: float = 0) -> dict[str, Any]:
        """Look a job up."""
        answer = self._http.get(f"/jobs/{job_id}", params={"wait": wait})
        return dict(answer.raise_for_status().json())

    def finished(self, job_id: str) -> dict[str, Any]:
        """Wait for a job's end."""
        return dict(until(lambda: (job := self.job(job_id, 5))["status"] in {"done", "failed"} and job))

    def cancel(self, job_id: str) -> None:
        """Cancel a job."""
        self._http.post(f"/jobs/{job_id}/cancel", json={"reason": "not wanted"}).raise_for_status()

    def events(self, job_id: str, after: int = 0, wait: float = 0) -> dict[str, Any]:
        """What a job has reported after an event."""
        answer = self._http.get(f"/jobs/{job_id}/events", params={"after": after, "wait": wait})
        return dict(answer.raise_for_status().json())

    def printed(self, job_id: str) -> str:
        """What a job has printed, as far as its worker told."""
        return "".join(event["text"] for event in self.events(job_id)["events"] if event["type"] == "log")

    def claim_for_nobody(self, worker: str) -> None:
        """Lease a job to a worker that does not hear of it."""
        headers = {"X-Worker-Token": "worker", "X-Worker-Id": worker}
        assert self._http.get("/jobs/next", headers=headers).raise_for_status().json()["job"]

    def take_away(self, job_id: str) -> None:
        """Close a running job behind its worker's back."""
        headers = {"X-Worker-Token": "worker", "X-Worker-Id": self.job(job_id)["worker_id"]}
        self._http.post(f"/jobs/{job_id}/fail", json={"error": "taken away"}, headers=headers).raise_for_status()


class Runner:
    """`python -m runner_app` with a state of its own."""

    def __init__(self, broker_url: str, directory: Path) -> None:
        self.state = directory / "state"
        self.workspace = directory / "workspace"
        self.log = directory / "runner.log"
        self.environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(directory / "home"),
            "BROKER_URL": broker_url,
            "WORKER_TOKEN": "worker",
            "WORKER_ID": "w1",
            "RUNNER_STATE_DIR": str(self.state),
            "RUNNER_WORKSPACE": str(self.workspace),
            "RUNNER_BACKEND": "process",
            "POLL_INTERVAL_SEC": "0.5",
        }
        self._process: subprocess.Popen[bytes] | None = None

    def speak(self, dialect: str) -> None:
        """Have it use a dialect, with the settings that belong there."""
        self.environment["RUNNER_DIALECT"] = dialect
        if dialect == "tasks":
            del self.environment["WORKER_TOKEN"], self.environment["WORKER_ID"]
            url = self.environment.pop("BROKER_URL")
            self.environment |= {
                "AIDSEC_API_BASE_URL": f"{url}/api",
                "AIDSEC_GLOBAL_API_KEY": "global",
                "AIDSEC_AGENT_ID": "w1",
                "AIDSEC_AGENT_API_KEY": "own",
            }

    def start(self, *arguments: str) -> subprocess.Popen[bytes]:
        """Start it without waiting for anything."""
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "runner_app", *arguments], env=self.environment, stdout=log, stderr=log
            )
        return self._process

    def call(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run a verb to its end."""
        return subprocess.run(
            [sys.executable, "-m", "runner_app", *arguments],
            env=self.environment | environment,
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )

    def end(self, number: int = signal.SIGTERM) -> int:
        """Send a signal, and return the exit status."""
        if self._process is None:
            return 0
        self._process.send_signal(number)
        status = self._process.wait(SECONDS)
        self._process = None
        return status

    def claims(self) -> list[Path]:
        """The directories of the attempts it holds."""
        jobs = self.state / "jobs"
        return sorted(jobs.iterdir()) if jobs.exists() else []

    def lines(self, name: str) -> list[str]:
        """What jobs wrote to a file of the workspace."""
        file = self.workspace / name
        return file.read_text().splitlines() if file.exists() else []


@pytest.fixture
def lease_seconds() -> float:
    return 60


@pytest.fixture
def broker(tmp_path: Path, lease_seconds: float) -> Iterator[Broker]:
    broker = Broker(tmp_path, lease_seconds)
    broker.start()
    yield broker
    broker.close()


@pytest.fixture
def runner(broker: Broker, tmp_path: Path) -> Iterator[Runner]:
    runner = Runner(broker.url, tmp_path)
    yield runner
    runner.end(signal.SIGKILL)


@dataclass(frozen=True)
class GitDaemon:
    """Whoever may connect may clone what is below ``root``, and push to it."""

    root: Path
    url: str


@pytest.fixture(scope="module")
def git_daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GitDaemon]:
    root = tmp_path_factory.mktemp("served")
    subprocess.run(["git", "init", "-q", "--bare", root / "ready"], env=GIT, check=True)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    options = ["--export-all", "--enable=receive-pack", "--listen=127.0.0.1", f"--port={port}", f"--base-path={root}"]
    daemon = subprocess.Popen(["git", "daemon", *options], env=GIT, stderr=subprocess.DEVNULL)
    url = f"git://127.0.0.1:{port}"
    ask = ["git", "ls-remote", f"{url}/ready"]
    until(lambda: subprocess.run(ask, capture_output=True, check=False).returncode == 0)
    yield GitDaemon(root, url)
    daemon.terminate()
    daemon.wait()


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Settings whose directories exist."""
    variables = {"WORKER_TOKEN": "t", "WORKER_ID": "w1", "RUNNER_STATE_DIR": str(tmp_path / "state")}
    settings = from_environment(variables)
    for directory in (settings.jobs_dir, settings.plans_dir, settings.workspace):
        directory.mkdir(parents=True)
    return settings
