"""Jobs, agents and tokens: in memory, and each change of them first in SQLite."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import secrets
import sqlite3
import time
from contextlib import suppress
from typing import Any

from tests.contract.reference.http import RefusedError

_SCHEMA = (
    "PRAGMA journal_mode=WAL",
    "PRAGMA synchronous=OFF",
    "CREATE TABLE IF NOT EXISTS jobs (n INTEGER PRIMARY KEY, id TEXT UNIQUE, job TEXT)",
    "CREATE TABLE IF NOT EXISTS agents (id TEXT UNIQUE, agent TEXT)",
    "CREATE TABLE IF NOT EXISTS tokens (name TEXT, role TEXT, digest TEXT)",
    "CREATE TABLE IF NOT EXISTS pauses (pause TEXT)",
    "CREATE TABLE IF NOT EXISTS messages (n INTEGER PRIMARY KEY, recipient TEXT, sender TEXT, id TEXT, envelope TEXT)",
)
# Of each agent's key, whose it is.
_KEYS = {
    key: name
    for name, _, key in (pair.partition("=") for pair in os.environ.get("AGENT_API_KEYS", "").split(","))
    if key
}


SILENT: dict[str, Any] = {
    "last_seen": None, "runner_version": None, "capabilities": [],
    "type": None, "metadata": {}, "health": None, "cordoned": False,
}  # fmt: skip


class Store:
    """What there is. `jobs` is in the order of submission, and so is the queue."""

    def __init__(self) -> None:
        self._db = sqlite3.connect(os.environ["BROKER_DB"], isolation_level=None, timeout=10)
        for statement in _SCHEMA:
            self._db.execute(statement)
        self.jobs: dict[str, Any] = self._read("SELECT id, job FROM jobs ORDER BY n")
        self.agents: dict[str, Any] = self._read("SELECT id, agent FROM agents")
        self.paused: Any = next((json.loads(row[0]) for row in self._db.execute("SELECT pause FROM pauses")), None)
        self.changed = asyncio.Event()

    def _read(self, query: str) -> dict[str, Any]:
        return {key: json.loads(value) for key, value in self._db.execute(query)}

    def write(self, job: dict[str, Any], **changes: Any) -> Any:
        """Keep a changed job, and have everybody who waits look again."""
        job = job | changes
        statement = "INSERT INTO jobs (id, job) VALUES (?1, ?2) ON CONFLICT DO UPDATE SET job = ?2"
        try:
            self._db.execute(statement, (job["id"], json.dumps(job)))
        except sqlite3.Error as error:
            raise RefusedError(503, f"the database failed: {error}", {"retry-after": "2"}) from error
        self.jobs[job["id"]] = job
        self.wake()
        return job

    def drop(self, job_id: str) -> None:
        """Keep a job no longer."""
        self._db.execute("DELETE FROM jobs WHERE id = ?", (job_id,))
        del self.jobs[job_id]

    def pause(self, pause: dict[str, Any] | None) -> None:
        """Keep a pause, or none."""
        self._db.execute("DELETE FROM pauses")
        if pause:
            self._db.execute("INSERT INTO pauses VALUES (?)", (json.dumps(pause),))
        self.paused = pause
        self.wake()

    def wake(self) -> None:
        """Have everybody who waits look again."""
        self.changed.set()
        self.changed = asyncio.Event()

    def saw(self, name: str, version: str | None, caps: list[str] | None) -> None:
        """Note the call of a worker."""
        agent = {"last_seen": int(time.time())} | ({"runner_version": version} if version else {})
        self.know(name, **agent | ({} if caps is None else {"capabilities": sorted(caps)}))

    def know(self, name: str, **facts: Any) -> None:
        """Know something of an agent."""
        agent = self.agents.get(name, SILENT) | facts
        self.agents[name] = agent
        with suppress(sqlite3.Error):
            self._db.execute("INSERT OR REPLACE INTO agents VALUES (?, ?)", (name, json.dumps(agent)))

    def mint(self, name: str, role: str) -> str:
        """A new token."""
        token = secrets.token_hex(32)
        self._db.execute("INSERT INTO tokens VALUES (?, ?, ?)", (name, role, _digest(token)))
        return token

    def revoke(self, name: str) -> None:
        """End the tokens of a name."""
        self._db.execute("DELETE FROM tokens WHERE name = ?", (name,))

    def forget(self, name: str) -> None:
        """Forget an agent."""
        self.agents.pop(name, None)
        for statement in ("DELETE FROM tokens WHERE name = ? AND role = 'worker'", "DELETE FROM agents WHERE id = ?"):
            self._db.execute(statement, (name,))

    def count(self, name: str) -> int:
        """How many tokens a worker has."""
        query = "SELECT count(*) FROM tokens WHERE role = 'worker' AND name = ?"
        return int(self._db.execute(query, (name,)).fetchone()[0])

    def post(self, recipient: str, sender: str, message_id: str, envelope: str) -> None:
        """Keep a message, once."""
        known = (recipient, sender, message_id)
        if not self._db.execute("SELECT 1 FROM messages WHERE (recipient, sender, id) = (?, ?, ?)", known).fetchone():
            insert = "INSERT INTO messages (recipient, sender, id, envelope) VALUES (?, ?, ?, ?)"
            self._db.execute(insert, (*known, envelope))
        self.wake()

    def waiting(self, recipient: str) -> list[tuple[int, str]]:
        """The messages that an agent has not read."""
        query = "SELECT n, envelope FROM messages WHERE recipient = ? AND envelope != '' ORDER BY n"
        return self._db.execute(query, (recipient,)).fetchall()

    def received(self, places: list[int]) -> None:
        """Note that messages were read."""
        self._db.executemany("UPDATE messages SET envelope = '' WHERE n = ?", [(n,) for n in places])

    def owner(self, role: str, token: str) -> str | None:
        """Whose token it is."""
        query = "SELECT name FROM tokens WHERE role = ? AND digest = ?"
        row = self._db.execute(query, (role, _digest(token))).fetchone()
        return str(row[0]) if row else _KEYS.get(token) if role == "worker" else None

    def known(self, name: str) -> bool:
        """Whether there is an agent of that name."""
        return name in self.minted() or self.configured(name)

    def configured(self, name: str) -> bool:
        """Whether an agent's key is in the environment."""
        return name in _KEYS.values()

    def minted(self) -> list[str]:
        """The names of workers that have a token."""
        return [row[0] for row in self._db.execute("SELECT DISTINCT name FROM tokens WHERE role = 'worker'")]


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode("utf-8", "replace")).hexdigest()
