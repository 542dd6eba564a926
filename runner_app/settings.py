"""Environment → settings. Every error names the variable and what to put there."""

import math
import re
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

SYSTEMD, PROCESS = "systemd", "process"
JOBS, TASKS, HUB = "jobs", "tasks", "hub"
# What the seed of the tasks dialect calls our variables. Where both are set, ours holds.
ALIASES = {
    "BROKER_URL": "AIDSEC_API_BASE_URL",
    "WORKER_ID": "AIDSEC_AGENT_ID",
    "WORKER_TOKEN": "AIDSEC_AGENT_API_KEY",
    "RUNNER_GLOBAL_KEY": "AIDSEC_GLOBAL_API_KEY",
    "RUNNER_LEASE_SEC": "AIDSEC_LEASE_SECONDS",
    "RUNNER_HEARTBEAT_SEC": "AIDSEC_HEARTBEAT_INTERVAL_SECONDS",
    "POLL_INTERVAL_SEC": "AIDSEC_POLL_INTERVAL_SECONDS",
}

_WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:@-]{0,127}")
_UNIT_PATH = re.compile(r"[A-Za-z0-9/._@+-]+")
_LIMITS = re.compile(r"memory=([1-9]\d*) cpu=([1-9]\d*) tasks=([1-9]\d*)")
_TOKEN = re.compile(r"[\x21-\x7e]+")


class SettingsError(Exception):
    """A variable cannot be used; the text names it and the remedy."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What processes may use: bytes of memory, percent of one CPU, processes and threads."""

    memory: int
    cpu: int
    tasks: int


@dataclass(frozen=True, slots=True)
class Settings:
    """What the runner was told. Times are seconds unless a name says otherwise."""

    dialect: str
    broker_url: str
    token: str = field(repr=False)
    global_key: str = field(repr=False)  # of the tasks dialect, and perhaps empty
    worker_id: str
    capabilities: tuple[str, ...]
    state_dir: Path
    workspace: Path
    poll_interval: float
    lease_seconds: int  # in the tasks dialect the runner says it, in the others the broker
    heartbeat_seconds: float  # a lease is renewed at least so often, and three times while it lives
    max_jobs: int
    max_timeout_ms: int
    backend: str
    job_limits: Limits | None
    jobs_limits: Limits | None
    sudo: bool

    @property
    def jobs_dir(self) -> Path:
        """Where each attempt has a directory of its own."""
        return self.state_dir / "jobs"

    @property
    def tmp_dir(self) -> Path:
        """Where each job has its /tmp and its output: on the workspace's disk, within its size; jobs do not see it."""
        return self.workspace / ".tmp"

    @property
    def plans_dir(self) -> Path:
        """Where plans wait for their approval."""
        return self.state_dir / "plans"

    @property
    def lock_file(self) -> Path:
        """What a runner holds while it works in this state directory."""
        return self.state_dir / "lock"


def from_environment(environment: Mapping[str, str]) -> Settings:
    """Read the settings.

    Raises:
        SettingsError: A variable is missing or cannot be used.
    """
    seeds = environment.get(ALIASES["BROKER_URL"]) and not environment.get("BROKER_URL")
    dialect = environment.get("RUNNER_DIALECT") or (TASKS if seeds else JOBS)
    if dialect not in {JOBS, TASKS, HUB}:
        message = f"RUNNER_DIALECT is {dialect!r}: use jobs, tasks or hub"
        raise SettingsError(message)
    if dialect != TASKS:
        return _read(environment, dialect)
    aliases = {ours: alias for ours, alias in ALIASES.items() if environment.get(alias) and not environment.get(ours)}
    given = {**environment, **{ours: environment[alias] for ours, alias in aliases.items()}}
    if "BROKER_URL" in aliases:
        given["BROKER_URL"] = _without_api(given["BROKER_URL"])
    try:
        return _read(given, dialect)
    except SettingsError as error:
        text = str(error)
        for ours, alias in aliases.items():
            text = text.replace(ours, alias)
        raise SettingsError(text) from error


def _read(environment: Mapping[str, str], dialect: str) -> Settings:
    state_dir = _directory(environment, "RUNNER_STATE_DIR", "/var/lib/openclaw-runner/state")
    workspace = _directory(environment, "RUNNER_WORKSPACE", str(state_dir / "workspace"))
    backend = _backend(environment)
    _keep_apart(workspace, state_dir)
    if backend == SYSTEMD:
        _fit_for_units(RUNNER_STATE_DIR=state_dir, RUNNER_WORKSPACE=workspace)
    lease_seconds, heartbeat_seconds = _renewal(environment) if dialect == TASKS else (0, math.inf)
    return Settings(
        dialect=dialect,
        broker_url=_url(environment),
        token=_token(environment),
        global_key=_header("RUNNER_GLOBAL_KEY", environment.get("RUNNER_GLOBAL_KEY", "").strip()),
        worker_id=_word("WORKER_ID", environment.get("WORKER_ID") or socket.gethostname()),
        capabilities=_capabilities(environment.get("WORKER_CAPS", "")),
        state_dir=state_dir,
        workspace=workspace,
        poll_interval=_number(environment, "POLL_INTERVAL_SEC", 10, low=0.05, high=3600),
        lease_seconds=lease_seconds,
        heartbeat_seconds=heartbeat_seconds,
        max_jobs=int(_number(environment, "RUNNER_MAX_JOBS", 4, low=1, high=64)),
        max_timeout_ms=int(_number(environment, "RUNNER_MAX_TIMEOUT_SEC", 6 * 3600, low=1, high=7 * 86400) * 1000),
        backend=backend,
        job_limits=_limits(environment, "RUNNER_JOB_LIMITS"),
        jobs_limits=_limits(environment, "RUNNER_JOBS_LIMITS"),
        sudo=_flag(environment, "RUNNER_SUDO"),
    )


