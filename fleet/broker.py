"""The broker's API, as a person's tools use it: through SSH to the broker's node, with the operator's token.

The token stays on the node; it passes through this process's memory and is written nowhere.
"""

from __future__ import annotations

import math
import time
from contextlib import contextmanager
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any

import httpx
from invoke.exceptions import CommandTimedOut

from fleet import ssh
from fleet.errors import BrokerError, ConnectError
from fleet.link import Link

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import fabric

    from fleet.inventory import Inventory

DIALECTS = ("jobs", "tasks", "hub")
_CREDENTIAL = "/etc/openclaw/operator-token"
_READ_SECONDS = 30
# What paramiko says of a command whose connection ended before it; after a time-out too, if its timer is not done yet.
_NO_STATUS = -1
_LONGEST_WAIT = 25
_PAGE = 200


class Broker:
    """Calls on one broker (broker_app/openapi.json): of the jobs dialect, and for submission of each."""

    def __init__(self, link: Link) -> None:
        self._link = link

    def agents(self) -> list[dict[str, Any]]:
        """Return every agent the broker knows: id, status, last_seen, runner_version, capabilities, running."""
        return list(self._call("GET", "/agents")["agents"])

    def last_job(self, agent: str) -> dict[str, Any] | None:
        """Return the newest job that was given to an agent, or None."""
        jobs = self._call("GET", "/jobs", query={"agent": agent, "limit": 1})["jobs"]
        return jobs[0] if jobs else None

    def now(self) -> float:
        """Return the time on the broker's node, in whole seconds: jobs' times are told and meant by it."""
        return parsedate_to_datetime(self._link.call("GET", "/health").headers["date"]).timestamp()

    def submit(self, order: dict[str, Any]) -> str:
        """Queue a job, as `jobs.order` writes it, and return its id."""
        return str(self._call("POST", "/jobs", body=order)["id"])

    def submit_all(self, orders: Sequence[dict[str, Any]]) -> list[str]:
        """Queue jobs, all or none, and return their ids in the same order."""
        return [str(job["id"]) for job in self._call("POST", "/jobs/batch", body={"jobs": orders})["jobs"]]

    def submit_in(self, dialect: str, agent: str, command: str, payload: dict[str, Any]) -> str:
        """Queue a job for one agent in tasks or hub, and return its id.

        These have no keys by which the broker would know a call that it is sent again, so it is sent once.
        """
        if dialect == "tasks":
            task = {"type": command, "payload": {**payload, "agent_hint": agent}}
            return str(self._call("POST", "/api/tasks", body=task, repeat=False)["task"]["id"])
        task = {"type": command, **payload}
        return str(self._call("POST", f"/agents/{agent}/task", body=task, repeat=False)["taskId"])

    def job(self, job_id: str, *, wait: int = 0) -> dict[str, Any]:
        """Return a job, when it has ended or after so many seconds."""
        return self._call("GET", f"/jobs/{job_id}", wait=wait)

    def finished(self, job_id: str, timeout: float) -> dict[str, Any]:
        """Return a job when it has ended.

        Raises:
            BrokerError: it had not ended after `timeout` seconds.
        """
        deadline = time.monotonic() + timeout
        while wait := next_wait(deadline):
            job = self.job(job_id, wait=wait)
            if job["outcome"]:
                return job
        raise not_ended(job_id, timeout)

    def reports(self, job_id: str, after: int, *, wait: int) -> dict[str, Any]:
        """Return what a job reported after an event: status, outcome, events, and the `after` of the next call."""
        return self._call("GET", f"/jobs/{job_id}/events", query={"after": after}, wait=wait)

    def jobs(
        self,
        *,
        limit: float = math.inf,
        status: str | None = None,
        outcome: str | None = None,
        agent: str | None = None,
    ) -> Iterator[dict[str, Any]]:
        """Give the newest jobs, of all or of those asked for."""
        cursor: str | None = None
        while limit > 0:
            asked = {"status": status, "outcome": outcome, "agent": agent, "limit": min(limit, _PAGE), "cursor": cursor}
            page = self._call("GET", "/jobs", query=asked)
            yield from page["jobs"]
            limit -= len(page["jobs"])
            cursor = page["cursor"]
            if cursor is None:
                return

    def cancel(self, job_id: str, reason: str | None) -> dict[str, Any]:
        """Have a job end; return its `status` and `outcome`, by which one that had ended before is known."""
        return self._call("POST", f"/jobs/{job_id}/cancel", body={"reason": reason})

    def requeue(self, job_id: str) -> None:
        """Queue a dead job again."""
        self._call("POST", f"/jobs/{job_id}/requeue")

    def queue(self) -> dict[str, Any]:
        """Return how many jobs are ready, delayed, running and dead, the `oldest`'s time, and the pause or None."""
        return self._call("GET", "/queue")

    def paused(self) -> dict[str, Any] | None:
        """Return since when the queue is paused, and the reason; None where it is not, or where it cannot be."""
        try:
            paused: dict[str, Any] | None = self.queue()["paused"]
        except BrokerError as error:
            if error.status != httpx.codes.NOT_FOUND:  # the answer of a broker from before there was a pause
                raise
            return None
        return paused

    def pause(self, reason: str | None) -> None:
        """Have no job delivered."""
        self._call("POST", "/queue/pause", body={"reason": reason})

    def resume(self) -> None:
        """Have jobs delivered again."""
        self._call("POST", "/queue/resume")

    def _call(self, method: str, path: str, **said: Any) -> dict[str, Any]:
        response = self._link.call(method, path, **said)
        try:
            body: dict[str, Any] = response.json()
        except ValueError as error:
            raise BrokerError(f"{method} {path}: something other than the broker answered: {error}") from error
        return body


def next_wait(deadline: float) -> int:
    """Return for how many seconds the broker may hold an answer back: at least 1, or 0 when the time has come."""
    left = deadline - time.monotonic()
    return max(1, int(min(_LONGEST_WAIT, left))) if left > 0 else 0


def not_ended(job_id: str, timeout: float) -> BrokerError:
    """Return what is said of a job that took too long."""
    return BrokerError(f"job {job_id} has not ended after {timeout:g} s; it is still queued or running")


@contextmanager
def connect(inventory: Inventory) -> Iterator[Broker]:
    """Reach the broker of a fleet while the context lasts."""

    @contextmanager
    def dial() -> Iterator[httpx.Client]:
        with ssh.connect(inventory.broker()) as connection, ssh.tunnel(connection, inventory.broker_port) as port:
            headers = {"Authorization": f"Bearer {_token(connection)}"}
            with httpx.Client(base_url=f"http://127.0.0.1:{port}", headers=headers, trust_env=False) as client:
                yield client

    link = Link(dial)
    try:
        link.open()
        yield Broker(link)
    finally:
        link.close()


def _token(connection: fabric.Connection) -> str:
    node = connection.original_host
    sudo = "" if connection.user == "root" else "sudo -n "
    read = f"{sudo}cat {_CREDENTIAL}"
    unread = ConnectError(f"{node}: {_CREDENTIAL} was not read within {_READ_SECONDS} s")
    try:
        shown = connection.run(read, hide=True, warn=True, in_stream=False, timeout=_READ_SECONDS)
    except CommandTimedOut as error:
        raise unread from error
    if shown.exited == _NO_STATUS:
        raise unread
    if shown.failed:
        raise BrokerError(f"{node}: {_CREDENTIAL} cannot be read: {shown.stderr.strip()}")
    return str(shown.stdout.strip())
