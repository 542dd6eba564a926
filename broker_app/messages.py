"""Messages from one agent to another: kept until the other has them, and no jobs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from broker_app.errors import MailboxFullError

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Sequence

    from broker_app.database import Database

MAX_WAITING = 1000
# How long a message that was received is remembered, so that its sender may send it again in vain.
_REMEMBERED_SECONDS = 86400.0
_WAITING = "SELECT n, envelope FROM messages WHERE recipient = ? AND received = 0 ORDER BY n LIMIT ?"


@dataclass(frozen=True, slots=True)
class Message:
    """A message that waits; `n` is its place in the queue."""

    n: int
    envelope: str


class Messages:
    """Every agent's messages.

    Args:
        database: Where they are kept.
        clock: Seconds since the epoch.
    """

    def __init__(self, database: Database, clock: Callable[[], float]) -> None:
        self._database = database
        self._clock = clock

    async def post(self, sender: str, recipient: str, message_id: str, envelope: str) -> bool:
        """Keep a message, durably; false when it is kept already, or was received within a day.

        Raises:
            MailboxFullError: As many wait for the recipient as may.
        """
        now = self._clock()

        def post(connection: sqlite3.Connection) -> bool:
            query = "SELECT 1 FROM messages WHERE recipient = ? AND sender = ? AND id = ?"
            if connection.execute(query, (recipient, sender, message_id)).fetchone():
                return False
            query = "SELECT count(*) FROM messages WHERE recipient = ? AND received = 0"
            if connection.execute(query, (recipient,)).fetchone()[0] >= MAX_WAITING:
                raise MailboxFullError
            insert = "INSERT INTO messages (sender, recipient, id, envelope, created_at) VALUES (?, ?, ?, ?, ?)"
            connection.execute(insert, (sender, recipient, message_id, envelope, now))
            return True

        return await self._database.write(post)

    async def waiting(self, recipient: str, most: int) -> list[Message]:
        """The first messages that an agent has not received."""
        rows = await self._database.read(lambda db: db.execute(_WAITING, (recipient, most)).fetchall())
        return [Message(row["n"], row["envelope"]) for row in rows]

    async def received(self, messages: list[Message]) -> None:
        """Note, durably, that an agent has its messages."""
        places = [(message.n,) for message in messages]
        update = "UPDATE messages SET received = 1, envelope = '' WHERE n = ?"
        await self._database.write(lambda connection: _run(connection, update, places))

    async def forget(self) -> None:
        """Forget which messages were received more than a day ago."""
        before = [(self._clock() - _REMEMBERED_SECONDS,)]
        delete = "DELETE FROM messages WHERE received = 1 AND created_at < ?"
        await self._database.write(lambda connection: _run(connection, delete, before), durable=False)


def _run(connection: sqlite3.Connection, statement: str, rows: Sequence[tuple[float]]) -> None:
    connection.executemany(statement, rows)
