"""A broker whose every setting is off its default, judged by what it does."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from testinfra.host import Host

testinfra_hosts = ["ansible://brokers"]
URL = "http://127.0.0.2:8001"
BOT, WORKER, SUBMITTER, ALICE = "shared-by-bots", "shared-by-workers", "shared-by-submitters", "key-of-alice"
PORTS = (8001, 9190, 9191)
STATE, VOLUME = "/var/lib/openclaw-broker", "/dev/volume-1"
RELEASES = "/opt/openclaw/releases/broker"

# Opens connections that ask for nothing, then asks over one more and prints the answer's status.
CROWD = """
import http.client, socket, sys, time
crowd = [socket.create_connection(("127.0.0.2", 8001)) for _ in range(int(sys.argv[1]))]
time.sleep(0.3)
asking = http.client.HTTPConnection("127.0.0.2", 8001, timeout=5)
asking.request("GET", "/health")
print(asking.getresponse().status)
"""


@pytest.fixture
def bot(root: Host, request: pytest.FixtureRequest) -> str:
    """The token of a bot of the test's own: submissions are counted by bot."""
    name = request.function.__name__.removeprefix("test_").replace("_", "-")[:32]
    return str(root.check_output(f"openclaw-broker token mint {name} --role bot"))


@pytest.fixture(autouse=True)
def _nothing_is_left(root: Host) -> Iterator[None]:
    """Finish every job that a test leaves."""
    yield
    while (job := claim(root, "janitor")) is not None:
        report(root, job, "", worker="janitor")


def call(root: Host, path: str, header: str = "Accept: */*", body: object = None) -> tuple[int, Any]:
    """Call the broker on its host."""
    data = f"--json '{json.dumps(body)}'" if body is not None else ""
    curl = f"curl --silent --max-time 30 --header '{header}' --write-out '\\n%{{http_code}}' {data} '{URL}{path}'"
    text, _, status = root.check_output(curl).rpartition("\n")
    return int(status), json.loads(text) if text.startswith("{") else text


def submit(root: Host, token: str, command: str = "ping", payload: str = "") -> tuple[int, Any]:
    return call(root, "/jobs", f"X-Bot-Token: {token}", {"command": command, "payload": payload})


def as_worker(name: str) -> str:
    return f"X-Worker-Token: {WORKER}' --header 'X-Worker-Id: {name}"


def claim(root: Host, worker: str, wait: int = 0) -> dict[str, Any] | None:
    status, answer = call(root, f"/jobs/next?wait={wait}", as_worker(worker))
    assert status == 200, answer
    job: dict[str, Any] | None = answer["job"]
    return job


def report(root: Host, job: dict[str, Any], result: str, *, worker: str) -> int:
    body = {"result": result, "lease_epoch": job["lease_epoch"]}
    return call(root, f"/jobs/{job['id']}/result", as_worker(worker), body)[0]


def test_it_listens_where_it_is_told_and_nowhere_else(root: Host) -> None:
    listening = {socket for socket in root.socket.get_listening_sockets() if not socket.endswith(":22")}

    assert {socket for socket in listening if socket.startswith("tcp://")} == {
        f"tcp://{address}:{port}" for address in ("127.0.0.2", "::1") for port in PORTS
    }
    for port in PORTS:
        assert root.check_output(f"curl --silent 'http://[::1]:{port}/health'").startswith("{")


def test_agents_are_told_the_hubs_own_port_for_their_lines(root: Host) -> None:
    admin = root.check_output("openclaw-broker token mint registrar --role admin")
    registered = call(root, "/agents/register", f"Authorization: Bearer {admin}", {"agentId": "carol"})[1]

    assert registered["wsUrl"].startswith("ws://127.0.0.2:9190/agent/carol/")


@pytest.mark.parametrize(("key", "status"), [(SUBMITTER, 200), (f"{SUBMITTER}x", 401), ("", 401)])
def test_the_global_key_is_let_in(root: Host, key: str, status: int) -> None:
    assert call(root, "/api/tasks", f"Authorization: Bearer {key}")[0] == status


@pytest.mark.parametrize(("agent", "status"), [("alice", 200), ("bob", 401)])
def test_an_agents_key_is_for_that_agent(root: Host, agent: str, status: int) -> None:
    assert call(root, f"/api/agents/tasks/pull?agent_id={agent}", f"Authorization: Bearer {ALICE}")[0] == status


def test_a_task_that_failed_waits_before_it_is_tried_again(root: Host) -> None:
    task = {"type": "ping", "payload": {"agent_hint": "alice"}}
    task_id = call(root, "/api/tasks", f"Authorization: Bearer {SUBMITTER}", task)[1]["task"]["id"]

    def pull() -> Any:
        return call(root, "/api/agents/tasks/pull?agent_id=alice", f"Authorization: Bearer {ALICE}")[1]["task"]

    def complete(task: Any, **outcome: Any) -> None:
        path = f"/api/agents/tasks/{task['id']}/complete?agent_id=alice"
        call(root, path, f"Authorization: Bearer {ALICE}", {"lease_token": task["lease_token"], **outcome})

    complete(pull(), success=False, error="not today")
    assert pull() is None
    root.check_output("sleep 3.5")  # 3 s, 10 % more or less
    again = pull()
    assert again["id"] == task_id
    complete(again, success=True)


def test_a_job_is_forgotten_some_time_after_its_end(root: Host, bot: str) -> None:
    ended, waiting = (submit(root, bot)[1]["id"] for _ in range(2))
    job = claim(root, "worker")
    assert job is not None
    assert report(root, job, "", worker="worker") == 200
    assert call(root, f"/jobs/{ended}", f"X-Bot-Token: {BOT}")[0] == 200

    root.check_output("sleep 8")  # kept for 2 s, looked for every 5
    assert [call(root, f"/jobs/{job_id}", f"X-Bot-Token: {BOT}")[0] for job_id in (ended, waiting)] == [404, 200]


