"""Minted tokens, from the command line to the running broker."""

from __future__ import annotations

import json
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from tests.contract.harness import Broker, caps, claim, submit

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import httpx


@pytest.fixture
def shared(start_broker: Callable[..., Broker]) -> Broker:
    return start_broker()


def mint(broker: Broker, name: str, *more: str) -> str:
    result = broker.command("token", "mint", name, *more)
    assert (result.returncode, result.stderr) == (0, "")
    token = result.stdout
    assert token.endswith("\n")
    assert token.count("\n") == 1
    return token.strip()


def refused_within_a_second(client: httpx.Client, path: str) -> bool:
    deadline = time.monotonic() + 1
    while time.monotonic() < deadline:
        if client.get(path).status_code == 401:
            return True
        time.sleep(0.02)
    return False


def test_a_minted_token_works_at_once_under_its_own_name_only(shared: Broker, cap: str) -> None:
    worker = shared.client({"X-Worker-Token": mint(shared, cap), "X-Worker-Caps": cap})
    job_id = submit(shared.bot(), requires=caps(cap))
    assert worker.get("/jobs/next", headers={"X-Worker-Id": "other"}).status_code == 403
    assert worker.get("/jobs/next", headers={"X-Worker-Id": cap}).json()["job"]["worker_id"] == cap
    assert worker.post(f"/jobs/{job_id}/result", json={"result": ""}, headers={"X-Worker-Id": "w"}).status_code == 403
    assert worker.post(f"/jobs/{job_id}/result", json={"result": ""}).status_code == 200
    assert worker.get("/jobs", headers={"X-Bot-Token": worker.headers["X-Worker-Token"]}).status_code == 401


def test_an_admins_token_does_for_a_bots_and_for_no_workers(shared: Broker, cap: str) -> None:
    token = mint(shared, cap, "--role", "admin")
    admin = shared.client({"X-Bot-Token": token})
    job_id = submit(admin, requires=caps(cap))
    assert admin.get(f"/jobs/{job_id}").json()["status"] == "queued"
    assert shared.client({"X-Worker-Token": token}).get("/jobs/next").status_code == 401


def test_a_minted_worker_cannot_touch_anothers_lease(shared: Broker, cap: str) -> None:
    mine, other = (shared.client({"X-Worker-Token": mint(shared, f"{cap}-{n}"), "X-Worker-Caps": cap}) for n in "ab")
    job_id = submit(shared.bot(), requires=caps(cap))
    claim(mine)
    assert other.post(f"/jobs/{job_id}/heartbeat").status_code == 409
    assert "note" in other.post(f"/jobs/{job_id}/result", json={"result": "stolen"}).json()
    assert shared.bot().get(f"/jobs/{job_id}").json()["status"] == "running"


def test_a_revoked_token_is_refused_within_a_second(shared: Broker, cap: str) -> None:
    bot = shared.client({"X-Bot-Token": mint(shared, cap, "--role", "bot")})
    assert bot.get("/jobs").status_code == 200
    assert shared.command("token", "revoke", cap).returncode == 0
    assert refused_within_a_second(bot, "/jobs")


def test_a_worker_whose_token_is_revoked_while_it_waits_gets_no_job(shared: Broker, cap: str) -> None:
    worker = shared.client({"X-Worker-Token": mint(shared, cap), "X-Worker-Caps": cap})
    with ThreadPoolExecutor() as pool:
        waiting = pool.submit(worker.get, "/jobs/next?wait=20")
        agents = shared.bot()
        while cap not in [agent["id"] for agent in agents.get("/agents").json()["agents"] if agent["last_seen"]]:
            time.sleep(0.01)
        shared.command("token", "revoke", cap)
        time.sleep(1)
        job_id = submit(shared.bot(), requires=caps(cap))
        assert waiting.result(10).status_code == 401
    job = shared.bot().get(f"/jobs/{job_id}").json()
    assert (job["status"], job["attempts"]) == ("queued", 0)


def test_a_token_that_replaces_others_is_the_only_one_left(shared: Broker, cap: str) -> None:
    earlier = [mint(shared, cap), mint(shared, cap)]
    bot = mint(shared, cap, "--role", "bot")
    token = mint(shared, cap, "--replace")
    assert shared.client({"X-Worker-Token": token}).get("/jobs/none").status_code == 404
    assert shared.client({"X-Bot-Token": bot}).get("/jobs/none").status_code == 404
    listed = json.loads(shared.command("token", "list", "--json").stdout)
    assert [entry["role"] for entry in listed if entry["name"] == cap] == ["bot", "worker"]
    for old in earlier:
        assert shared.client({"X-Worker-Token": old}).get("/jobs/none").status_code == 401


