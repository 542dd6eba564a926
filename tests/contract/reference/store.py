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
)
# Of each agent's key, whose it is.
_KEYS = {
    key: name
    for name, _, key in (pair.partition("=") for pair in os.environ.get("AGENT_API_KEYS", "").split(","))
    if key
}


class Store:
    """What there is. `jobs` is in the order of submission, and so is the queue."""

    def __init__(self) -> None:
        self._db = sqlite3.connect(os.environ["BROKER_DB"], isolation_level=None, timeout=10)
        for statement in _SCHEMA:
            self._db.execute(statement)
        self.jobs: dict[str, Any] = self._read("SELECT id, job FROM jobs ORDER BY n")
        self.agents: dict[str, Any] = self._read("SELECT id, agent FROM agents")
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

    def wake(self) -> None:
        """Have everybody who waits look again."""
        self.changed.set()
        self.changed = asyncio.Event()

    def saw(self, name: str, version: str | None, caps: list[str] | None) -> None:
        """Note the call of a worker."""
        agent = self.agents.get(name, {"runner_version": None, "capabilities": []})
        agent = agent | {"last_seen": int(time.time())} | ({"runner_version": version} if version else {})
        agent = agent | ({} if caps is None else {"capabilities": sorted(caps)})
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

    def owner(self, role: str, token: str) -> str | None:
        """Whose token it is."""
        query = "SELECT name FROM tokens WHERE role = ? AND digest = ?"
        row = self._db.execute(query, (role, _digest(token))).fetchone()
        return str(row[0]) if row else _KEYS.get(token) if role == "worker" else None

    def known(self, name: str) -> bool:
        """Whether there is an agent of that name."""
        return name in self.minted() or name in _KEYS.values()

    def minted(self) -> list[str]:
        """The names of workers that have a token."""
        return [row[0] for row in self._db.execute("SELECT DISTINCT name FROM tokens WHERE role = 'worker'")]


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode("utf-8", "replace")).hexdigest()
