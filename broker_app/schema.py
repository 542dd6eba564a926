"""The database file: its tables, and opening it."""

from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING

from broker_app.errors import DatabaseError

if TYPE_CHECKING:
    from pathlib import Path

APPLICATION_ID = 0x6F636C77  # "oclw"
VERSION = 2
_BUSY_SECONDS = 10.0

_AGENTS = """
CREATE TABLE agents (
    name TEXT PRIMARY KEY,
    last_seen REAL,
    runner_version TEXT,
    capabilities TEXT NOT NULL,
    type TEXT,
    metadata TEXT NOT NULL DEFAULT '{}',
    health TEXT,
    health_at REAL,
    cordoned INTEGER NOT NULL DEFAULT 0
) STRICT, WITHOUT ROWID;
"""
# A message that was received is remembered for a while, without its text, so that it is not taken again.
_MESSAGES = """
CREATE TABLE messages (
    n INTEGER PRIMARY KEY,
    sender TEXT NOT NULL,
    recipient TEXT NOT NULL,
    id TEXT NOT NULL,
    envelope TEXT NOT NULL,
    received INTEGER NOT NULL DEFAULT 0,
    created_at REAL NOT NULL,
    UNIQUE (recipient, sender, id)
) STRICT;
CREATE INDEX messages_waiting ON messages (recipient, n) WHERE received = 0;
CREATE INDEX messages_received ON messages (created_at) WHERE received = 1;
"""
# The partial indexes hold only what is queued, running or failed: claims, lease checks and rare listings
# cost the same whether ten jobs are finished or a million.
_TABLES = f"""
CREATE TABLE jobs (
    n INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    command TEXT NOT NULL,
    payload TEXT NOT NULL,
    requires TEXT,
    agent TEXT,
    needs TEXT NOT NULL,
    created_at REAL NOT NULL,
    lease_seconds INTEGER NOT NULL,
    max_deliveries INTEGER NOT NULL,
    status TEXT NOT NULL,
    outcome TEXT,
    started_at REAL,
    finished_at REAL,
    lease_until REAL,
    lease_epoch INTEGER NOT NULL,
    attempts INTEGER NOT NULL,
    worker TEXT,
    result TEXT,
    error TEXT
) STRICT;
CREATE INDEX jobs_queued ON jobs (agent, needs) WHERE status = 'queued';
CREATE INDEX jobs_running ON jobs (lease_until) WHERE status = 'running';
CREATE INDEX jobs_failed ON jobs (status) WHERE status = 'failed';
CREATE INDEX jobs_of_agent ON jobs (coalesce(worker, agent)) WHERE coalesce(worker, agent) IS NOT NULL;
CREATE TABLE tokens (
    n INTEGER PRIMARY KEY,
    name TEXT NOT NULL,
    role TEXT NOT NULL,
    digest BLOB NOT NULL UNIQUE,
    created_at REAL NOT NULL
) STRICT;
{_AGENTS}
{_MESSAGES}
"""
# What a file of each earlier version needs to become one of the next.
_UPGRADES = {
    1: f"""
ALTER TABLE agents RENAME TO agents_1;
{_AGENTS}
INSERT INTO agents (name, last_seen, runner_version, capabilities)
    SELECT name, last_seen, runner_version, capabilities FROM agents_1;
DROP TABLE agents_1;
{_MESSAGES}
""",
}


def connect(path: Path) -> sqlite3.Connection:
    """Open the database, created on first use.

    The connection may be used from any one thread at a time, and begins no transaction by itself.

    Raises:
        DatabaseError: The file cannot be opened, belongs to something else, or is of a newer version.
    """
    try:
        connection = sqlite3.connect(path, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False)
    except sqlite3.Error as error:
        raise DatabaseError(f"cannot open {path} ({error}): check BROKER_DB") from error
    try:
        _prepare(connection, path)
    except sqlite3.Error as error:
        connection.close()
        raise DatabaseError(f"cannot use {path} ({error}): check BROKER_DB") from error
    except DatabaseError:
        connection.close()
        raise
    return connection


def _prepare(connection: sqlite3.Connection, path: Path) -> None:
    if not _is_ours(connection, path):
        connection.execute("PRAGMA journal_mode=WAL")
        _create(connection, path)
    if _version(connection) < VERSION:
        _upgrade(connection)
    connection.row_factory = sqlite3.Row
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute("PRAGMA wal_autocheckpoint=8000")


def _create(connection: sqlite3.Connection, path: Path) -> None:
    connection.execute("BEGIN IMMEDIATE")
    if not _is_ours(connection, path):
        _execute(connection, _TABLES)
        connection.execute(f"PRAGMA application_id={APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version={VERSION}")
    connection.execute("COMMIT")


def _upgrade(connection: sqlite3.Connection) -> None:
    """All of the way or none of it; another process may have gone it meanwhile."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        for version in range(_version(connection), VERSION):
            _execute(connection, _UPGRADES[version])
        connection.execute(f"PRAGMA user_version={VERSION}")
    except BaseException:
        connection.execute("ROLLBACK")
        raise
    connection.execute("COMMIT")


def _execute(connection: sqlite3.Connection, statements: str) -> None:
    """Run statements within the open transaction, which `executescript` would commit."""
    for statement in statements.split(";\n"):
        connection.execute(statement)


def _version(connection: sqlite3.Connection) -> int:
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    return int(version)


def _is_ours(connection: sqlite3.Connection, path: Path) -> bool:
    """Whether the file holds our schema; false when it is empty."""
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    version = _version(connection)
    (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    if (application, version, tables) == (0, 0, 0):
        return False
    if application != APPLICATION_ID:
        raise DatabaseError(f"{path} is not a database of this broker; set BROKER_DB to another file")
    if version > VERSION:
        raise DatabaseError(
            f"{path} has schema version {version}, this broker knows up to {VERSION}; install the newer broker"
        )
    return True
