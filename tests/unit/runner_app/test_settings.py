"""Environment → settings."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from runner_app.settings import ALIASES, PROCESS, SYSTEMD, SettingsError, from_environment

GIVEN = {"WORKER_TOKEN": "secret", "RUNNER_STATE_DIR": "/srv/state"}


def test_defaults() -> None:
    settings = from_environment({"WORKER_TOKEN": "secret"})
    assert settings.broker_url == "http://127.0.0.1:8000"
    assert settings.worker_id == socket.gethostname()
    assert settings.state_dir == Path("/var/lib/openclaw-runner/state")
    assert settings.workspace == settings.state_dir / "workspace"
    assert settings.poll_interval == 10
    assert settings.capabilities == ()
    assert settings.backend == PROCESS


def test_what_is_given_is_taken() -> None:
    settings = from_environment(
        GIVEN | {"BROKER_URL": "https://broker.example:8443/", "WORKER_CAPS": "gpu, docker,gpu", "WORKER_ID": "a1"}
    )
    assert settings.broker_url == "https://broker.example:8443"
    assert settings.capabilities == ("gpu", "docker")
    assert settings.worker_id == "a1"


def test_sudo_is_off_until_it_is_set() -> None:
    found = [from_environment(GIVEN | {"RUNNER_SUDO": value}).sudo for value in ("", "no", "yes")]
    assert found == [False, False, True]


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("BROKER_URL", "broker:8000"),
        ("BROKER_URL", "ftp://broker"),
        ("BROKER_URL", "http://"),
        ("BROKER_URL", "http://me:secret@broker"),
        ("WORKER_TOKEN", ""),
        ("WORKER_TOKEN", "two words"),
        ("WORKER_TOKEN", "schlüssel"),
        ("WORKER_ID", "a\nb"),
        ("WORKER_CAPS", "gpu,two words"),
        ("RUNNER_STATE_DIR", "state"),
        ("RUNNER_WORKSPACE", "workspace"),
        ("RUNNER_WORKSPACE", "/srv"),
        ("RUNNER_WORKSPACE", "/srv/state"),
        ("RUNNER_WORKSPACE", str(Path.home())),
        ("POLL_INTERVAL_SEC", "often"),
        ("POLL_INTERVAL_SEC", "0"),
        ("POLL_INTERVAL_SEC", "nan"),
        ("RUNNER_MAX_JOBS", "0"),
        ("RUNNER_MAX_TIMEOUT_SEC", "-1"),
        ("RUNNER_SUDO", "true"),
        ("RUNNER_BACKEND", "docker"),
        ("RUNNER_BACKEND", "systemd"),
    ],
)
def test_an_error_names_the_variable(variable: str, value: str) -> None:
    with pytest.raises(SettingsError, match=variable) as caught:
        from_environment(GIVEN | {variable: value})
    assert "secret@" not in str(caught.value)


def test_the_credential_goes_before_the_variable(tmp_path: Path) -> None:
    (tmp_path / "worker-token").write_text("minted\n")
    assert from_environment(GIVEN | {"CREDENTIALS_DIRECTORY": str(tmp_path)}).token == "minted"


def test_other_credentials_leave_the_variable(tmp_path: Path) -> None:
    assert from_environment(GIVEN | {"CREDENTIALS_DIRECTORY": str(tmp_path)}).token == "secret"


def test_the_token_is_not_shown() -> None:
    assert "secret" not in repr(from_environment(GIVEN))


def test_a_user_manager_is_used_where_there_is_one(tmp_path: Path) -> None:
    (tmp_path / "bus").touch()
    assert from_environment(GIVEN | {"XDG_RUNTIME_DIR": str(tmp_path)}).backend == SYSTEMD
    assert from_environment(GIVEN | {"XDG_RUNTIME_DIR": str(tmp_path), "RUNNER_BACKEND": "process"}).backend == PROCESS


def test_a_workspace_behind_a_link_is_found_out(tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    (tmp_path / "link").symlink_to(tmp_path)
    variables = {"RUNNER_STATE_DIR": str(tmp_path / "state"), "RUNNER_WORKSPACE": str(tmp_path / "link")}
    with pytest.raises(SettingsError, match="RUNNER_WORKSPACE"):
        from_environment(GIVEN | variables)


def test_units_need_plain_paths(tmp_path: Path) -> None:
    (tmp_path / "bus").touch()
    odd = {"RUNNER_WORKSPACE": "/srv/a b", "XDG_RUNTIME_DIR": str(tmp_path)}
    with pytest.raises(SettingsError, match="RUNNER_WORKSPACE"):
        from_environment(GIVEN | odd)
    assert from_environment(GIVEN | odd | {"RUNNER_BACKEND": "process"}).workspace == Path("/srv/a b")


SEED = {
    "RUNNER_DIALECT": "tasks",
    "AIDSEC_API_BASE_URL": "http://broker:8000/api",
    "AIDSEC_GLOBAL_API_KEY": "global",
    "AIDSEC_AGENT_ID": "agent1",
    "AIDSEC_AGENT_API_KEY": "own",
}


def test_the_seeds_variables_are_taken_in_its_dialect() -> None:
    settings = from_environment(SEED)
    assert (settings.dialect, settings.broker_url, settings.worker_id) == ("tasks", "http://broker:8000", "agent1")
    assert (settings.token, settings.global_key) == ("own", "global")
    assert (settings.lease_seconds, settings.heartbeat_seconds, settings.poll_interval) == (300, 60, 10)
    more = {"LEASE_SECONDS": "90", "HEARTBEAT_INTERVAL_SECONDS": "20", "POLL_INTERVAL_SECONDS": "3"}
    settings = from_environment(SEED | {f"AIDSEC_{name}": value for name, value in more.items()})
    assert (settings.lease_seconds, settings.heartbeat_seconds, settings.poll_interval) == (90, 20, 3)


def test_the_seeds_address_alone_chooses_its_dialect() -> None:
    bare = {variable: value for variable, value in SEED.items() if variable != "RUNNER_DIALECT"}
    settings = from_environment(bare)
    assert (settings.dialect, settings.broker_url, settings.token) == ("tasks", "http://broker:8000", "own")
    assert from_environment(bare | GIVEN | {"BROKER_URL": "http://other:8000"}).dialect == "jobs"
    assert from_environment(bare | GIVEN | {"RUNNER_DIALECT": "hub"}).dialect == "hub"


def test_our_variables_go_before_the_seeds_and_other_dialects_know_only_ours() -> None:
    assert from_environment(SEED | {"WORKER_ID": "w1"}).worker_id == "w1"
    jobs = from_environment(GIVEN | SEED | {"RUNNER_DIALECT": "jobs"})
    assert (jobs.dialect, jobs.worker_id, jobs.token) == ("jobs", socket.gethostname(), "secret")


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("RUNNER_DIALECT", "esperanto"),
        ("AIDSEC_API_BASE_URL", "http://broker:8000"),
        ("AIDSEC_API_BASE_URL", "broker:8000/api"),
        ("AIDSEC_GLOBAL_API_KEY", "two words"),
        ("AIDSEC_AGENT_ID", "a b"),
        ("AIDSEC_AGENT_API_KEY", "schlüssel"),
        ("AIDSEC_LEASE_SECONDS", "29"),
        ("AIDSEC_LEASE_SECONDS", "3601"),
        ("AIDSEC_HEARTBEAT_INTERVAL_SECONDS", "300"),
        ("AIDSEC_POLL_INTERVAL_SECONDS", "0"),
    ],
)
def test_an_error_names_the_seeds_variable(variable: str, value: str) -> None:
    with pytest.raises(SettingsError, match=variable):
        from_environment(SEED | {variable: value})


def test_the_document_names_every_variable_of_the_seed() -> None:
    text = (Path(__file__).parents[3] / "docs/dialects.md").read_text(encoding="utf-8")
    for ours, alias in ALIASES.items():
        assert f"| `{ours}` | `{alias}`" in text
