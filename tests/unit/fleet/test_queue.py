"""Looking at jobs and the queue, and what can be done about them, with a real broker."""

from __future__ import annotations

import io
import json
import re
import sys
import threading
import time
import uuid
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import httpx
import pytest
import typer

from fleet import broker, console
from fleet.errors import BrokerError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.unit.fleet.conftest import Said, Served

    Job = dict[str, Any]
    Run = Callable[..., Said]
    Works = Callable[[str, Callable[[Job], None]], None]

PROGRAM = '{"type":"exec","command":"make"}'
LATER = ("--after", "1h")
NOBODY = str(uuid.UUID(int=0))


def submit(run: Run, *words: str, agent: str = "agent1", text: str = PROGRAM) -> str:
    return run("task", agent, text, *LATER, *words).out.strip()


def ready(served: Served, agent: str = "agent1", **options: Any) -> str:
    with served.client() as client:
        body = {"command": "exec", "payload": '{"command":"make"}', "agent": agent, **options}
        return str(client.post("/jobs", json=body).raise_for_status().json()["id"])


def dead(served: Served) -> str:
    """Have a job lost by its agent on its only delivery."""
    job_id = ready(served, max_deliveries=1)
    served.claim("agent1")
    served.lose_all("agent1")
    assert served.job(job_id)["outcome"] == "dead"
    return job_id


def result(text: str = "", **more: Any) -> str:
    return json.dumps({"exit_code": 0, "stdout": text, "stderr": "", **more})


