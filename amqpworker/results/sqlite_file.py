"""
One guarded connection to a SQLite file of results.

Decides the schema and how a file becomes ours, and keeps SQLite's rules about forks and files that are replaced
(https://www.sqlite.org/howtocorrupt.html §2.6, §2.4). What is written and read is left to `sqlite`.
"""

from __future__ import annotations

import ctypes
import os
import sqlite3
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from amqpworker.errors import ConfigError, ResultStoreError
from amqpworker.lifecycle import Living

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


class Guard:
    """
    A lock that its own thread does not wait for: a signal handler, or a finalizer, is refused where it interrupts the use.

    `busy` is true while someone uses what it guards; a fork that copies the process then leaves nothing to be used.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self.busy = False

    def __enter__(self) -> None:
        self._lock.acquire()
        if self.busy:
            # Only its own thread comes that far.
            self._lock.release()
            raise ResultStoreError(
                "The results are in use by the code that was interrupted here: a signal handler, or a finalizer (__del__), "
                "cannot use them at this moment."
            )
        self.busy = True

    def __exit__(self, *_: object) -> None:
        self.busy = False
        self._lock.release()

    def take_over(self, timeout: float) -> bool:
        """Hold the lock, without use; false where others kept it, or this thread is in the middle of its use."""
        if not self._lock.acquire(timeout=timeout):
            return False
        if self.busy:
            self._lock.release()
        return not self.busy

    def give_back(self) -> None:
        """Let go of what was taken over."""
        self._lock.release()

    def step_aside(self, until: Callable[[], bool]) -> None:
        """Leave the lock to others in the middle of a use, until it is true."""
        self.busy = False
        self._lock.release()
        try:
            while not until():
                time.sleep(PAUSE)
        finally:
            self._lock.acquire()
            self.busy = True


class Link:
    """
    A connection that opens at its first use, and again after a fork, an error, or when the file was replaced.

    Whoever calls `patiently` or `drop` holds `lock`.
    """

    def __init__(self, path: Path, patience: float) -> None:
        self._path = path
        self._patience = patience
        self._process = os.getpid()
        self._guard = Guard()
        self._connection: sqlite3.Connection | None = None
        self._file: tuple[int, int] | None = None
        # the ident of the thread that holds the lock to fork
        self._held_by: int | None = None
        self._torn = False
        LINKS.add(self)

    def __del__(self) -> None:
        """Close what was not closed, as the garbage collector would; but never in the middle of a fork."""
        connection, self._connection = self._connection, None
        if connection is not None and self._process == os.getpid():
            let_go(connection)
        elif connection is not None:
            keep_for_ever(connection)

    @property
    def lock(self) -> Guard:
        """
        What the users of this process hold, one at a time.

        Raises:
            ResultStoreError: when it is entered by code that has interrupted a user in its own thread.
        """
        if self._process != os.getpid():
            self.after_in_child()
        return self._guard

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
        """Leave the lock to threads that want to fork, until they have; links that were made meanwhile wait as well."""
        if FORKING:
            self._guard.step_aside(lambda: not FORKING)

    def _open(self) -> sqlite3.Connection:
        if self._torn:
            raise sqlite3.OperationalError(
                "this process was forked while its parent had the file open, which SQLite does not allow (call app.close() "
                "before a fork that Python does not see, as uWSGI's; or let uWSGI load the app in each worker: lazy-apps)"
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

    def before_fork(self) -> None:
        """Close the connection before a fork that is announced, once nobody is in the middle of its use."""
        # closed, not just left alone: SQLite keeps its locks per process in memory that a child would inherit, and
        # even a connection that the child opens itself would then believe in locks that it does not have
        if self.lock.take_over(SLOWEST_COMMIT):
            self._held_by = threading.get_ident()
            self.drop()

    def after_in_parent(self) -> None:
        """Go on after a fork."""
        if self._held_by == threading.get_ident():
            self._held_by = None
            self._guard.give_back()

    def after_in_child(self) -> None:
        """Begin anew in a child, where a connection that was open, or about to be, can never be used."""
        self._process = os.getpid()
        self._torn = self._torn or self._connection is not None or self._guard.busy
        self._guard = Guard()
        self._held_by = None
        connection, self._connection = self._connection, None
        if connection is not None:
            keep_for_ever(connection)


def keep_for_ever(connection: sqlite3.Connection) -> None:
    """Leave a connection that was inherited alone: not even closing it is allowed."""
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(connection))


LINKS: Living[Link] = Living()

FORKING: set[int] = set()
"""The idents of the threads that are about to fork."""

CLOSING: set[object] = set()
"""The finalizers that close a connection at this moment: each is waited for by who wants to fork, or sees it and leaves
its connection to it."""

LEFT: list[sqlite3.Connection] = []
"""The connections that they left."""


def let_go(connection: sqlite3.Connection) -> None:
    """Close a connection that nobody uses any more; from any place."""
    me = object()
    CLOSING.add(me)
    try:
        if FORKING:
            LEFT.append(connection)
        else:
            connection.close()
    finally:
        CLOSING.discard(me)


def before_fork() -> None:
    """Have all connections closed, one after the other, and no other opened."""
    FORKING.add(threading.get_ident())
    for link in LINKS.all():
        link.before_fork()
    until = time.monotonic() + SLOWEST_COMMIT
    while CLOSING and time.monotonic() < until:
        time.sleep(PAUSE)
    while LEFT:
        LEFT.pop().close()


def after_in_parent() -> None:
    """Let all connections be used again."""
    for link in LINKS.all():
        link.after_in_parent()
    FORKING.discard(threading.get_ident())


def after_in_child() -> None:
    """Let all connections begin anew."""
    FORKING.clear()
    for link in LINKS.all():
        link.after_in_child()


os.register_at_fork(before=before_fork, after_in_parent=after_in_parent, after_in_child=after_in_child)


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
