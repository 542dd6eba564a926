"""Settings from the environment."""

from __future__ import annotations

from pathlib import Path

import pytest

from broker_app.errors import SettingsError
from broker_app.settings import Settings

DEFAULTS = Settings(
    database=Path("/var/lib/openclaw-broker/broker.db"),
    host="127.0.0.1",
    port=8000,
    worker_token=None,
    bot_token=None,
    api_key=None,
    agent_keys={},
    lease_seconds=60,
    tasks_retry_seconds=120,
    commands=None,
    max_body_bytes=524288,
    max_result_bytes=262144,
    max_unfinished=1_000_000,
    per_minute=0,
    retention_seconds=2592000,
    max_connections=1000,
    hub_http_port=0,
    hub_ws_port=0,
)


def test_defaults() -> None:
    assert Settings.from_environment({}) == DEFAULTS


@pytest.mark.parametrize(
    ("variable", "value", "field", "expected"),
    [
        ("BROKER_DB", "/x/y.db", "database", Path("/x/y.db")),
        ("BROKER_HOST", "::1", "host", "::1"),
        ("BROKER_PORT", "0", "port", 0),
        ("HUB_HTTP_PORT", "9091", "hub_http_port", 9091),
        ("HUB_WS_PORT", "9090", "hub_ws_port", 9090),
        ("BROKER_PORT", "", "port", 8000),
        ("WORKER_TOKEN", "w", "worker_token", "w"),
        ("BOT_TOKEN", "b", "bot_token", "b"),
        ("BOT_TOKEN", "", "bot_token", None),
        ("API_KEY", "k", "api_key", "k"),
        ("AGENT_API_KEYS", " a1=k1 , a2=k=2,", "agent_keys", {"a1": "k1", "a2": "k=2"}),
        ("AGENT_API_KEYS", "", "agent_keys", {}),
        ("TASKS_RETRY_SECONDS", "1", "tasks_retry_seconds", 1),
        ("LEASE_SECONDS", "300", "lease_seconds", 300),
        ("BROKER_COMMANDS", "ping, exec", "commands", frozenset({"ping", "exec"})),
        ("BROKER_COMMANDS", " ", "commands", None),
        ("MAX_REQUEST_BODY_BYTES", "2048", "max_body_bytes", 2048),
        ("MAX_RESULT_BYTES", "10", "max_result_bytes", 10),
        ("MAX_QUEUED_JOBS", "0", "max_unfinished", 0),
        ("RATE_LIMIT_JOBS_PER_MIN", "7", "per_minute", 7),
        ("MAX_CONNECTIONS", "5", "max_connections", 5),
    ],
)
def test_a_variable_sets_its_field(variable: str, value: str, field: str, expected: object) -> None:
    settings = Settings.from_environment({variable: value})
    assert getattr(settings, field) == expected


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("BROKER_PORT", "65536"),
        ("BROKER_PORT", "http"),
        ("LEASE_SECONDS", "0"),
        ("LEASE_SECONDS", "-5"),
        ("LEASE_SECONDS", "1.5"),
        ("LEASE_SECONDS", "86401"),
        ("LEASE_SECONDS", "٣"),
        ("LEASE_SECONDS", "9" * 5000),
        ("MAX_REQUEST_BODY_BYTES", "1"),
        ("MAX_RESULT_BYTES", "0"),
        ("MAX_QUEUED_JOBS", "many"),
        ("RATE_LIMIT_JOBS_PER_MIN", "-1"),
        ("MAX_CONNECTIONS", "0"),
        ("BROKER_COMMANDS", "ping,,exec"),
        ("BROKER_COMMANDS", "Ping"),
        ("API_KEY", "two words"),
        *(("AGENT_API_KEYS", value) for value in ("a1", "a1=", "=k", "a 1=k", "a1=k k", "a1=k,a1=l", "a1=k,a2=k")),
        ("TASKS_RETRY_SECONDS", "0"),
        ("WORKER_TOKEN", "two words"),
        ("BOT_TOKEN", "line\nbreak"),
    ],
)
def test_a_wrong_variable_is_named(variable: str, value: str) -> None:
    with pytest.raises(SettingsError, match=f"^{variable} must be "):
        Settings.from_environment({variable: value})


def test_tokens_come_from_credentials_where_no_variable_says_otherwise(tmp_path: Path) -> None:
    (tmp_path / "worker-token").write_text("from-file\n", encoding="utf-8")
    (tmp_path / "bot-token").write_text("from-file\n", encoding="utf-8")
    settings = Settings.from_environment({"CREDENTIALS_DIRECTORY": str(tmp_path), "BOT_TOKEN": "variable"})
    assert (settings.worker_token, settings.bot_token) == ("from-file", "variable")


def test_keys_of_tasks_come_from_credentials_too(tmp_path: Path) -> None:
    (tmp_path / "api-key").write_text("from-file\n", encoding="utf-8")
    (tmp_path / "agent-api-keys").write_text("a1=k1,a2=k2\n", encoding="utf-8")
    settings = Settings.from_environment({"CREDENTIALS_DIRECTORY": str(tmp_path)})
    assert (settings.api_key, settings.agent_keys) == ("from-file", {"a1": "k1", "a2": "k2"})


def test_a_credential_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "bot-token").mkdir()
    with pytest.raises(SettingsError, match=r"^BOT_TOKEN: .*bot-token"):
        Settings.from_environment({"CREDENTIALS_DIRECTORY": str(tmp_path)})


def test_tokens_are_not_shown() -> None:
    assert "secret" not in repr(Settings.from_environment({"BOT_TOKEN": "secret", "WORKER_TOKEN": "secret"}))
    assert "secret" not in repr(Settings.from_environment({"API_KEY": "secret", "AGENT_API_KEYS": "a=secret"}))
    with pytest.raises(SettingsError, match=r"its entry 2 is not$") as error:
        Settings.from_environment({"AGENT_API_KEYS": "a=secret,b=secret"})
    assert "secret" not in str(error.value)