class TestList:
    def test_jobs_are_listed_with_what_a_person_asks_first(self, run: Run, served: Served) -> None:
        waiting = submit(run, "--priority", "7", agent="agent2")
        running = ready(served)
        served.post(served.claim("agent1"), "log", progress=40, note="compiling")
        title, _, first, second, *_ = run("jobs").out.splitlines()
        assert title.split() == ["job", "agent", "state", "priority", "age", "progress", "task"]
        assert re.fullmatch(rf"{running} +agent1 +running +0 +\d+s +40 % +exec: make *", first)
        assert re.fullmatch(rf"{waiting} +agent2 +queued +7 +\d+s +in (59m|1h) +exec: make *", second)

    def test_an_id_is_whole_on_a_narrow_terminal(self, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
        job_id = submit(run, "--priority", "7")
        monkeypatch.setattr(console.out, "width", 40)
        assert re.search(rf"^{job_id}  agent1  queued .*  exec: make *$", run("jobs").out, re.MULTILINE)

    def test_a_column_that_says_nothing_is_left_out(self, run: Run, served: Served) -> None:
        ready(served, agent="agent3")
        title, *_ = run("jobs", "--status", "queued").out.splitlines()
        assert title.split() == ["job", "agent", "state", "age", "task"]

    @pytest.mark.parametrize(
        ("words", "listed"),
        [
            (("--status", "queued"), {"queued"}),
            (("--status", "running"), {"running"}),
            (("--status", "done"), {"done"}),
            (("--status", "failed"), {"failed"}),
            (("--status", "cancelled"), {"cancelled"}),
            (("--status", "dead"), {"dead"}),
            (("--dead",), {"dead"}),
            ((), {"queued", "running", "done", "failed", "cancelled", "dead"}),
        ],
    )
    def test_jobs_are_listed_by_state(self, run: Run, served: Served, words: tuple[str, ...], listed: set[str]) -> None:
        ids = {"dead": dead(served)}
        for end in ("done", "failed", "running"):
            ids[end] = ready(served)
            job = served.claim("agent1")
            if end != "running":
                served.post(job, *(("result",) if end == "done" else ("fail",)), **_body(end))
        ids |= {"cancelled": submit(run), "queued": submit(run)}
        run("cancel", ids["cancelled"])
        found = {job["id"] for job in json.loads(run("jobs", "--json", "--limit", "6", *words).out)}
        assert found & set(ids.values()) == {ids[state] for state in listed}

    def test_jobs_are_listed_by_agent_and_in_number(self, run: Run) -> None:
        ids = [submit(run, agent=agent) for agent in ("agent1", "agent2", "agent2", "agent1")]
        found = json.loads(run("jobs", "--agent", "agent2", "--limit", "2", "--json").out)
        assert [job["id"] for job in found] == [ids[2], ids[1]]
        assert [job["id"] for job in json.loads(run("jobs", "-n", "1", "--json").out)] == [ids[3]]

    def test_more_jobs_than_a_page_are_listed(self, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(broker, "_PAGE", 2)
        ids = [submit(run) for _ in range(5)]
        listed = json.loads(run("jobs", "--status", "queued", "--limit", "5", "--json").out)
        assert [job["id"] for job in listed] == ids[::-1]

    def test_a_list_of_none_says_so(self, run: Run) -> None:
        assert run("jobs", "--agent", "nobody").out == "no such jobs\n"
        assert run("jobs", "--agent", "nobody", "--json").out == "[]\n"

    @pytest.mark.parametrize("words", [("--status", "happy"), ("--status", "done", "--dead"), ("--limit", "0")])
    def test_what_cannot_be_listed_is_said(self, run: Run, words: tuple[str, ...]) -> None:
        said = run("jobs", *words)
        assert (said.status, said.out, words[0] in said.err) == (2, "", True)

    @pytest.mark.parametrize(
        "task",
        [
            {"type": "exec", "command": "echo [/red] [bold]x"},
            {"type": "exec", "argv": 5},
            {"type": "exec", "command": "\x1b[2Jgone"},
        ],
    )
    def test_a_list_survives_what_a_job_is_about(self, run: Run, task: dict[str, Any]) -> None:
        submit(run, text=json.dumps(task))
        for command in ("jobs", "status"):
            said = run(command)
            assert said.status == 0
            assert str(task.get("command", "argv")).lstrip("\x1b")[:12] in said.out
            assert "\x1b" not in said.out


def _body(end: str) -> dict[str, str]:
    return {"result": "x"} if end == "done" else {"error": "x"}


class TestCancel:
    def test_a_queued_job_is_cancelled_with_its_reason(self, run: Run, served: Served) -> None:
        job_id = submit(run)
        assert run("cancel", job_id, "--reason", "not today").out == "cancelled\n"
        job = served.job(job_id)
        assert (job["outcome"], job["error"]) == ("cancelled", "not today")
        assert run("cancel", job_id).status == 0

    def test_a_running_job_is_cancelled(self, run: Run, served: Served) -> None:
        job_id = ready(served)
        served.claim("agent1")
        assert run("cancel", job_id).status == 0
        assert served.job(job_id)["outcome"] == "cancelled"

    def test_who_waits_for_a_job_hears_that_it_was_cancelled(self, run: Run, served: Served, works: Works) -> None:
        works("agent1", lambda job: served.cancel(job, "not today"))
        said = run("task", "agent1", PROGRAM)
        assert (said.status, said.out, said.err) == (1, "", "cancelled: not today\n")

    def test_a_job_that_had_ended_is_not_cancelled(self, run: Run, served: Served) -> None:
        job_id = ready(served)
        served.post(served.claim("agent1"), "result", result="x")
        said = run("cancel", job_id)
        assert (said.status, said.out, said.err) == (1, "", f"fleet: job {job_id} had ended before: done\n")


class TestRequeue:
    def test_dead_jobs_are_queued_again(self, run: Run, served: Served) -> None:
        ids = [dead(served), dead(served)]
        assert run("requeue", *ids).out == "2 queued again\n"
        assert [served.job(job_id)["status"] for job_id in ids] == ["queued"] * 2

    def test_all_dead_jobs_are_queued_again(self, run: Run, served: Served) -> None:
        run("requeue", "--all-dead")
        served.tidy()
        job_id = dead(served)
        assert run("requeue", "--all-dead").out == "1 queued again\n"
        assert served.job(job_id)["status"] == "queued"
        assert run("requeue", "--all-dead").out == "0 queued again\n"

    def test_one_that_was_queued_again_without_an_answer_counts(
        self, run: Run, served: Served, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        job_id = dead(served)
        requeue = broker.Broker.requeue

        def twice(client: broker.Broker, job: str) -> None:
            requeue(client, job)
            requeue(client, job)

        monkeypatch.setattr(broker.Broker, "requeue", twice)
        assert run("requeue", job_id).out == "1 queued again\n"

    def test_one_that_is_not_dead_keeps_the_others_out(self, run: Run, served: Served) -> None:
        gone, waiting = dead(served), submit(run)
        said = run("requeue", gone, waiting)
        refusal = f"fleet: nothing was queued again: job {waiting} is not dead but queued\n"
        assert (said.status, said.out, said.err) == (1, "", refusal)
        assert served.job(gone)["outcome"] == "dead"

    @pytest.mark.parametrize("words", [(), (NOBODY, "--all-dead")])
    def test_it_is_said_which_jobs_are_meant(self, run: Run, words: tuple[str, ...]) -> None:
        said = run("requeue", *words)
        assert (said.status, "give the ids of dead jobs, or --all-dead" in said.err) == (2, True)


@pytest.mark.parametrize("command", ["cancel", "requeue", "follow"])
@pytest.mark.parametrize("job_id", [NOBODY, "", "../queue/pause", "a b", "\udcff"])
def test_a_job_that_there_is_not_is_said(run: Run, command: str, job_id: str) -> None:
    said = run(command, job_id)
    assert (said.status, said.out) == (1, "")
    assert said.err == f"fleet: there is no job {job_id!r}; fleet jobs lists them\n"


class TestFollow:
    def test_a_job_is_shown_as_it_goes(self, run: Run, served: Served, works: Works) -> None:
        def work(job: Job) -> None:
            served.post(job, "log", text="one\ntw", offset=0)
            served.post(job, "log", progress=50, note="half\nof it")
            served.post(job, "log", progress=50, note="half\nof it")
            served.post(job, "log", text="o\nthree", offset=6)
            served.post(job, "result", result=result("one\ntwo\nthree"))

        works("agent1", work)
        said = run("task", "agent1", PROGRAM, "--follow")
        assert (said.status, said.out) == (0, "one\ntw\no\nthree\n")
        first, *told, last = said.err.splitlines()
        assert re.fullmatch(r"job [0-9a-f-]{36}", first)
        assert [words for words in told if words != "queued"] == ["running", "50 % half"]
        assert re.fullmatch(r"done in \d+\.\d s", last)

    def test_a_log_comes_before_the_end(
        self, run: Run, served: Served, works: Works, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        seen = threading.Event()
        echo = typer.echo

        def heard(text: str = "", **how: Any) -> None:
            echo(text, **how)
            seen.set()

        def work(job: Job) -> None:
            served.post(job, "log", text="begun\n", offset=0)
            assert seen.wait(20), "it was held back"
            served.post(job, "result", result=result("begun\n"))

        monkeypatch.setattr(typer, "echo", heard)
        job_id = ready(served)
        works("agent1", work)
        assert run("follow", job_id).out == "begun\n"

    def test_a_job_that_has_ended_is_shown_too(self, run: Run, served: Served) -> None:
        job_id = ready(served)
        job = served.claim("agent1")
        served.post(job, "log", text="why\n", offset=0)
        served.post(job, "fail", error="exit code 3: why")
        said = run("follow", job_id)
        assert (said.status, said.out) == (1, "why\n")
        assert re.fullmatch(r"failed in \d+\.\d s: exit code 3: why\n", said.err)

    @pytest.mark.parametrize(
        ("log", "answer", "shown"),
        [
            ("", result("out\n"), "out\n"),
            ("", "pong: hello", "pong: hello\n"),
            ("cloning\n", '{"commit":"a1"}', 'cloning\n{"commit":"a1"}\n'),
            ("out\n", result("out\n"), "out\n"),
        ],
    )
    def test_what_was_not_in_the_log_is_shown_at_the_end(
        self, run: Run, served: Served, log: str, answer: str, shown: str
    ) -> None:
        job_id = ready(served)
        job = served.claim("agent1")
        served.post(job, "log", text=log, offset=0)
        served.post(job, "result", result=answer)
        assert run("follow", job_id).out == shown

    def test_what_the_terminal_has_no_character_for_ends_nothing(
        self, run: Run, served: Served, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        job_id = ready(served)
        job = served.claim("agent1")
        served.post(job, "log", text="a → b\n", offset=0)
        served.post(job, "result", result=result())
        written = io.BytesIO()
        monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding="latin-1", write_through=True))
        assert run("follow", job_id).status == 0
        assert written.getvalue() == b"a ? b\n"

    def test_more_reports_than_one_answer_holds_are_shown(self, run: Run, served: Served) -> None:
        job_id = ready(served)
        job = served.claim("agent1")
        for number in range(230):
            served.post(job, "log", text=f"{number}\n", offset=number * 10)
        served.post(job, "result", result=result())
        assert run("follow", job_id).out.split() == [str(number) for number in range(230)]

    def test_a_state_is_told_at_once(self, run: Run) -> None:
        started = time.monotonic()
        said = run("task", "agent1", PROGRAM, "--follow", "--timeout", "0")
        assert said.err.splitlines()[1] == "queued"
        assert time.monotonic() - started < 10

    def test_a_job_that_takes_too_long_is_said_to_go_on(self, run: Run) -> None:
        said = run("task", "agent1", PROGRAM, "--follow", "--timeout", "1")
        assert said.status == 1
        assert "has not ended after 1 s; it is still queued or running" in said.err

    def test_an_interruption_ends_the_command_and_not_the_job(
        self, run: Run, served: Served, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        job_id = ready(served)

        def interrupted(*_: Any, **__: Any) -> None:
            raise KeyboardInterrupt

        monkeypatch.setattr(broker.Broker, "reports", interrupted)
        said = run("follow", job_id)
        assert said.status == 130
        assert said.err.strip() == f"fleet: job {job_id} goes on: fleet follow shows it, fleet cancel ends it"
        assert served.job(job_id)["status"] == "queued"


class TestBrokenLine:
    """Each second call for reports breaks, after the broker has sent them."""

    @pytest.fixture
    def dial(self, served: Served, monkeypatch: pytest.MonkeyPatch) -> Callable[[], Any]:
        monkeypatch.setattr("fleet.link._PAUSES", (0.01, 0.01))
        calls: list[str] = []

        class Breaking(httpx.HTTPTransport):
            def handle_request(self, request: httpx.Request) -> httpx.Response:
                answer = super().handle_request(request)
                if request.url.path.endswith("/events"):
                    calls.append(request.url.path)
                    if len(calls) % 2:
                        answer.read()
                        raise httpx.ReadError("connection lost")
                return answer

        @contextmanager
        def dial() -> Iterator[httpx.Client]:
            with served.client(Breaking()) as client:
                yield client

        return dial

    def test_a_job_is_followed_over_breaks_without_loss_or_repetition(
        self, run: Run, served: Served, works: Works
    ) -> None:
        def work(job: Job) -> None:
            for number in range(20):
                served.post(job, "log", text=f"{number}\n", offset=number * 10)
                time.sleep(0.02)
            served.post(job, "result", result=result())

        job_id = ready(served)
        works("agent1", work)
        said = run("follow", job_id)
        assert (said.status, said.out.split()) == (0, [str(number) for number in range(20)])


class TestPause:
    def test_a_pause_is_shown_wherever_somebody_waits_for_it(self, run: Run, served: Served) -> None:
        assert run("pause", "new [disk]").out == "paused\n"
        line = r"the queue is paused since \d{4}-\d\d-\d\d \d\d:\d\d:\d\d: new \[disk\]; fleet resume ends it\n"
        assert re.search(line, run("queue").out)
        assert re.search(line, run("status").out)
        waiting = run("task", "agent1", PROGRAM, "--timeout", "1")
        assert (waiting.status, bool(re.match(line, waiting.err))) == (1, True)
        assert served.claim("agent1", wait=0) is None
        assert run("resume").out == "resumed\n"
        assert served.claim("agent1") is not None
        assert "paused" not in run("queue").out + run("status").out

    def test_a_pause_needs_no_reason(self, run: Run) -> None:
        run("pause")
        assert json.loads(run("queue", "--json").out)["paused"]["reason"] == ""
        assert re.search(r"since [\d: -]+; fleet resume", run("queue").out)

    def test_a_broker_from_before_there_was_a_pause_has_none(self, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
        def unknown(_: broker.Broker) -> dict[str, Any]:
            raise BrokerError("GET /queue: 404: Not Found", status=404, detail="Not Found")

        monkeypatch.setattr(broker.Broker, "queue", unknown)
        assert run("status").status == 0


class TestQueue:
    def test_the_queue_is_told_to_people_and_programs(self, run: Run, served: Served) -> None:
        gone = dead(served)
        before = json.loads(run("queue", "--json").out)
        submit(run)
        ready(served, agent="agent2")
        ready(served)
        served.claim("agent1")
        told = json.loads(run("queue", "--json").out)
        assert [told[key] - before[key] for key in ("ready", "delayed", "running", "dead")] == [1, 1, 1, 0]
        assert re.search(r"^ready +1   the oldest was submitted \d+s ago$", run("queue").out, re.MULTILINE)
        assert re.search(r"^dead +\d+   fleet jobs --dead lists them$", run("queue").out, re.MULTILINE)
        run("requeue", gone)