@pytest.mark.parametrize("token", [BOT, f"{BOT}x", ""])
def test_the_shared_bot_token_is_let_in(root: Host, token: str) -> None:
    assert submit(root, token)[0] == (200 if token == BOT else 401)


def test_the_shared_worker_token_is_for_workers_of_any_name(root: Host) -> None:
    assert claim(root, "anybody") is None
    assert call(root, "/jobs/next", "X-Worker-Token: wrong")[0] == 401


def test_shared_tokens_do_not_show(root: Host) -> None:
    pid = root.check_output("systemctl show --property=MainPID --value openclaw-broker.service")
    places = ["systemctl show openclaw-broker.service", f"cat /proc/{pid}/environ", "cat /etc/openclaw/broker.env"]

    shown = [root.check_output(place) for place in places]
    assert not [token for token in (BOT, WORKER, SUBMITTER, ALICE) if any(token in text for text in shown)]


def test_other_commands_are_refused(root: Host, bot: str) -> None:
    assert submit(root, bot, "approve_echo")[0] == 200
    assert submit(root, bot, "exec") == (400, {"detail": "invalid command"})


def test_a_large_request_is_refused(root: Host, bot: str) -> None:
    assert submit(root, bot, payload="x" * 3500)[0] == 200
    assert submit(root, bot, payload="x" * 4096)[0] == 413


def test_a_large_result_is_refused(root: Host, bot: str) -> None:
    submit(root, bot)
    job = claim(root, "worker")
    assert job is not None

    assert report(root, job, "x" * 17, worker="worker") == 413
    assert report(root, job, "x" * 16, worker="worker") == 200


def test_one_unfinished_job_too_many_is_refused(root: Host, bot: str) -> None:
    assert [submit(root, bot)[0] for _ in range(4)] == [200, 200, 200, 429]


def test_one_job_too_many_in_a_minute_is_refused(root: Host, bot: str) -> None:
    """Each is finished, so that the queue is not what is full."""

    def submit_and_finish() -> int:
        status, _ = submit(root, bot)
        if (job := claim(root, "worker")) is not None:
            report(root, job, "", worker="worker")
        return status

    assert [submit_and_finish() for _ in range(5)] == [200, 200, 200, 200, 429]


def test_a_job_without_heartbeats_is_handed_on(root: Host, bot: str) -> None:
    submit(root, bot)
    first = claim(root, "silent")
    second = claim(root, "other", wait=20)
    assert first is not None
    assert second is not None

    assert (second["id"], second["lease_epoch"]) == (first["id"], first["lease_epoch"] + 1)


@pytest.mark.parametrize(("others", "status"), [(4, "200"), (5, "503")])
def test_one_connection_too_many_is_refused(root: Host, others: int, status: str) -> None:
    assert root.check_output(f"python3 -c '{CROWD}' {others}") == status


@pytest.mark.parametrize(
    ("controller", "file", "value"),
    [
        ("memory", "memory.limit_in_bytes memory.max", str(200 * 2**20)),
        ("pids", "pids.max", "40"),
        ("cpu", "cpu.cfs_quota_us cpu.max", "50000"),
    ],
)
def test_the_kernel_limits_the_service(root: Host, controller: str, file: str, value: str) -> None:
    files = " ".join(
        f"/sys/fs/cgroup/{tree}system.slice/openclaw-broker.service/{name}"
        for name in file.split()
        for tree in (f"{controller}/", "")
    )

    assert root.run(f"cat {files} 2> /dev/null").stdout.split()[0] == value


def test_few_releases_are_kept(root: Host) -> None:
    current = root.check_output("readlink --canonicalize /opt/openclaw/broker/current")

    assert root.check_output(f"ls -d {RELEASES}/*").split() == [current, f"{RELEASES}/2023"]


def test_the_release_was_built_where_it_was_said(root: Host) -> None:
    release = Path(root.check_output("readlink --canonicalize /opt/openclaw/broker/current")).name
    built = Path(os.environ["MOLECULE_EPHEMERAL_DIRECTORY"]) / "artefacts"

    assert [file.name for file in built.glob("*.tgz")] == [f"broker-{release}-3.13-x86_64.tgz"]


def test_the_database_is_on_the_volume(root: Host) -> None:
    assert root.check_output(f"findmnt --noheadings --output FSTYPE {STATE}") == "ext4"
    assert root.check_output(f"findmnt --noheadings --output SOURCE {STATE}") == root.check_output(f"readlink {VOLUME}")
    assert root.file(f"{STATE}/broker.db").user == "openclaw-broker"


def test_without_its_volume_there_is_no_broker_and_no_other_database(root: Host) -> None:
    """Its socket keeps trying; nothing is written to the bare folder, by its command line neither."""
    ask = f"curl --silent --max-time 3 {URL}/health"
    target = root.check_output(f"readlink {VOLUME}")
    root.check_output(f"rm {VOLUME} && systemctl stop 'var-lib-openclaw\\x2dbroker.mount'")
    try:
        assert root.run("systemctl is-active openclaw-broker.service").stdout.strip() != "active"
        assert root.run(ask).rc != 0
        refused = root.run("openclaw-broker token list")
        assert (refused.rc, "is not mounted" in refused.stderr) == (1, True)
        assert root.run(f"ls --almost-all {STATE}").stdout == ""
    finally:
        root.check_output(f"ln -s {target} {VOLUME}")
        root.check_output("systemctl reset-failed; systemctl restart openclaw-broker.socket openclaw-broker.service")
    assert root.check_output(ask).startswith("{")
