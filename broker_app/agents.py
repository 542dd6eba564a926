"""The registry of agents: their tokens, and what is known of each from its registration and its calls.

Only a token's SHA-256 is kept: tokens are 256 random bits, so a fast hash cannot be searched.
"""

from __future__ import annotations

import hashlib
import json
import re
import secrets
import sqlite3
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from broker_app.errors import AgentNotFoundError, DatabaseError, RegistryFullError, TokenError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

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


@dataclass(frozen=True, slots=True, kw_only=True)
class Agent:
    """What is known of one agent. Times are seconds since the epoch, None for never.

    Attributes:
        type: What kind of agent it is, in its registrar's word.
        metadata: Whatever else was said at its registration.
        health: What it said last of its machine, and when.
        cordoned: Whether it gets no new work.
    """

    name: str
    last_seen: float | None = None
    runner_version: str | None = None
    capabilities: tuple[str, ...] = ()
    type: str | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)
    health: Mapping[str, Any] | None = None
    health_at: float | None = None
    cordoned: bool = False

    def online(self, now: float) -> bool:
        """Whether it called within two long polls, also by a clock that was set back since."""
        return self.last_seen is not None and abs(now - self.last_seen) <= _ONLINE_SECONDS


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
    connection.execute("BEGIN IMMEDIATE")
    try:
        if alone:
            connection.execute("DELETE FROM tokens WHERE name = ? AND role = ?", (name, role))
        token = _add_token(connection, name, role, now)
    except BaseException:
        connection.execute("ROLLBACK")
        raise
    connection.execute("COMMIT")
    return token


