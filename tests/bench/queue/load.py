"""The load, in a process of its own: clients that each wait for an answer before they ask again.

Reads a `Slice` as JSON from its input and prints a `Result` as JSON. It parses of an answer no more than it needs, so
that it is never the limit: what it can do at the most is measured too, against a server that only answers.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import sys
import time
from collections.abc import Callable, Generator
from dataclasses import asdict, dataclass, field
from typing import cast

import uvloop

_PAYLOAD = "x" * 100
_NEEDS = "linux"
_BATCH = 100
_PAUSE = 0.01  # a worker's request has arrived long before it is over
_ECHO = b"GET /health HTTP/1.1\r\nHost: b\r\n\r\n"

# A client's requests; it is sent the answers.
Script = Generator[bytes, bytes, None]


class LoadError(Exception):
    """An answer is not the expected one."""


@dataclass(frozen=True)
class Slice:
    """What to do.

    Attributes:
        kind: A name in `SCRIPTS`, or `idle`.
        port: Of the server, on loopback.
        seconds: How long; requests under way then are finished. Of `idle`, how many times.
        bot: The submitters' token.
        workers: A token of each worker; each client is another worker.
        scratch: A file on the database's disk.
    """

    kind: str
    port: int
    clients: int
    seconds: float
    bot: str = ""
    workers: tuple[str, ...] = ()
    scratch: str = ""


@dataclass
class Result:
    """What came of it.

    Attributes:
        done: Jobs submitted, or claimed and completed; requests answered.
        seconds: How long it took.
        waits: Seconds of each claim.
        syncs: Seconds of an fdatasync of 4 KiB just before each claim that `idle` timed.
    """

    done: int = 0
    seconds: float = 0.0
    waits: list[float] = field(default_factory=list)
    syncs: list[float] = field(default_factory=list)


def http_length(data: bytes) -> int:
    """Bytes of the HTTP response that the data begins with, 0 while it is not whole.

    Raises:
        LoadError: It is not a 200.
    """
    end = data.find(b"\r\n\r\n")
    if end < 0:
        return 0
    if not data.startswith(b"HTTP/1.1 200"):
        raise LoadError(data.decode(errors="replace"))
    start = data.find(b"content-length: ") + 16
    length = end + 4 + int(data[start : data.index(b"\r\n", start)])
    return length if len(data) >= length else 0


def beanstalk_length(data: bytes) -> int:
    """Bytes of beanstalkd's answer that the data begins with, 0 while it is not whole.

    Raises:
        LoadError: It is an error.
    """
    end = data.find(b"\r\n") + 2
    if end < 2:
        return 0
    word, *rest = data[:end].split()
    if word not in (b"INSERTED", b"RESERVED", b"DELETED", b"TIMED_OUT"):
        raise LoadError(data.decode(errors="replace"))
    length = end + int(rest[1]) + 2 if word == b"RESERVED" else end
    return length if len(data) >= length else 0


def _request(method: str, path: str, body: object = None, **headers: str) -> bytes:
    text = b"" if body is None else json.dumps(body).encode()
    lines = [f"{method} {path} HTTP/1.1", "Host: b", f"Content-Length: {len(text)}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode() + text


class Run:
    """One slice under way."""

    def __init__(self, asked: Slice) -> None:
        self.asked = asked
        self.result = Result()
        self._began = time.perf_counter()

    @property
    def open(self) -> bool:
        """Whether there is time for another request."""
        return time.perf_counter() - self._began < self.asked.seconds

    def worker(self, client: int) -> dict[str, str]:
        """A worker's headers, as a runner sends them."""
        return {
            "X_Worker_Token": self.asked.workers[client],
            "X_Worker_Id": f"w{client}",
            "X_Worker_Caps": f"{_NEEDS},git",
        }

    def order(self) -> dict[str, object]:
        """A job to submit."""
        return {"command": "ping", "payload": _PAYLOAD, "requires": {"caps": [_NEEDS]}}

    def finish(self) -> Result:
        """What came of it."""
        self.result.seconds = time.perf_counter() - self._began
        return self.result


def echo(run: Run, _client: int) -> Script:
    """Ask for nothing that takes work."""
    while run.open:
        yield _ECHO
        run.result.done += 1


def enqueue(run: Run, _client: int) -> Script:
    """Submit one job after the other."""
    request = _request("POST", "/jobs", run.order(), X_Bot_Token=run.asked.bot)
    while run.open:
        yield request
        run.result.done += 1


def batches(run: Run, _client: int) -> Script:
    """Submit batches of 100."""
    request = _request("POST", "/jobs/batch", {"jobs": [run.order()] * _BATCH}, X_Bot_Token=run.asked.bot)
    while run.open:
        yield request
        run.result.done += _BATCH


def work(run: Run, client: int) -> Script:
    """Claim and complete jobs until there is none."""
    who = run.worker(client)
    claim = _request("GET", "/jobs/next", **who)
    while run.open:
        began = time.perf_counter()
        answer = yield claim
        run.result.waits.append(time.perf_counter() - began)
        if answer.endswith(b'{"job":null}'):
            return
        yield _complete(answer, who)
        run.result.done += 1


