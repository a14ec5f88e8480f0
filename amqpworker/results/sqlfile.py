"""
One guarded connection to a SQLite file of results.

Decides the schema and how a file becomes ours, and keeps SQLite's rules about forks and files that are replaced
(https://www.sqlite.org/howtocorrupt.html §2.6, §2.4). What is written and read is left to `sql`.
"""

from __future__ import annotations

import ctypes
import os
import sqlite3
import threading
import time
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

from amqpworker.errors import ConfigError

__all__ = ["Link", "reason"]

APPLICATION_ID = 0x61775273
"""What marks a file as ours (`file` shows it): "awRs"."""

SCHEMA_VERSION = 1
SCHEMA = (
    "CREATE TABLE results (task_id TEXT NOT NULL PRIMARY KEY, result BLOB NOT NULL, expires_at REAL NOT NULL)",
    "CREATE INDEX results_by_expiry ON results (expires_at)",
    f"PRAGMA application_id = {APPLICATION_ID}",
    f"PRAGMA user_version = {SCHEMA_VERSION}",
)


class Link:
    """
    A connection that opens at its first use, and again after a fork, an error, or when the file was replaced.

    Whoever calls `connection` or `drop` holds `lock`.
    """

    def __init__(self, path: Path, patience: float) -> None:
        self.lock = threading.Lock()
        self._path = path
        self._patience = patience
        self._connection: sqlite3.Connection | None = None
        self._file: tuple[int, int] | None = None
        self._held = False
        _register(before=self._before_fork, after_in_parent=self._after_in_parent, after_in_child=self._after_in_child)

    def connection(self) -> sqlite3.Connection:
        """
        Return the open connection.

        Raises:
            sqlite3.Error: it cannot be opened.
            ConfigError: the file is something else than a store of ours.
        """
        if self._connection is not None:
            if _identity(self._path) == self._file:
                return self._connection
            self.drop()
        # in autocommit mode, and used by any thread that holds the lock
        self._connection = sqlite3.connect(
            self._path, timeout=self._patience, isolation_level=None, check_same_thread=False
        )
        try:
            _prepare(self._connection, self._path, self._patience)
        except BaseException:
            self.drop()
            raise
        self._file = _identity(self._path)
        return self._connection

    def drop(self) -> None:
        """Close the connection; what had not been committed is undone."""
        connection, self._connection = self._connection, None
        if connection is not None:
            try:
                connection.close()
            except sqlite3.Error:
                return

    def _before_fork(self) -> None:
        # closed, not just left alone: SQLite keeps its locks per process in memory that a child would inherit, and
        # even a connection that the child opens itself would then believe in locks that it does not have
        self._held = self.lock.acquire(timeout=self._patience + 1)
        if self._held:
            self.drop()

    def _after_in_parent(self) -> None:
        if self._held:
            self._held = False
            self.lock.release()

    def _after_in_child(self) -> None:
        self.lock = threading.Lock()
        self._held = False
        if self._connection is not None:
            # forked by something that does not announce it (uWSGI): not even closing is allowed, so it lives for ever
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(self._connection))
            self._connection = None


def _register(**methods: Callable[[], None]) -> None:
    """Register hooks for forks that do not keep their object alive."""

    def weakly(method: Callable[[], None]) -> Callable[[], None]:
        reference = weakref.WeakMethod(method)

        def call() -> None:
            if (alive := reference()) is not None:
                alive()

        return call

    hooks: dict[str, Any] = {name: weakly(method) for name, method in methods.items()}
    os.register_at_fork(**hooks)


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _prepare(connection: sqlite3.Connection, path: Path, patience: float) -> None:
    """Make an empty file a store of ours, and refuse what is something else."""
    # each commit reaches the disk: a result that was acknowledged survives a power cut, too
    connection.execute("PRAGMA synchronous = FULL")
    if not _is_ours(connection, path):
        connection.execute("BEGIN IMMEDIATE")
        if not _is_ours(connection, path):  # another process may have been faster
            for statement in SCHEMA:
                connection.execute(statement)
        connection.execute("COMMIT")
    _become_wal(connection, path, patience)


def _is_ours(connection: sqlite3.Connection, path: Path) -> bool:
    """Tell a store of ours (true) from an empty file (false)."""
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if application == APPLICATION_ID:
        if version != SCHEMA_VERSION:
            raise ConfigError(
                f"{path} has results in version {version} of the file's schema, and this amqpworker knows"
                f" {SCHEMA_VERSION}: use the amqpworker that made it, or another file."
            )
        return True
    (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    if application or version or tables:
        raise ConfigError(f"{path} is the database of something else; results need a file of their own.")
    return False


def _become_wal(connection: sqlite3.Connection, path: Path, patience: float) -> None:
    """Switch the file to a write-ahead log, so that readers and one writer do not wait for each other."""
    if connection.execute("PRAGMA journal_mode").fetchone() == ("wal",):
        return
    # SQLite does not wait by itself here when another process does the same
    give_up = time.monotonic() + patience
    while True:
        try:
            (mode,) = connection.execute("PRAGMA journal_mode = WAL").fetchone()
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > give_up:
                raise
            time.sleep(0.01)
        else:
            break
    if mode != "wal":
        raise ConfigError(f"{path} is on a file system that cannot hold a write-ahead log (a network share?).")


def reason(error: BaseException, path: Path) -> str:
    """Say in a few words why SQLite failed, with what it leaves out."""
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if code == sqlite3.SQLITE_CANTOPEN:
        if not path.parent.is_dir():
            return f"there is no folder {path.parent}"
        if path.is_dir():
            return "it is a folder"
        return "it cannot be opened; its folder must be writable, too"
    return _KNOWN.get(code) or str(error) or type(error).__name__


_KNOWN = {
    sqlite3.SQLITE_BUSY: "another process keeps the file locked",
    sqlite3.SQLITE_CORRUPT: "the file is damaged",
    sqlite3.SQLITE_FULL: "the disk is full",
    sqlite3.SQLITE_NOTADB: "the file is not a SQLite database",
    sqlite3.SQLITE_READONLY: "the file or its folder is read-only",
}
