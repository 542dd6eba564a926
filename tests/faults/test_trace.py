"""No reply that promises something leaves before the fdatasync that keeps the promise, as strace sees the broker."""

from __future__ import annotations

import re
import subprocess
import threading
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest

from tests.contract.harness import Broker, caps, claim, submit
from tests.faults.stand import until

if TYPE_CHECKING:
    from collections.abc import Iterator

    import httpx

_THREADS, _ROUNDS = 4, 8
_JOB = r"([0-9a-f]{8}-[0-9a-f-]{27})"
# Calls whose reply is a promise: what a request looks like; the job is in its path or else in the reply.
_PROMISES = {
    "submit": re.compile(r'"POST /jobs HTTP'),
    "result": re.compile(rf'"POST /jobs/{_JOB}/result '),
    "fail": re.compile(rf'"POST /jobs/{_JOB}/fail '),
    "release": re.compile(rf'"POST /jobs/{_JOB}/release '),
}
_READS, _WRITES = {"read", "recvfrom", "recvmsg"}, {"write", "writev", "sendto", "sendmsg"}
_CALLS = ",".join(sorted({"fdatasync", "pwrite64", *_READS, *_WRITES}))


class Span(NamedTuple):
    """A system call: its name and arguments, and the lines of the trace at which it was entered and left."""

    name: str
    text: str
    entered: int
    left: int

    @property
    def file(self) -> str:
        """What it is about."""
        return self.text.partition(">")[0]


@dataclass
class Trace:
    """What strace wrote, in order."""

    spans: list[Span]

    @classmethod
    def parse(cls, text: str) -> Trace:
        """Read the output of `strace -f -o`."""
        spans: list[Span] = []
        open_calls: dict[str, tuple[str, str, int]] = {}
        for number, line in enumerate(text.splitlines()):
            thread, _, rest = line.partition(" ")
            rest = rest.strip()
            if rest.startswith("<... "):
                name, said, entered = open_calls.pop(thread, ("", "", 0))
                spans.append(Span(name, said + rest, entered, number))
            elif rest.endswith("<unfinished ...>"):
                name, _, said = rest.partition("(")
                open_calls[thread] = (name, said, number)
            else:
                name, _, said = rest.partition("(")
                spans.append(Span(name, said, number, number))
        return cls(sorted(spans, key=lambda span: span.entered))

    def promises(self) -> Iterator[tuple[str, str, int, int]]:
        """Every promise kept or broken: (call, job, when its request had come, when its reply left)."""
        asked: dict[str, tuple[str, str, int]] = {}
        left: dict[str, int] = {}
        for span in self.spans:
            if span.name in _READS:
                for call, pattern in _PROMISES.items():
                    if found := pattern.search(span.text):
                        asked[span.file] = (call, found[1] if found.groups() else "", span.left)
            elif span.name in _WRITES and span.file in asked:
                if "HTTP/1.1 200" in span.text:
                    left[span.file] = span.entered
                if span.file in left and (body := re.search(r'\{\\"(.*)', span.text)):
                    call, job, came = asked.pop(span.file)
                    found = re.search(_JOB, body[1])
                    yield call, job or (found[1] if found else "?"), came, left.pop(span.file)

    def is_covered(self, job: str, came: int, left: int) -> bool:
        """Whether the job was written to the log after the request came, and synced before the reply left."""
        written = [span for span in self.spans if span.name == "pwrite64" and "-wal" in span.file and job in span.text]
        synced = [span for span in self.spans if span.name == "fdatasync" and "-wal" in span.file]
        return any(
            came < write.entered and write.left < sync.entered and sync.left < left
            for write in written
            for sync in synced
        )


def _work(bot: httpx.Client, worker: httpx.Client, cap: str) -> None:
    for _ in range(_ROUNDS):
        for reports in (("result",), ("fail",), ("release", "result")):
            submit(bot, requires=caps(cap))
            for report in reports:
                job = claim(worker)
                body = {"result": "r", "error": "e", "lease_epoch": job["lease_epoch"]}
                assert worker.post(f"/jobs/{job['id']}/{report}", json=body).status_code == 200


@pytest.fixture
def trace(tmp_path: Path) -> Trace:
    broker = Broker(tmp_path, {}).start()
    file = tmp_path / "trace"
    strace = ["strace", "-f", "-q", "-y", "-s", "5000", "-e", f"trace={_CALLS}", "-o", str(file), "-p", str(broker.pid)]
    with subprocess.Popen(strace) as tracer:
        try:
            until(lambda: f"TracerPid:\t{tracer.pid}" in _status(broker.pid), "strace is attached", 10)
            time.sleep(0.2)  # to every thread
            caps = [f"cap{number}" for number in range(_THREADS)]
            work = [threading.Thread(target=_work, args=(broker.bot(), broker.worker(cap, cap), cap)) for cap in caps]
            for thread in work:
                thread.start()
            for thread in work:
                thread.join()
        finally:
            tracer.terminate()
            tracer.wait(10)
            broker.close()
    return Trace.parse(file.read_text(errors="replace"))


def test_no_promise_leaves_before_it_is_on_disk(trace: Trace) -> None:
    promises = list(trace.promises())
    broken = [(call, job) for call, job, came, left in promises if not trace.is_covered(job, came, left)]
    assert not broken
    seen = Counter(call for call, *_ in promises)
    rounds = _THREADS * _ROUNDS
    assert seen == {"submit": 3 * rounds, "result": 2 * rounds, "fail": rounds, "release": rounds}


def _status(pid: int) -> str:
    return (Path("/proc") / str(pid) / "status").read_text()
