"""Settings, read from the environment once."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from broker_app.agents import NAME_PATTERN
from broker_app.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Mapping

COMMAND_PATTERN = re.compile(r"[a-z][a-z0-9:_-]{0,63}")
_DEFAULT_DATABASE = "/var/lib/openclaw-broker/broker.db"


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What the environment says.

    Attributes:
        database: BROKER_DB, the SQLite file.
        host: BROKER_HOST, the address to listen on where systemd hands over no socket.
        port: BROKER_PORT, 0 for any free one.
        worker_token: WORKER_TOKEN or the credential `worker-token`: shared by workers of any name.
        bot_token: BOT_TOKEN or the credential `bot-token`: shared by bots.
        api_key: API_KEY or the credential `api-key`: the global key of the tasks dialect, shared by bots.
        agent_keys: AGENT_API_KEYS or the credential `agent-api-keys`, `agent1=…,agent2=…`: by agent, a token of its.
        lease_seconds: LEASE_SECONDS, how long a worker holds a job without a heartbeat.
        tasks_retry_seconds: TASKS_RETRY_SECONDS, the first back-off of a task that failed.
        commands: BROKER_COMMANDS, the only commands accepted; None for any well-formed one.
        max_body_bytes: MAX_REQUEST_BODY_BYTES.
        max_result_bytes: MAX_RESULT_BYTES, of a result or an error, in UTF-8.
        max_unfinished: MAX_QUEUED_JOBS, jobs queued or running; 0 for any number.
        retention_seconds: JOB_RETENTION_SECONDS, how long jobs are kept after their end; 0 for ever.
        per_minute: RATE_LIMIT_JOBS_PER_MIN, submissions per bot; 0 for any number.
        max_connections: MAX_CONNECTIONS, open at once.
        hub_http_port: HUB_HTTP_PORT, another port where all is served; 0 for none. The seed's is 9091.
        hub_ws_port: HUB_WS_PORT, one more, the one that agents are told to connect to. The seed's is 9090.
    """

    database: Path
    host: str
    port: int
    worker_token: str | None = field(repr=False)
    bot_token: str | None = field(repr=False)
    api_key: str | None = field(repr=False)
    agent_keys: Mapping[str, str] = field(repr=False)
    lease_seconds: int
    tasks_retry_seconds: int
    commands: frozenset[str] | None
    max_body_bytes: int
    max_result_bytes: int
    max_unfinished: int
    per_minute: int
    retention_seconds: int
    max_connections: int
    hub_http_port: int
    hub_ws_port: int

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Settings:
        """Read and check every variable. One that is set to nothing counts as unset.

        Raises:
            SettingsError: A variable is wrong; the message names it and what is accepted.
        """
        return cls(
            database=Path(environment.get("BROKER_DB") or _DEFAULT_DATABASE),
            host=environment.get("BROKER_HOST") or "127.0.0.1",
            port=_number(environment, "BROKER_PORT", 8000, 0, 65535),
            worker_token=_token(environment, "WORKER_TOKEN"),
            bot_token=_token(environment, "BOT_TOKEN"),
            api_key=_token(environment, "API_KEY"),
            agent_keys=_agent_keys(environment),
            lease_seconds=_number(environment, "LEASE_SECONDS", 60, 1, 86400),
            tasks_retry_seconds=_number(environment, "TASKS_RETRY_SECONDS", 120, 1, 86400),
            commands=_commands(environment),
            max_body_bytes=_number(environment, "MAX_REQUEST_BODY_BYTES", 524288, 1024, 64 * 2**20),
            max_result_bytes=_number(environment, "MAX_RESULT_BYTES", 262144, 1, 64 * 2**20),
            max_unfinished=_number(environment, "MAX_QUEUED_JOBS", 1_000_000, 0, 10**9),
            per_minute=_number(environment, "RATE_LIMIT_JOBS_PER_MIN", 0, 0, 10**6),
            retention_seconds=_number(environment, "JOB_RETENTION_SECONDS", 30 * 86400, 0, 10**9),
            max_connections=_number(environment, "MAX_CONNECTIONS", 1000, 1, 10**5),
            hub_http_port=_number(environment, "HUB_HTTP_PORT", 0, 0, 65535),
            hub_ws_port=_number(environment, "HUB_WS_PORT", 0, 0, 65535),
        )


def _number(environment: Mapping[str, str], name: str, default: int, least: int, most: int) -> int:
    text = environment.get(name) or str(default)
    if not re.fullmatch(r"[0-9]{1,12}", text) or not least <= int(text) <= most:
        raise SettingsError(f"{name} must be a whole number from {least} to {most}, not {text!r}")
    return int(text)


def _token(environment: Mapping[str, str], name: str) -> str | None:
    """The token of that variable, or of systemd's credential of the same name in lower case with a dash."""
    token = environment.get(name) or _credential(environment, name)
    if token and not re.fullmatch(r"[!-~]+", token):
        raise SettingsError(f"{name} must be printable ASCII without spaces; `openssl rand -hex 32` makes one")
    return token or None


def _agent_keys(environment: Mapping[str, str]) -> dict[str, str]:
    """By agent its key; two agents cannot have the same one, since a key says who calls."""
    keys: dict[str, str] = {}
    text = environment.get("AGENT_API_KEYS") or _credential(environment, "AGENT_API_KEYS")
    for pair in filter(None, map(str.strip, text.split(","))):
        name, _, key = map(str.strip, pair.partition("="))
        if not NAME_PATTERN.fullmatch(name) or not re.fullmatch(r"[!-~]+", key) or name in keys or key in keys.values():
            raise SettingsError(
                f"AGENT_API_KEYS must be like agent1=KEY,agent2=KEY, each agent and each key once, agents matching"
                f" {NAME_PATTERN.pattern}, keys printable ASCII without spaces; its entry {len(keys) + 1} is not"
            )
        keys[name] = key
    return keys


def _credential(environment: Mapping[str, str], name: str) -> str:
    directory = environment.get("CREDENTIALS_DIRECTORY")
    if not directory:
        return ""
    path = Path(directory) / name.lower().replace("_", "-")
    try:
        return path.read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        return ""
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"{name}: cannot read the credential {path}: {error}") from error


def _commands(environment: Mapping[str, str]) -> frozenset[str] | None:
    text = environment.get("BROKER_COMMANDS", "").strip()
    if not text:
        return None
    commands = frozenset(part.strip() for part in text.split(","))
    for command in commands:
        if not COMMAND_PATTERN.fullmatch(command):
            raise SettingsError(
                f"BROKER_COMMANDS must be a comma list of names like 'ping' ({COMMAND_PATTERN.pattern}),"
                f" and {command!r} is not one"
            )
    return commands
