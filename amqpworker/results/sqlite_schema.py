"""
The schema of a SQLite file of results, and its upgrades.

Decides what a program of an earlier version can still do that has the file open during the upgrade: it stores and reads as before.
"""

from __future__ import annotations

import sqlite3
from pathlib import Path

from amqpworker.errors import ConfigError

APPLICATION_ID = 0x61775273
"""Marks a file as ours (`file` shows it): "awRs"."""

SCHEMA_VERSION = 4
_MARK_VERSION = f"PRAGMA user_version = {SCHEMA_VERSION}"
# A replaced row gets a new `seq`, which is never used again (https://www.sqlite.org/autoinc.html): a reader that knows the highest
# one finds what has changed since.
_TABLE = (
    (
        "CREATE TABLE result_rows (seq INTEGER PRIMARY KEY AUTOINCREMENT, namespace TEXT NOT NULL, id TEXT NOT NULL,"
        " state TEXT NOT NULL, task TEXT NOT NULL, reply BLOB NOT NULL, first_sent TEXT NOT NULL, stored_at REAL NOT NULL,"
        " expires_at REAL NOT NULL, attempt INTEGER NOT NULL DEFAULT 0, worker TEXT NOT NULL DEFAULT '',"
        " started_at REAL NOT NULL DEFAULT 0, progress BLOB NOT NULL DEFAULT x'', rank INTEGER NOT NULL DEFAULT 2,"
        " UNIQUE (namespace, id))"
    ),
    "CREATE INDEX result_rows_by_expiry ON result_rows (expires_at)",
)
_NEW_FILE = (*_TABLE, f"PRAGMA application_id = {APPLICATION_ID}", _MARK_VERSION)
_FROM_VERSION_2 = (
    "ALTER TABLE results ADD COLUMN state TEXT NOT NULL DEFAULT 'done'",
    "ALTER TABLE results ADD COLUMN task TEXT NOT NULL DEFAULT ''",
    "ALTER TABLE results ADD COLUMN stored_at REAL NOT NULL DEFAULT 0",
    """UPDATE results SET state = 'failed' WHERE substr(result, 1, 18) = CAST('{"status":"failed"' AS BLOB)""",
    "PRAGMA user_version = 3",
)
_COPIED = "namespace, id, state, task, reply, first_sent, stored_at, expires_at"
# Rows of an earlier version have the namespace '': they belong to each app that uses the file.
_FROM_VERSION_3 = (
    *_TABLE,
    (
        f"INSERT OR REPLACE INTO result_rows ({_COPIED}) SELECT '', task_id, state, task, result, first_sent, stored_at,"  # noqa: S608
        " expires_at FROM results ORDER BY first_sent"
    ),
    "DROP TABLE results",
    (
        "CREATE VIEW results AS SELECT id AS task_id, first_sent, reply AS result, expires_at, state, task, stored_at"
        " FROM result_rows"
    ),
    (
        "CREATE TRIGGER results_of_version_3 INSTEAD OF INSERT ON results BEGIN"  # noqa: S608
        f" INSERT OR REPLACE INTO result_rows ({_COPIED}) SELECT '', NEW.task_id, coalesce(NEW.state, 'done'),"
        " coalesce(NEW.task, ''), NEW.result, NEW.first_sent, coalesce(NEW.stored_at, 0), NEW.expires_at WHERE NOT EXISTS"
        " (SELECT 1 FROM result_rows WHERE namespace = '' AND id = NEW.task_id AND first_sent > NEW.first_sent); END"
    ),
    _MARK_VERSION,
)
UPGRADES = {0: _NEW_FILE, 2: _FROM_VERSION_2, 3: _FROM_VERSION_3}
"""By the version that the file has, the statements after which it has a later one."""


def prepare(connection: sqlite3.Connection, path: Path) -> None:
    """Make an empty file a store, upgrade one of an earlier version, and refuse any other."""
    # each commit reaches the disk, so that a stored result survives a power cut:
    # https://www.sqlite.org/pragma.html#pragma_synchronous
    connection.execute("PRAGMA synchronous = FULL")
    # One transaction: between two reads another process may create the store.
    connection.execute("BEGIN")
    version = schema_version(connection, path)
    connection.execute("COMMIT")
    if version != SCHEMA_VERSION:
        connection.execute("BEGIN IMMEDIATE")
        # not at all if another process was faster
        while (version := schema_version(connection, path)) != SCHEMA_VERSION:
            for statement in UPGRADES[version]:
                connection.execute(statement)
        connection.execute("COMMIT")
    # Readers and one writer do not wait for each other then (https://www.sqlite.org/wal.html).
    (mode,) = connection.execute("PRAGMA journal_mode = WAL").fetchone()
    if mode != "wal":
        raise ConfigError(
            f"{path} is on a file system without write-ahead logs, such as a network share: put it on a local disk."
        )


def schema_version(connection: sqlite3.Connection, path: Path) -> int:
    """Return the version of a result file that this code can use; 0 if the file is empty."""
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if application == APPLICATION_ID:
        if version != SCHEMA_VERSION and version not in UPGRADES:
            raise ConfigError(
                f"{path} has version {version} of the schema of result files, and this amqpworker knows"
                f" {SCHEMA_VERSION}: use the amqpworker that created it, or another file."
            )
        return int(version)
    (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    if application or version or tables:
        raise ConfigError(f"{path} is the database of another program. Results need a file of their own.")
    return 0
