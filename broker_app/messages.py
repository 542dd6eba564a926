"""Messages from one agent to another: kept until the other has them, and no jobs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from broker_app.errors import MailboxFullError

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable

    from broker_app.database import Database

MAX_WAITING = 1000
# Of those that were received, so that their senders may send them again in vain: how many of each agent, and how long.
MAX_REMEMBERED = 1000
_REMEMBERED_SECONDS = 86400.0
_WAITING_SECONDS = 7 * 86400.0
_WAITING = "SELECT n, envelope FROM messages WHERE recipient = ? AND received = 0 ORDER BY n LIMIT ?"
_FORGET_OLDEST = """
DELETE FROM messages WHERE n IN (
    SELECT n FROM messages WHERE recipient = ? AND received = 1 ORDER BY n DESC LIMIT -1 OFFSET ?)
"""


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
        """Keep a message, durably; false when it is kept already, or is remembered as received.

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

    async def received(self, recipient: str, messages: list[Message]) -> None:
        """Note, durably, that an agent has its messages; of what it had before, remember so many."""
        places = [(message.n,) for message in messages]

        def receive(connection: sqlite3.Connection) -> None:
            connection.executemany("UPDATE messages SET received = 1, envelope = '' WHERE n = ?", places)
            connection.execute(_FORGET_OLDEST, (recipient, MAX_REMEMBERED))

        await self._database.write(receive)

    async def forget(self) -> None:
        """Forget which messages were received more than a day ago, and those that waited for a week."""
        now = self._clock()
        ages = [(0, now - _WAITING_SECONDS), (1, now - _REMEMBERED_SECONDS)]

        def forget(connection: sqlite3.Connection) -> None:
            connection.executemany("DELETE FROM messages WHERE received = ? AND created_at < ?", ages)

        await self._database.write(forget, durable=False)
