"""The broker's API, as a person's tools use it: through SSH to the broker's node, with the operator's token.

The token stays on the node; it passes through this process's memory and is written nowhere.
"""

from __future__ import annotations

import json
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import httpx

from fleet import ssh
from fleet.errors import BrokerError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fleet.inventory import Inventory

DIALECTS = ("jobs", "tasks", "hub")
_CREDENTIAL = "/etc/openclaw/operator-token"
_LONGEST_WAIT = 25
_TIMEOUT = httpx.Timeout(10, read=_LONGEST_WAIT + 10)


class Broker:
    """Calls on one broker (broker_app/openapi.json): of the jobs dialect, and for submission of each."""

    def __init__(self, client: httpx.Client) -> None:
        self._client = client

    def agents(self) -> list[dict[str, Any]]:
        """Return every agent the broker knows: id, status, last_seen, runner_version, capabilities, running."""
        return list(self._call("GET", "/agents")["agents"])

    def last_job(self, agent: str) -> dict[str, Any] | None:
        """Return the newest job that was given to an agent, or None."""
        jobs = self._call("GET", "/jobs", params={"agent": agent, "limit": 1})["jobs"]
        return jobs[0] if jobs else None

    def submit(self, agent: str, command: str, payload: str, dialect: str = "jobs") -> str:
        """Queue a job for one agent and return its id. In tasks and hub the payload must be the text of an object."""
        if dialect == "tasks":
            task = {"type": command, "payload": {**json.loads(payload), "agent_hint": agent}}
            return str(self._call("POST", "/api/tasks", json=task)["task"]["id"])
        if dialect == "hub":
            task = {"type": command, **json.loads(payload)}
            return str(self._call("POST", f"/agents/{agent}/task", json=task)["taskId"])
        return str(self._call("POST", "/jobs", json={"command": command, "payload": payload, "agent": agent})["id"])

    def finished(self, job_id: str, timeout: float) -> dict[str, Any]:
        """Return a job when it has ended.

        Raises:
            BrokerError: it had not ended after `timeout` seconds.
        """
        deadline = time.monotonic() + timeout
        while (left := deadline - time.monotonic()) > 0:
            wait = min(_LONGEST_WAIT, max(1, int(left)))
            job: dict[str, Any] = self._call("GET", f"/jobs/{job_id}", params={"wait": wait})
            if job["status"] in {"done", "failed"}:
                return job
        raise BrokerError(f"job {job_id} has not ended after {timeout:g} s; it is still queued or running")

    def _call(self, method: str, path: str, **arguments: Any) -> dict[str, Any]:
        try:
            response = self._client.request(method, path, **arguments)
        except httpx.HTTPError as error:
            raise BrokerError(f"the broker does not answer: {error or type(error).__name__}") from error
        if response.is_error:
            raise BrokerError(f"{method} {path}: {response.status_code}: {_detail(response)}")
        body: dict[str, Any] = response.json()
        return body


@contextmanager
def connect(inventory: Inventory) -> Iterator[Broker]:
    """Reach the broker of a fleet while the context lasts."""
    with ssh.connect(inventory.broker()) as connection:
        sudo = "" if connection.user == "root" else "sudo -n "
        shown = connection.run(f"{sudo}cat {_CREDENTIAL}", hide=True, warn=True, in_stream=False)
        if shown.failed:
            raise BrokerError(f"{inventory.broker().name}: {_CREDENTIAL} cannot be read: {shown.stderr.strip()}")
        with (
            ssh.tunnel(connection, inventory.broker_port) as port,
            httpx.Client(
                base_url=f"http://127.0.0.1:{port}",
                headers={"Authorization": f"Bearer {shown.stdout.strip()}"},
                timeout=_TIMEOUT,
                trust_env=False,
            ) as client,
        ):
            yield Broker(client)


def _detail(response: httpx.Response) -> str:
    try:
        said = response.json()
        return str(said.get("detail") or said["error"])
    except (ValueError, KeyError, TypeError, AttributeError):
        return response.text[:200]
