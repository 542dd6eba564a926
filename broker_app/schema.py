"""The database file: its tables, opening it, bringing an older one to them, and seeing whether it is whole."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING

from broker_app.errors import DamagedError, DatabaseError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

APPLICATION_ID = 0x6F636C77  # "oclw"
_BUSY_SECONDS = 10.0

# The partial indexes hold only what is queued, put off, running or failed: claims and lease checks cost the same
# whether ten jobs are finished or a million. Those of an agent, a state and a command hold every job, for listings.
# Each step leads from one version to the next; a new file takes them all, so there is one way to a schema. One that
# was released is never changed: files that took it would differ from then on.
_VERSION_1 = """
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
CREATE TABLE agents (
    name TEXT PRIMARY KEY,
    last_seen REAL NOT NULL,
    runner_version TEXT,
    capabilities TEXT NOT NULL
) STRICT, WITHOUT ROWID;
"""
# Agents that never called; and messages: one that was received is remembered, without its text, for a while.
_VERSION_2 = """
ALTER TABLE jobs ADD COLUMN dialect TEXT NOT NULL DEFAULT 'jobs';
ALTER TABLE jobs ADD COLUMN retry_seconds INTEGER NOT NULL DEFAULT 0;
ALTER TABLE jobs ADD COLUMN not_before REAL;
ALTER TABLE jobs ADD COLUMN heartbeat_at REAL;
DROP INDEX jobs_queued;
CREATE INDEX jobs_queued ON jobs (agent, needs, not_before) WHERE status = 'queued';
CREATE INDEX jobs_put_off ON jobs (not_before) WHERE not_before IS NOT NULL;
CREATE INDEX jobs_of_state ON jobs (coalesce(outcome, status));
CREATE INDEX jobs_of_command ON jobs (command);
ALTER TABLE agents RENAME TO agents_1;
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
INSERT INTO agents (name, last_seen, runner_version, capabilities)
    SELECT name, last_seen, runner_version, capabilities FROM agents_1;
DROP TABLE agents_1;
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
CREATE INDEX messages_of_recipient ON messages (recipient, received, n);
CREATE INDEX messages_by_age ON messages (received, created_at);
"""
# Priorities, idempotency keys, what jobs report, an end to finished jobs, a pause.
_VERSION_3 = """
ALTER TABLE jobs ADD COLUMN priority INTEGER NOT NULL DEFAULT 0;
ALTER TABLE jobs ADD COLUMN submitter TEXT;
ALTER TABLE jobs ADD COLUMN idempotency_key TEXT;
ALTER TABLE jobs ADD COLUMN fingerprint TEXT;
ALTER TABLE jobs ADD COLUMN progress INTEGER;
ALTER TABLE jobs ADD COLUMN progress_note TEXT;
ALTER TABLE jobs ADD COLUMN reported INTEGER NOT NULL DEFAULT 0;
DROP INDEX jobs_queued;
CREATE INDEX jobs_queued ON jobs (agent, needs, not_before, priority DESC) WHERE status = 'queued';
CREATE UNIQUE INDEX jobs_of_key ON jobs (coalesce(submitter, ''), idempotency_key) WHERE idempotency_key IS NOT NULL;
CREATE INDEX jobs_by_end ON jobs (finished_at) WHERE finished_at IS NOT NULL;
CREATE TABLE events (
    n INTEGER PRIMARY KEY AUTOINCREMENT,
    job INTEGER NOT NULL,
    at REAL NOT NULL,
    epoch INTEGER NOT NULL,
    start INTEGER,
    text TEXT,
    percent INTEGER,
    note TEXT
) STRICT;
CREATE INDEX events_of_job ON events (job, n);
CREATE UNIQUE INDEX events_once ON events (job, epoch, start) WHERE start IS NOT NULL;
CREATE TABLE pause (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    since REAL NOT NULL,
    reason TEXT NOT NULL
) STRICT;
"""
_STEPS = (_VERSION_1, _VERSION_2, _VERSION_3)
VERSION = len(_STEPS)


def connect(path: Path) -> sqlite3.Connection:
    """Open the database, created on first use. One of an older version is copied, then brought to ours.

    The connection may be used from any one thread at a time, and begins no transaction by itself.

    Raises:
        DatabaseError: The file cannot be opened, belongs to something else, is damaged, or is of a newer version.
    """
    return _open(path, str(path), _prepare)


def verify(path: Path) -> None:
    """Read the whole database and change nothing; a broker may serve it meanwhile.

    Raises:
        DatabaseError: As `connect`; also where only a part that is not in use is damaged.
    """
    _open(path, f"{path.absolute().as_uri()}?mode=ro", _examine).close()


def is_damage(error: Exception) -> bool:
    """Whether an error is SQLite's for a file that is not as it left it, or ours for a row that makes no sense."""
    # The module's bare class is for SQLITE_CORRUPT and SQLITE_NOTADB; text that is none has no code of its own and, in
    # SQLite's own message, not even a class.
    if isinstance(error, UnicodeDecodeError) or type(error) is sqlite3.DatabaseError:
        return True
    return isinstance(error, sqlite3.Error) and "decode to UTF-8" in str(error)


