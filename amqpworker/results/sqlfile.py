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
from typing import Any, TypeVar

from amqpworker.errors import ConfigError

__all__ = ["Link", "code_of", "may_pass", "reason"]

APPLICATION_ID = 0x61775273
"""What marks a file as ours (`file` shows it): "awRs"."""

SCHEMA_VERSION = 2
SCHEMA = (
    (
        "CREATE TABLE results (task_id TEXT NOT NULL, first_sent TEXT NOT NULL, result BLOB NOT NULL,"
        " expires_at REAL NOT NULL, PRIMARY KEY (task_id, first_sent))"
    ),
    "CREATE INDEX results_by_expiry ON results (expires_at)",
    f"PRAGMA application_id = {APPLICATION_ID}",
    f"PRAGMA user_version = {SCHEMA_VERSION}",
)


MOMENT = 0.1
"""Seconds that SQLite waits by itself for a locked file: as long does a fork wait for a store that waits."""

SLOWEST_COMMIT = 5.0
"""Seconds that a fork waits for a store that writes."""

PAUSE = 0.01

_Found = TypeVar("_Found")


class Link:
    """
    A connection that opens at its first use, and again after a fork, an error, or when the file was replaced.

    Whoever calls `patiently` or `drop` holds `lock`.
    """

    def __init__(self, path: Path, patience: float) -> None:
        self.lock = threading.Lock()
        self._path = path
        self._patience = patience
        self._connection: sqlite3.Connection | None = None
        self._file: tuple[int, int] | None = None
        # by the ident of their threads: who forks, and who of them holds the lock for it
        self._forking: set[int] = set()
        self._held: set[int] = set()
        self._torn = False
        _register(before=self._before_fork, after_in_parent=self._after_in_parent, after_in_child=self._after_in_child)

    def patiently(self, work: Callable[[sqlite3.Connection], _Found], patience: float | None = None) -> _Found:
        """
        Return what `work` makes of the connection; it is asked again for as long as others keep the file locked.

        `patience` (seconds) takes the place of the connection's own if it is shorter.

        Another thread may hold the lock meanwhile: a fork goes between two attempts.

        Raises:
            sqlite3.Error: it cannot be opened, or stays locked.
            ConfigError: the file is something else than a store of ours.
        """
        give_up = time.monotonic() + min(self._patience, self._patience if patience is None else patience)
        while True:
            self._let_fork()
            try:
                return work(self._open())
            except sqlite3.OperationalError as error:
                if code_of(error) != sqlite3.SQLITE_BUSY or time.monotonic() > give_up:
                    raise
            # SQLite does not always wait by itself
            time.sleep(PAUSE)

    def _let_fork(self) -> None:
        """Leave the lock to threads that want to fork, until they have."""
        if self._forking:
            self.lock.release()
            try:
                while self._forking:
                    time.sleep(PAUSE)
            finally:
                self.lock.acquire()

    def _open(self) -> sqlite3.Connection:
        if self._torn:
            raise sqlite3.OperationalError(
                "this process was forked while its parent wrote, which SQLite does not allow"
            )
        if self._connection is not None:
            if _identity(self._path) == self._file:
                return self._connection
            self.drop()
        # in autocommit mode, and used by any thread that holds the lock
        self._connection = sqlite3.connect(
            self._path, timeout=min(MOMENT, self._patience), isolation_level=None, check_same_thread=False
        )
        try:
            _prepare(self._connection, self._path)
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
        forker = threading.get_ident()
        self._forking.add(forker)
        if self.lock.acquire(timeout=SLOWEST_COMMIT):
            self._held.add(forker)
            self.drop()

    def _after_in_parent(self) -> None:
        forker = threading.get_ident()
        self._forking.discard(forker)
        if forker in self._held:
            self._held.discard(forker)
            self.lock.release()

    def _after_in_child(self) -> None:
        self.lock = threading.Lock()
        forker = threading.get_ident()
        self._torn = self._torn or (forker in self._forking and forker not in self._held)
        self._forking, self._held = set(), set()
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


def _prepare(connection: sqlite3.Connection, path: Path) -> None:
    """Make an empty file a store of ours, and refuse what is something else."""
    # each commit reaches the disk: a result that was acknowledged survives a power cut, too
    connection.execute("PRAGMA synchronous = FULL")
    if not _is_ours(connection, path):
        connection.execute("BEGIN IMMEDIATE")
        if not _is_ours(connection, path):  # another process may have been faster
            for statement in SCHEMA:
                connection.execute(statement)
        connection.execute("COMMIT")
    # Readers and one writer do not wait for each other then.
    (mode,) = connection.execute("PRAGMA journal_mode = WAL").fetchone()
    if mode != "wal":
        raise ConfigError(f"{path} is on a file system that cannot hold a write-ahead log (a network share?).")


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


def code_of(error: BaseException) -> int:
    """Return the number by which SQLite knows an error; 0 where it has none."""
    return int(getattr(error, "sqlite_errorcode", 0)) & 0xFF


def may_pass(error: BaseException, path: Path) -> bool:
    """Tell whether an error may be over later without a change to the settings or to the rights of this user."""
    code = code_of(error)
    # SQLite does not say why it cannot open a file: too many are open, or no room is left for the files beside it.
    return _is_usable(path) if code == sqlite3.SQLITE_CANTOPEN else code in _PASSING


def _is_usable(path: Path) -> bool:
    """Tell whether this user may make and use the file and those that SQLite has beside it."""
    try:
        file = path.resolve()
        beside = [file.with_name(file.name + suffix) for suffix in ("", "-wal", "-shm")]
        there = [one for one in beside if one.exists()]
        usable = all(one.is_file() and os.access(one, os.R_OK | os.W_OK) for one in there)
        return usable and file.parent.is_dir() and os.access(file.parent, os.W_OK | os.X_OK)
    except OSError:
        return False


_PASSING = {
    *(sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_PROTOCOL, sqlite3.SQLITE_SCHEMA),
    *(sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_NOMEM, sqlite3.SQLITE_INTERRUPT),
}


def reason(error: BaseException, path: Path) -> str:
    """Say in a few words why SQLite failed, with what it leaves out."""
    code = code_of(error)
    if code == sqlite3.SQLITE_CANTOPEN:
        try:
            if not path.parent.is_dir():
                return f"there is no folder {path.parent}"
            if path.is_dir():
                return "it is a folder"
        except PermissionError:
            return f"this user may not enter {path.parent}"
        return "it cannot be opened; its folder must be writable, too"
    return _KNOWN.get(code) or str(error) or type(error).__name__


_KNOWN = {
    sqlite3.SQLITE_BUSY: "another process keeps the file locked",
    sqlite3.SQLITE_CORRUPT: "the file is damaged",
    sqlite3.SQLITE_FULL: "the disk is full",
    sqlite3.SQLITE_NOTADB: "the file is not a SQLite database",
    sqlite3.SQLITE_READONLY: "the file or its folder is read-only",
}
