"""An agent whose every setting is off its default, judged by what it does."""

from __future__ import annotations

import json
import os
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.support import molecule

if TYPE_CHECKING:
    from testinfra.host import Host

testinfra_hosts = ["ansible://runners"]
AGENT = "builder-9"
RELEASES = "/opt/openclaw/releases/runner"
call = partial(molecule.call, port=8001)

# A broker that never holds a request open, has no job, and knows none of the later calls.
HASTY = """
from http.server import BaseHTTPRequestHandler, HTTPServer
class Hasty(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"{}")
    def do_POST(self):
        self.send_error(404)
HTTPServer(("0.0.0.0", 8001), Hasty).serve_forever()
"""


def submit(broker: Host, command: str, agent: str = AGENT, **more: Any) -> str:
    payload = json.dumps({"argv": ["sh", "-c", command]})
    return str(call(broker, "/jobs", {"command": "exec", "payload": payload, "agent": agent, **more})["id"])


def ended(broker: Host, job: str) -> dict[str, Any]:
    return call(broker, f"/jobs/{job}?wait=25")


def test_its_token_is_from_the_host_that_was_named(root: Host, broker: Host) -> None:
    assert f"{AGENT}\tworker" in broker.check_output("openclaw-broker token list")
    assert not root.file("/usr/local/bin/openclaw-broker").exists


def test_it_does_a_job_that_requires_what_it_can(broker: Host) -> None:
    job = ended(broker, submit(broker, "true", requires={"caps": ["gpu", "rust"]}))

    assert (job["status"], job["worker_id"]) == ("done", AGENT)


@pytest.mark.parametrize("agent", [AGENT, "guest", "tasker"])
def test_a_runner_of_each_dialect_does_its_jobs(broker: Host, agent: str) -> None:
    job = ended(broker, submit(broker, "id -un", agent))

    assert (job["worker_id"], json.loads(job["result"])["stdout"]) == (agent, f"{agent}\n")


def terms(broker: Host) -> list[int]:
    """How long after its start a job's leases end, of all that were seen, the shortest first."""
    job = submit(broker, "sleep 1.8", "tasker")
    leases = set()
    while (known := call(broker, f"/jobs/{job}"))["status"] in {"queued", "running"}:
        leases |= {known["lease_until"]} - {None}
    return sorted(lease - known["started_at"] for lease in leases)


def test_a_runner_of_the_tasks_dialect_says_how_long_it_takes_a_job_and_that_it_has_it_still(broker: Host) -> None:
    # A busy machine may show the first lease only once it was renewed: then another job is looked at.
    seen: list[int] = []
    for _ in range(5):
        seen = terms(broker)
        if seen[:1] == [40]:
            break

    assert seen[0] == 40
    assert len(seen) > 1


def test_root_does_what_an_agent_may_ask_of_it_and_nothing_for_others(broker: Host) -> None:
    order = {"command": "exec", "payload": json.dumps({"command": "id -un", "sudo": True})}
    jobs = [call(broker, "/jobs", {**order, "agent": agent})["id"] for agent in (AGENT, "guest")]
    done, refused = (ended(broker, job) for job in jobs)

    assert json.loads(done["result"])["stdout"] == "root\n"
    assert "sudo is not allowed to this agent" in refused["error"]


def test_who_may_ask_for_root_is_in_sudos_rules_alone(root: Host) -> None:
    listed = {name: root.run(f"sudo -l -U {name}").stdout for name in (AGENT, "guest", "tasker")}

    assert [name for name, rules in listed.items() if "NOPASSWD: ALL" in rules] == [AGENT]


def test_packages_are_those_that_were_named(root: Host) -> None:
    assert root.exists("git")
    assert not root.exists("node")


def test_it_does_one_job_at_a_time(broker: Host) -> None:
    first, second = (ended(broker, job) for job in [submit(broker, "date +%s%N; sleep 1; date +%s%N") for _ in "ab"])
    times = sorted(tuple(map(int, json.loads(job["result"])["stdout"].split())) for job in (first, second))

    assert times[0][1] <= times[1][0]


def test_a_job_that_takes_longer_is_ended(broker: Host) -> None:
    job = ended(broker, submit(broker, "sleep 20"))

    assert job["status"] == "failed"
    assert 4.5 <= job["duration_ms"] / 1000 < 18


@pytest.mark.parametrize(("agent", "least", "most"), [(AGENT, 40, 80), ("guest", 80, 120)])
def test_a_job_cannot_fill_more_than_the_agents_disk(broker: Host, agent: str, least: int, most: int) -> None:
    """One has the disk that all have, the other one of its own."""
    # Room that is taken without a word written, since no job of these agents may take long.
    fill = "n=0; while [ $n -lt 50 ] && fallocate --length 4M part$n; do n=$((n + 1)); done; rm -f part*; echo $n"
    job = ended(broker, submit(broker, fill, agent))

    assert least < 4 * int(json.loads(job["result"])["stdout"]) < most


def test_a_broker_that_does_not_wait_is_asked_often(broker: Host) -> None:
    polls = "journalctl --unit=hasty.service --grep='GET /jobs/next' --output=cat | wc -l"
    broker.check_output("systemctl stop openclaw-broker.socket openclaw-broker.service")
    broker.check_output(f"systemd-run --quiet --unit=hasty --collect python3 -c '{HASTY}'")
    try:
        before = int(broker.check_output(f"sleep 2; {polls}"))
        after = int(broker.check_output(f"sleep 4; {polls}"))
    finally:
        broker.check_output("systemctl stop hasty.service; systemctl start openclaw-broker.socket")

    # With the default of 10 s it would have been asked six times from the first answer on, and then every 5 to 10 s.
    assert after - before >= 12


def test_few_releases_are_kept(root: Host) -> None:
    current = root.check_output(f"readlink --canonicalize /opt/openclaw/agents/{AGENT}/current")

    assert root.check_output(f"ls -d {RELEASES}/*").split() == [current, f"{RELEASES}/2023"]


def test_the_release_was_built_where_it_was_said(root: Host) -> None:
    release = Path(root.check_output(f"readlink --canonicalize /opt/openclaw/agents/{AGENT}/current")).name
    built = Path(os.environ["MOLECULE_EPHEMERAL_DIRECTORY"]) / "artefacts"

    assert f"runner-{release}-3.11-x86_64.tgz" in [file.name for file in built.iterdir()]