def _open(path: Path, name: str, begin: Callable[[sqlite3.Connection, Path], None]) -> sqlite3.Connection:
    try:
        connection = sqlite3.connect(
            name, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False, uri=name.startswith("file:")
        )
    except sqlite3.Error as error:
        raise DatabaseError(f"cannot open {path} ({error}): check BROKER_DB") from error
    try:
        begin(connection, path)
    except (sqlite3.Error, UnicodeDecodeError) as error:
        connection.close()
        if is_damage(error):
            raise DamagedError(path, error) from error
        raise DatabaseError(f"cannot use {path} ({error}): check BROKER_DB") from error
    except DatabaseError:
        connection.close()
        raise
    return connection


def _prepare(connection: sqlite3.Connection, path: Path) -> None:
    version = _version(connection, path)
    # Also of an older file: a copy that was put back may have lost it.
    connection.execute("PRAGMA journal_mode=WAL")
    if version < VERSION:
        _advance(connection, path)
    connection.row_factory = sqlite3.Row
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute("PRAGMA wal_autocheckpoint=8000")


def _examine(connection: sqlite3.Connection, path: Path) -> None:
    _version(connection, path)
    found = [problem for (problem,) in connection.execute("PRAGMA integrity_check(5)")]
    if found != ["ok"]:
        raise DamagedError(path, "; ".join(found))


def _advance(connection: sqlite3.Connection, path: Path) -> None:
    """Bring the file to our version, whole or not at all."""
    connection.execute("BEGIN IMMEDIATE")
    # Read anew: another process may have been first.
    version = _version(connection, path)
    if 0 < version < VERSION:
        _keep_copy(path, version)
    for step in _STEPS[version:]:
        for statement in step.split(";\n"):
            connection.execute(statement)
    connection.execute(f"PRAGMA application_id={APPLICATION_ID}")
    connection.execute(f"PRAGMA user_version={VERSION}")
    connection.execute("COMMIT")


def _keep_copy(path: Path, version: int) -> None:
    """Copy the file as it is, for the way back. Nobody writes to it meanwhile: our caller holds its lock."""
    copy, part = copy_of(path, version), path.with_name(f"{path.name}.part")
    try:
        part.unlink(missing_ok=True)
        # Made by us and not by SQLite, so that nobody else can read it at any time.
        os.close(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
        with closing(sqlite3.connect(path)) as source, closing(sqlite3.connect(part)) as target:
            source.backup(target)
        _synchronise(part)
        part.replace(copy)
        _synchronise(path.parent)
    except (OSError, sqlite3.Error) as error:
        part.unlink(missing_ok=True)
        raise DatabaseError(
            f"cannot copy {path} to {copy} before its schema changes ({error}): make room there for as much again"
        ) from error


def copy_of(path: Path, version: int) -> Path:
    """Where a file of an older version is kept as it was."""
    return path.with_name(f"{path.name}.schema-{version}.bak")


def _synchronise(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _version(connection: sqlite3.Connection, path: Path) -> int:
    """The version of our schema that the file holds; 0 when it is empty."""
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    if (application, version, tables) == (0, 0, 0):
        return 0
    if application != APPLICATION_ID:
        raise DatabaseError(f"{path} is not a database of this broker; set BROKER_DB to another file")
    if version > VERSION:
        copy = copy_of(path, VERSION)
        way_back = f", or put back {copy}, which lacks what came later" if copy.exists() else ""
        raise DatabaseError(
            f"{path} has schema version {version}, this broker knows up to {VERSION};"
            f" install the newer broker{way_back}"
        )
    return int(version)