def test_two_tokens_of_a_name_are_valid_at_once_and_no_third(shared: Broker, cap: str) -> None:
    tokens = [mint(shared, cap), mint(shared, cap)]
    assert len(set(tokens)) == 2
    for token in tokens:
        assert shared.client({"X-Worker-Token": token}).get("/jobs/none").status_code == 404
    third = shared.command("token", "mint", cap)
    assert (third.returncode, third.stdout) == (1, "")
    assert f"token revoke {cap}" in third.stderr
    mint(shared, cap, "--role", "bot")
    listed = json.loads(shared.command("token", "list", "--json").stdout)
    assert [entry["role"] for entry in listed if entry["name"] == cap] == ["bot", "worker", "worker"]
    assert shared.command("token", "revoke", cap, "--role", "worker").returncode == 0
    assert shared.command("token", "revoke", cap, "--role", "worker").returncode == 1
    table = shared.command("token", "list").stdout
    assert [line.split("\t")[:2] for line in table.splitlines() if line.startswith(cap)] == [[cap, "bot"]]


def test_an_agent_is_known_from_its_token_on(shared: Broker, cap: str) -> None:
    mint(shared, cap)
    (agent,) = [agent for agent in shared.bot().get("/agents").json()["agents"] if agent["id"] == cap]
    assert agent == {
        "id": cap, "status": "offline", "last_seen": None, "runner_version": None, "capabilities": [], "running": [],
        "type": None, "metadata": {}, "health": None, "cordoned": False,
    }  # fmt: skip


def test_no_tokens_no_entry(start_broker: Callable[..., Broker]) -> None:
    broker = start_broker(WORKER_TOKEN="", BOT_TOKEN="")
    for headers in ({}, {"X-Worker-Token": "", "X-Bot-Token": ""}, {"X-Worker-Token": "x", "X-Bot-Token": "x"}):
        client = broker.client(headers)
        assert client.get("/jobs/next").json() == {"detail": "bad worker token"}
        assert client.get("/jobs").json() == {"detail": "bad bot token"}


def test_tokens_from_systemds_credentials(new_broker: Callable[..., Broker], tmp_path: Path) -> None:
    (tmp_path / "worker-token").write_text("w-credential\n", encoding="ascii")
    (tmp_path / "bot-token").write_text("b-credential\n", encoding="ascii")
    settings = {"CREDENTIALS_DIRECTORY": str(tmp_path), "WORKER_TOKEN": "", "BOT_TOKEN": ""}
    broker = new_broker(**settings).start()
    assert broker.client({"X-Bot-Token": "b-credential"}).get("/jobs").status_code == 200
    assert broker.client({"X-Worker-Token": "w-credential"}).get("/jobs/next").status_code == 200


def test_no_token_is_in_the_log_or_the_database(new_broker: Callable[..., Broker], tmp_path: Path) -> None:
    broker = new_broker().start()
    token = mint(broker, "agent")
    broker.client({"X-Worker-Token": token}).get("/jobs/next")
    broker.client({"X-Worker-Token": "wrong-secret", "X-Bot-Token": "wrong-secret"}).get("/jobs/next")
    broker.close()
    files = b"".join(file.read_bytes() for file in tmp_path.iterdir() if file.is_file())
    for secret in (token, broker.bot_token, broker.worker_token, "wrong-secret"):
        assert secret.encode() not in files


@pytest.mark.parametrize("arguments", [["token", "mint", "a b"], ["token", "mint", ""], ["token"], ["x"], []])
def test_a_wrong_command_line_is_refused(shared: Broker, arguments: list[str]) -> None:
    result = shared.command(*arguments)
    assert result.returncode == 2
    assert result.stderr.startswith("usage: ")


def test_check_prints_the_version(new_broker: Callable[..., Broker], shared: Broker, tmp_path: Path) -> None:
    checked = shared.command("check")
    assert (checked.returncode, checked.stdout) == (0, shared.command("--version").stdout)
    (tmp_path / "broker.db").write_bytes(b"something else" * 100)
    for settings in ({"BROKER_DB": str(tmp_path / "broker.db")}, {"BROKER_DB": "/nowhere/x"}, {"LEASE_SECONDS": "x"}):
        wrong = new_broker(**settings).command("check")
        assert wrong.returncode == 1
        assert next(iter(settings)) in wrong.stderr
        assert "Traceback" not in wrong.stderr
