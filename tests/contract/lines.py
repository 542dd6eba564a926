"""An agent's line to the hub, as the seed's agents have it."""

from __future__ import annotations

import json
import uuid
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

if TYPE_CHECKING:
    from collections.abc import Iterator

    import httpx
    from websockets.sync.client import ClientConnection

SECONDS = 10.0
# Long enough for what must not come to have come.
SILENCE = 0.4


class Line:
    """One connection of an agent's."""

    def __init__(self, connection: ClientConnection, name: str) -> None:
        self.connection = connection
        self.name = name

    def send(self, kind: str, to: str = "hub", **payload: Any) -> str:
        """Send an envelope; returns its id."""
        message_id = str(uuid.uuid4())
        self.raw(id=message_id, type=kind, to=to, payload=payload, timestamp=1, **{"from": self.name})
        return message_id

    def raw(self, **envelope: Any) -> None:
        """Send any object."""
        self.connection.send(json.dumps(envelope))

    def next(self) -> Any:
        """The next envelope."""
        return json.loads(self.connection.recv(SECONDS))

    def ask(self, kind: str, to: str = "hub", **payload: Any) -> Any:
        """Send an envelope; returns the payload of its answer."""
        message_id = self.send(kind, to, **payload)
        answer = self.next()
        assert answer["payload"]["id"] == message_id, answer
        assert answer["type"] in ("ack", "error")
        return answer["payload"]

    def task(self) -> Any:
        """The payload of a task, which must be what comes next."""
        envelope = self.next()
        assert envelope["type"] == "task", envelope
        assert (envelope["from"], envelope["to"]) == ("hub", self.name)
        return envelope["payload"]

    def done(self, task: Any, result: Any = "r") -> Any:
        """Say that a task is done; returns the payload of the answer."""
        return self.ask("response", taskId=task["taskId"], leaseEpoch=task["leaseEpoch"], success=True, result=result)

    def silent(self) -> bool:
        """Whether nothing comes."""
        try:
            self.connection.recv(SILENCE)
        except TimeoutError:
            return True
        return False

    def closed_with(self) -> int:
        """The code with which the other side closes it; what comes before counts for nothing."""
        try:
            while True:
                self.connection.recv(SECONDS)
        except ConnectionClosed as closed:
            return closed.rcvd.code if closed.rcvd else 1006

    def cut(self) -> None:
        """End the connection without a word."""
        self.connection.socket.close()


@contextmanager
def line(url: str, name: str, **options: Any) -> Iterator[Line]:
    """Connect, with the headers and limits of the library."""
    with connect(url, compression=None, proxy=None, **options) as connection:
        yield Line(connection, name)


def register(admin: httpx.Client, name: str, **metadata: Any) -> str:
    """Register an agent; returns where it connects to."""
    response = admin.post("/agents/register", json={"agentId": name, "metadata": metadata})
    assert response.status_code == 200, response.text
    return str(response.json()["wsUrl"])


def assign(admin: httpx.Client, name: str, **task: Any) -> str:
    """Send a task to an agent (a ping unless said otherwise); returns its id."""
    response = admin.post(f"/agents/{name}/task", json={"type": "ping", **task})
    assert response.status_code == 200, response.text
    assert response.json()["status"] == "sent"
    return str(response.json()["taskId"])