def _complete(claimed: bytes, who: dict[str, str]) -> bytes:
    start = claimed.index(b'"id":"') + 6
    job = claimed[start : claimed.index(b'"', start)].decode()
    start = claimed.index(b'"lease_epoch":') + 14
    epoch = int(claimed[start : claimed.index(b",", start)])
    return _request("POST", f"/jobs/{job}/result", {"result": _PAYLOAD, "lease_epoch": epoch}, **who)


def poll(run: Run, client: int) -> Script:
    """Wait for work that does not come, again and again."""
    claim = _request("GET", "/jobs/next?wait=25", **run.worker(client))
    while run.open:
        yield claim


def put(run: Run, _client: int) -> Script:
    """Submit one job after the other to beanstalkd."""
    request = f"put 0 0 60 {len(_PAYLOAD)}\r\n{_PAYLOAD}\r\n".encode()
    while run.open:
        yield request
        run.result.done += 1


def reserve(run: Run, _client: int) -> Script:
    """Claim and complete beanstalkd's jobs until there is none."""
    while run.open:
        began = time.perf_counter()
        answer = yield b"reserve-with-timeout 0\r\n"
        run.result.waits.append(time.perf_counter() - began)
        if answer.startswith(b"TIMED_OUT"):
            return
        yield b"delete " + answer.split(b" ", 2)[1] + b"\r\n"
        run.result.done += 1


SCRIPTS: dict[str, tuple[Callable[[Run, int], Script], Callable[[bytes], int]]] = {
    "echo": (echo, http_length),
    "enqueue": (enqueue, http_length),
    "batches": (batches, http_length),
    "work": (work, http_length),
    "poll": (poll, http_length),
    "put": (put, beanstalk_length),
    "reserve": (reserve, beanstalk_length),
}


class _Client(asyncio.Protocol):
    """One connection that follows a script."""

    def __init__(self, script: Script, length: Callable[[bytes], int]) -> None:
        self._script = script
        self._length = length
        self._data = b""
        self.over: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is none by its class
        self._go(None)

    def data_received(self, data: bytes) -> None:
        self._data += data
        try:
            if not self._length(self._data):
                return
        except LoadError as error:
            self.over.set_exception(error)
            return
        answer, self._data = self._data, b""
        self._go(answer)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.over.done():
            self.over.set_exception(exc or LoadError("the server closed the connection"))

    def _go(self, answer: bytes | None) -> None:
        try:
            self._transport.write(next(self._script) if answer is None else self._script.send(answer))
        except StopIteration:
            self.over.set_result(None)


async def _drive(asked: Slice) -> Result:
    script, length = SCRIPTS[asked.kind]
    loop = asyncio.get_running_loop()
    run = Run(asked)
    clients = [_Client(script(run, number), length) for number in range(asked.clients)]
    for client in clients:
        await loop.create_connection(lambda client=client: client, "127.0.0.1", asked.port)  # type: ignore[misc]
    await asyncio.gather(*(client.over for client in clients))
    return run.finish()


def idle(asked: Slice) -> Result:
    """Time single jobs from their submission until a worker that waits for one has it."""
    run = Run(asked)
    submit = _request("POST", "/jobs", run.order(), X_Bot_Token=asked.bot)
    claim = _request("GET", "/jobs/next?wait=25", **run.worker(0))
    scratch = os.open(asked.scratch, os.O_WRONLY | os.O_CREAT, 0o600)
    bot, worker = (socket.create_connection(("127.0.0.1", asked.port)) for _ in range(2))
    for _ in range(int(asked.seconds)):
        worker.sendall(claim)
        time.sleep(_PAUSE)
        run.result.syncs.append(_sync(scratch))
        began = time.perf_counter()
        bot.sendall(submit)
        claimed = _answer(worker)
        run.result.waits.append(time.perf_counter() - began)
        _answer(bot)
        worker.sendall(_complete(claimed, run.worker(0)))
        _answer(worker)
        run.result.done += 1
    os.close(scratch)
    return run.finish()


def _sync(file: int) -> float:
    os.pwrite(file, os.urandom(4096), 0)
    began = time.perf_counter()
    os.fdatasync(file)
    return time.perf_counter() - began


def _answer(connection: socket.socket) -> bytes:
    data = b""
    while not http_length(data):
        received = connection.recv(65536)
        if not received:
            raise LoadError("the server closed the connection")
        data += received
    return data


def main() -> int:
    """Do one slice."""
    asked = Slice(**json.load(sys.stdin))
    try:
        result = idle(asked) if asked.kind == "idle" else uvloop.run(_drive(asked))
    except LoadError as error:
        sys.stderr.write(f"{asked.kind}: {error}\n")
        return 1
    json.dump(asdict(result), sys.stdout)
    return 0


if __name__ == "__main__":
    sys.exit(main())