def _add_token(connection: sqlite3.Connection, name: str, role: Role, now: float) -> str:
    query = "SELECT count(*) FROM tokens WHERE name = ? AND role = ?"
    (count,) = connection.execute(query, (name, role)).fetchone()
    if count >= _TOKENS_PER_NAME:
        raise TokenError(f"{name} has {count} {role} tokens already; `token revoke {name} --role {role}` first")
    token = secrets.token_hex(32)
    insert = "INSERT INTO tokens (name, role, digest, created_at) VALUES (?, ?, ?, ?)"
    connection.execute(insert, (name, role, digest(token), now))
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
    """Who there is, and what of it is known. Kept in memory.

    What an operator says is on disk when the method returns; what agents say of themselves is written by `save`
    now and then.

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
        agents = await self._database.read(lambda db: list(map(_agent, db.execute("SELECT * FROM agents"))))
        self._agents = {agent.name: agent for agent in agents}

    def saw(self, name: str, *, runner_version: str | None = None, capabilities: tuple[str, ...] | None = None) -> None:
        """Note a call of an agent; what the call did not say stays as it was."""
        known = self._agents.get(name)
        if known is None:
            if len(self._agents) >= _MAX_AGENTS:
                return
            known = Agent(name=name)
        self._agents[name] = replace(
            known,
            last_seen=self._clock(),
            runner_version=runner_version or known.runner_version,
            capabilities=known.capabilities if capabilities is None else capabilities,
        )
        self._unsaved.add(name)

    def report(self, name: str, health: Mapping[str, Any]) -> None:
        """Note what an agent that was seen says of its machine."""
        if known := self._agents.get(name):
            self._agents[name] = replace(known, health=health, health_at=self._clock())
            self._unsaved.add(name)

    async def register(
        self, name: str, *, kind: str | None, capabilities: tuple[str, ...], metadata: Mapping[str, Any]
    ) -> tuple[Agent, str]:
        """Know an agent before it calls, or know other things of it; returns it and a new worker token.

        Raises:
            TokenError: It has two tokens already.
            RegistryFullError: There are as many agents as there may be.
        """
        if name not in self._agents and len(self._agents) >= _MAX_AGENTS:
            raise RegistryFullError
        now = self._clock()

        def change(known: Agent) -> Agent:
            return replace(known, type=kind, capabilities=capabilities, metadata=metadata)

        def register(connection: sqlite3.Connection) -> str:
            token = _add_token(connection, name, Role.WORKER, now)
            _upsert(connection, [change(self._agents.get(name) or Agent(name=name))])
            return token

        token = await self._database.write(register)
        self._agents[name] = change(self._agents.get(name) or Agent(name=name))
        return self._agents[name], token

    async def cordon(self, name: str, cordoned: bool) -> Agent:
        """Let an agent have no new work, or have it again.

        Raises:
            AgentNotFoundError: There is no such agent.
        """
        known = await self.find(name)
        await self._database.write(lambda connection: _upsert(connection, [replace(known, cordoned=cordoned)]))
        # It may have called meanwhile.
        self._agents[name] = replace(self._agents.get(name, known), cordoned=cordoned)
        return self._agents[name]

    async def remove(self, name: str) -> None:
        """Forget an agent, its tokens, and the messages for it."""
        # Here first: whatever is saved from now on is without it.
        known = self._agents.pop(name, None)
        self._unsaved.discard(name)
        try:
            await self._database.write(lambda connection: _delete(connection, name))
        except DatabaseError:
            if known is not None:
                self._agents.setdefault(name, known)
            raise

    def capabilities(self, name: str) -> tuple[str, ...]:
        """What an agent said last that it can do, or was registered with."""
        agent = self._agents.get(name)
        return agent.capabilities if agent else ()

    def cordoned(self, name: str | None) -> bool:
        """Whether it gets no new work."""
        agent = self._agents.get(name) if name else None
        return agent is not None and agent.cordoned

    async def find(self, name: str) -> Agent:
        """The agent.

        Raises:
            AgentNotFoundError: It never called and has no worker token.
        """
        if known := self._agents.get(name):
            return known
        query = "SELECT 1 FROM tokens WHERE role = 'worker' AND name = ?"
        if await self._database.read(lambda db: db.execute(query, (name,)).fetchone()):
            return Agent(name=name)
        raise AgentNotFoundError

    async def known(self) -> list[Agent]:
        """Every agent that ever called, was registered, or has a worker token, by name."""
        query = "SELECT DISTINCT name FROM tokens WHERE role = 'worker'"
        rows = await self._database.read(lambda db: db.execute(query).fetchall())
        silent = {name: Agent(name=name) for (name,) in rows}
        return sorted((silent | self._agents).values(), key=lambda agent: agent.name)

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
            self._unsaved |= names & self._agents.keys()
            raise


def _agent(row: sqlite3.Row) -> Agent:
    try:
        return Agent(
            name=row["name"],
            last_seen=row["last_seen"],
            runner_version=row["runner_version"],
            capabilities=tuple(json.loads(row["capabilities"])),
            type=row["type"],
            metadata=json.loads(row["metadata"]),
            health=row["health"] and json.loads(row["health"]),
            health_at=row["health_at"],
            cordoned=bool(row["cordoned"]),
        )
    except (TypeError, ValueError) as error:
        raise sqlite3.DatabaseError(f"a row of agents makes no sense: {error}") from error


def _upsert(connection: sqlite3.Connection, agents: list[Agent]) -> None:
    connection.executemany(
        """
        INSERT OR REPLACE INTO agents (name, last_seen, runner_version, capabilities, type, metadata, health, health_at,
            cordoned)
        VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)
        """,
        [
            (
                agent.name,
                agent.last_seen,
                agent.runner_version,
                json.dumps(agent.capabilities),
                agent.type,
                json.dumps(agent.metadata),
                None if agent.health is None else json.dumps(agent.health),
                agent.health_at,
                agent.cordoned,
            )
            for agent in agents
        ],
    )


def _delete(connection: sqlite3.Connection, name: str) -> None:
    connection.execute("DELETE FROM tokens WHERE name = ? AND role = 'worker'", (name,))
    connection.execute("DELETE FROM agents WHERE name = ?", (name,))
    connection.execute("DELETE FROM messages WHERE recipient = ?", (name,))
