"""The registry of agents: their tokens, and what is known of each from its calls.

Only a token's SHA-256 is kept: tokens are 256 random bits, so a fast hash cannot be searched.
"""

from __future__ import annotations

import hashlib
import json
import re
import secrets
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TYPE_CHECKING

from broker_app.errors import DatabaseError, TokenError

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable

    from broker_app.database import Database

NAME_PATTERN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:@-]{0,127}")
_TOKENS_PER_NAME = 2
_MAX_AGENTS = 10_000
_ONLINE_SECONDS = 50.0


class Role(StrEnum):
    """What a token is for. An admin's is good for whatever a bot's is."""

    WORKER = "worker"
    BOT = "bot"
    ADMIN = "admin"


@dataclass(frozen=True, slots=True)
class Token:
    """A minted token, without its text. `created_at` is seconds since the epoch."""

    name: str
    role: Role
    created_at: float


@dataclass(frozen=True, slots=True)
class Agent:
    """What is known of one agent. `last_seen` is seconds since the epoch, None when it never called."""

    name: str
    last_seen: float | None = None
    runner_version: str | None = None
    capabilities: tuple[str, ...] = ()

    def online(self, now: float) -> bool:
        """Whether it called within two long polls."""
        return self.last_seen is not None and now - self.last_seen <= _ONLINE_SECONDS


def digest(token: str) -> bytes:
    """What is kept of a token."""
    return hashlib.sha256(token.encode("latin-1", "replace")).digest()


def mint(connection: sqlite3.Connection, name: str, role: Role, now: float, *, alone: bool = False) -> str:
    """Make a token and return its text, which is kept nowhere.

    Args:
        connection: To the broker's database.
        name: Whose token it is.
        role: What it may be used for.
        now: Seconds since the epoch.
        alone: Whether the name's other tokens of the role end as this one begins.

    Raises:
        TokenError: The name has two tokens of that role already.
    """
    token = secrets.token_hex(32)
    connection.execute("BEGIN IMMEDIATE")
    try:
        if alone:
            connection.execute("DELETE FROM tokens WHERE name = ? AND role = ?", (name, role))
        query = "SELECT count(*) FROM tokens WHERE name = ? AND role = ?"
        (count,) = connection.execute(query, (name, role)).fetchone()
        if count >= _TOKENS_PER_NAME:
            raise TokenError(f"{name} has {count} {role} tokens already; `token revoke {name} --role {role}` first")
        insert = "INSERT INTO tokens (name, role, digest, created_at) VALUES (?, ?, ?, ?)"
        connection.execute(insert, (name, role, digest(token), now))
    except BaseException:
        connection.execute("ROLLBACK")
        raise
    connection.execute("COMMIT")
    return token


def revoke(connection: sqlite3.Connection, name: str, role: Role | None) -> int:
    """Remove the tokens of a name, of one role or of all; returns how many.

    Raises:
        TokenError: There is none.
    """
    delete = "DELETE FROM tokens WHERE name = ? AND (? IS NULL OR role = ?)"
    removed = connection.execute(delete, (name, role, role)).rowcount
    if removed == 0:
        raise TokenError(f"{name} has no {f'{role} ' if role else ''}token; `token list` shows what there is")
    return removed


def tokens(connection: sqlite3.Connection) -> list[Token]:
    """Every minted token, by name."""
    rows = connection.execute("SELECT name, role, created_at FROM tokens ORDER BY name, role, n").fetchall()
    return [Token(row["name"], Role(row["role"]), row["created_at"]) for row in rows]


class Agents:
    """Who called, when, and as what. Kept in memory, and written by `save` now and then.

    Args:
        database: Where it is kept.
        clock: Seconds since the epoch.
    """

    def __init__(self, database: Database, clock: Callable[[], float]) -> None:
        self._database = database
        self._clock = clock
        self._agents: dict[str, Agent] = {}
        self._unsaved: set[str] = set()

    async def load(self) -> None:
        """Read what was saved."""
        rows = await self._database.read(lambda db: db.execute("SELECT * FROM agents").fetchall())
        for row in rows:
            agent = Agent(row["name"], row["last_seen"], row["runner_version"], tuple(json.loads(row["capabilities"])))
            self._agents[agent.name] = agent

    def saw(self, name: str, *, runner_version: str | None, capabilities: tuple[str, ...] | None) -> None:
        """Note a call of an agent; what the call did not say stays as it was."""
        known = self._agents.get(name)
        if known is None:
            if len(self._agents) >= _MAX_AGENTS:
                return
            known = Agent(name)
        self._agents[name] = replace(
            known,
            last_seen=self._clock(),
            runner_version=runner_version or known.runner_version,
            capabilities=known.capabilities if capabilities is None else capabilities,
        )
        self._unsaved.add(name)

    async def save(self) -> None:
        """Write what changed since the last time.

        Raises:
            DatabaseError: It cannot; the next time writes it.
        """
        names, self._unsaved = self._unsaved, set()
        agents = [self._agents[name] for name in names]
        if not agents:
            return
        try:
            await self._database.write(lambda connection: _upsert(connection, agents), durable=False)
        except DatabaseError:
            self._unsaved |= names
            raise

    async def known(self) -> list[Agent]:
        """Every agent that ever called or has a worker token, by name."""
        query = "SELECT DISTINCT name FROM tokens WHERE role = 'worker'"
        rows = await self._database.read(lambda db: db.execute(query).fetchall())
        silent = {name: Agent(name) for (name,) in rows}
        return sorted((silent | self._agents).values(), key=lambda agent: agent.name)


def _upsert(connection: sqlite3.Connection, agents: list[Agent]) -> None:
    connection.executemany(
        "INSERT OR REPLACE INTO agents (name, last_seen, runner_version, capabilities) VALUES (?, ?, ?, ?)",
        [(agent.name, agent.last_seen, agent.runner_version, json.dumps(agent.capabilities)) for agent in agents],
    )