def _url(environment: Mapping[str, str]) -> str:
    url = environment.get("BROKER_URL") or "http://127.0.0.1:8000"
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"} or not parts.hostname or parts.query or parts.fragment:
        message = f"BROKER_URL is {url!r}: give the broker's address as http://HOST:PORT"
        raise SettingsError(message)
    if parts.username or parts.password:
        message = "BROKER_URL has a user or password in it: the token belongs in WORKER_TOKEN"
        raise SettingsError(message)
    return url.rstrip("/")


def _without_api(url: str) -> str:
    """Return a broker's address from that of its tasks dialect."""
    base = url.rstrip("/")
    if not base.endswith("/api"):
        message = f"AIDSEC_API_BASE_URL is {url!r}: give it as http://HOST:PORT/api"
        raise SettingsError(message)
    return base.removesuffix("/api")


def _renewal(environment: Mapping[str, str]) -> tuple[int, float]:
    """Return how long a lease is asked for, and how often it is renewed."""
    lease = int(_number(environment, "RUNNER_LEASE_SEC", 300, low=30, high=3600))
    heartbeat = _number(environment, "RUNNER_HEARTBEAT_SEC", 60, low=1, high=3600)
    if heartbeat >= lease:
        message = f"RUNNER_HEARTBEAT_SEC is {heartbeat:g}: give less than the lease, RUNNER_LEASE_SEC ({lease})"
        raise SettingsError(message)
    return lease, heartbeat


def _token(environment: Mapping[str, str]) -> str:
    credentials = environment.get("CREDENTIALS_DIRECTORY")
    source, token = "WORKER_TOKEN", environment.get("WORKER_TOKEN", "")
    if credentials and (path := Path(credentials) / "worker-token").exists():
        source, token = str(path), _text(path)
    token = token.strip()
    if not token:
        message = f"{source} is empty: set WORKER_TOKEN, or provide the credential worker-token"
        raise SettingsError(message)
    return _header(source, token)


def _header(source: str, token: str) -> str:
    if token and not _TOKEN.fullmatch(token):
        message = f"{source} has characters that cannot stand in an HTTP header: mint the token again"
        raise SettingsError(message)
    return token


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        message = f"the credential {path} cannot be read: {error}"
        raise SettingsError(message) from error


def _word(variable: str, value: str) -> str:
    if not _WORD.fullmatch(value):
        message = f"{variable} is {value!r}: use up to 128 letters, digits and . _ : @ -"
        raise SettingsError(message)
    return value


def _capabilities(text: str) -> tuple[str, ...]:
    words = (word.strip() for word in text.split(","))
    return tuple(dict.fromkeys(_word("WORKER_CAPS", word) for word in words if word))


def _directory(environment: Mapping[str, str], variable: str, default: str) -> Path:
    path = Path(environment.get(variable) or default).expanduser()
    if not path.is_absolute():
        message = f"{variable} is {str(path)!r}: give an absolute path"
        raise SettingsError(message)
    return path.resolve()


def _keep_apart(workspace: Path, state_dir: Path) -> None:
    """Jobs may write the workspace, so nothing that the runner or its user's manager trusts may lie in it."""
    for trusted in (state_dir, Path.home().resolve()):
        if trusted.is_relative_to(workspace):
            message = (
                f"RUNNER_WORKSPACE is {str(workspace)!r}, which holds {trusted}: give jobs a directory of their own"
            )
            raise SettingsError(message)


def _fit_for_units(**directories: Path) -> None:
    for variable, path in directories.items():
        if not _UNIT_PATH.fullmatch(str(path)):
            message = f"{variable} is {str(path)!r}: use a path of letters, digits and / . _ @ + - only"
            raise SettingsError(message)


def _number(environment: Mapping[str, str], variable: str, default: float, *, low: float, high: float) -> float:
    text = environment.get(variable) or str(default)
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not low <= value <= high:
        message = f"{variable} is {text!r}: give a number from {low:g} to {high:g}"
        raise SettingsError(message)
    return value


def _limits(environment: Mapping[str, str], variable: str) -> Limits | None:
    text = environment.get(variable) or ""
    match = _LIMITS.fullmatch(text)
    if text and not match:
        message = f"{variable} is {text!r}: say memory=BYTES cpu=PERCENT tasks=NUMBER"
        raise SettingsError(message)
    return Limits(*map(int, match.groups())) if match else None


def _flag(environment: Mapping[str, str], variable: str) -> bool:
    text = environment.get(variable) or "no"
    if text not in {"yes", "no"}:
        message = f"{variable} is {text!r}: say yes or no"
        raise SettingsError(message)
    return text == "yes"


def _backend(environment: Mapping[str, str]) -> str:
    backend = environment.get("RUNNER_BACKEND") or "auto"
    runtime = environment.get("XDG_RUNTIME_DIR")
    manager = bool(runtime) and Path(runtime or "", "bus").exists()
    if backend == "auto":
        return SYSTEMD if manager else PROCESS
    if backend not in {SYSTEMD, PROCESS}:
        message = f"RUNNER_BACKEND is {backend!r}: use systemd, process or auto"
        raise SettingsError(message)
    if backend == SYSTEMD and not manager:
        message = (
            "RUNNER_BACKEND is systemd, but XDG_RUNTIME_DIR leads to no systemd user manager: "
            "start the runner as a user service, or use RUNNER_BACKEND=process, which isolates nothing"
        )
        raise SettingsError(message)
    return backend
