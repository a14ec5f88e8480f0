"""
One connection to a SQLite file of results.

Keeps SQLite's rules about forks and files that are replaced
(https://www.sqlite.org/howtocorrupt.html §2.6, §2.4).

A fork must not happen while a connection is open. SQLite keeps the locks of a process in memory, which a child inherits:
even a connection that the child opens itself uses locks that only its parent has. The parent's last connection then
deletes the write-ahead log at its end, with what the child has committed (tried with SQLite 3.40: the row was lost). So all
connections are closed before a fork, and parent and child open their own. If that was not possible, or if Python did
not see the fork, the child refuses to use the file.
"""

from __future__ import annotations

import ctypes
import math
import os
import sqlite3
import threading
import time
from _thread import get_ident
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TypeAlias, TypeVar

from amqpworker.errors import ConfigError, ResultStoreError
from amqpworker.results.sqlite_errors import is_busy, is_permanent, reason
from amqpworker.results.sqlite_schema import prepare

ATTEMPT = 0.1
"""Seconds that SQLite waits by itself for a locked file. A fork waits this long for a thread that waits for the lock."""

PAUSE = 0.01
"""Seconds between two attempts: SQLite does not always wait by itself."""

SLOWEST_COMMIT = 5.0
"""Seconds that a fork waits for a thread that writes."""

IN_USE = (
    "The results are in use by the code that was interrupted here: a signal handler, a finalizer (__del__) or a hook of "
    "a fork cannot use them at this moment."
)
FORKED = (
    "This process was forked while its parent had the file open, which SQLite does not allow (call app.close() "
    "before a fork that Python does not see, as uWSGI's; or let uWSGI load the app in each worker: lazy-apps)."
)

FILES: set[SqliteFile] = set()
FORKING: dict[int, list[threading.RLock]] = {}
"""The threads that fork at this moment, and the locks that each of them holds meanwhile."""

_Result = TypeVar("_Result")

Connect: TypeAlias = Callable[[], sqlite3.Connection]


class SqliteFile:
    """
    A connection that one thread at a time uses.

    It opens at its first use, and again after a fork, an error, or when the file was replaced.
    """

    def __init__(self, path: Path, lock_timeout: float) -> None:
        self._path = path
        self._lock_timeout = lock_timeout
        self._pid = os.getpid()
        # reentrant, so that code which interrupts a use in its own thread is refused instead of waiting for ever
        self._lock = threading.RLock()
        self._in_use = False
        self._connection: sqlite3.Connection | None = None
        self._file_id: tuple[int, int] | None = None
        self._inherited = False
        FILES.add(self)

    def use(self, work: Callable[[Connect], _Result], lock_timeout: float = math.inf) -> _Result:
        """
        Return what `work` returns; it is called again while other processes keep the file locked.

        Its argument returns the connection. A transaction that it leaves open with an exception is rolled back. Raises what
        `work` raises, ConfigError if the file can never be opened, and ResultStoreError if the caller has interrupted a use
        in its own thread or the connection was inherited.
        """
        give_up = time.monotonic() + min(self._lock_timeout, lock_timeout)
        while True:
            if self._pid != os.getpid():
                self.start_anew()
            with self._lock:
                if self._in_use or get_ident() in FORKING:
                    raise ResultStoreError(IN_USE)
                if not FORKING:
                    self._in_use = True
                    try:
                        return work(self._open)
                    except BaseException as error:
                        self._close()
                        if not is_busy(error) or time.monotonic() > give_up:
                            raise
                    finally:
                        self._in_use = False
            time.sleep(PAUSE)

    def close(self) -> None:
        """Close the connection, after the thread that uses it; raises ResultStoreError if that is the caller's own."""
        if self._pid != os.getpid():
            self.start_anew()
        with self._lock:
            if self._in_use:
                raise ResultStoreError(IN_USE)
            self._close()

    def abandon(self) -> None:
        """Close the connection of a store that is not used any more, from its finalizer."""
        if self._pid != os.getpid():
            self.start_anew()
        # if a thread that forks has the lock, it closes the connection
        elif self._lock.acquire(blocking=False):
            self._close()
            self._lock.release()
        # only now: a thread that forks waits for files that are being closed
        FILES.discard(self)

    def close_before_fork(self) -> threading.RLock | None:
        """Close the connection and return the lock, which is held; `None` if the connection is in use for too long."""
        if self._pid != os.getpid():
            self.start_anew()
        if not self._lock.acquire(timeout=SLOWEST_COMMIT):
            return None
        if self._in_use:  # by this thread: a signal handler forks
            self._lock.release()
            return None
        self._close()
        return self._lock

    def start_anew(self) -> None:
        """Start without a connection in a forked child. One that was open, or about to be, can never be used here."""
        self._pid = os.getpid()
        self._inherited = self._inherited or self._in_use or self._connection is not None
        self._lock = threading.RLock()
        self._in_use = False
        connection, self._connection = self._connection, None
        if connection is not None:
            # SQLite does not allow a child even to close it, as the garbage collector would: it is never freed.
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(connection))

    def _open(self) -> sqlite3.Connection:
        if self._inherited:
            raise ResultStoreError(FORKED)
        if self._connection is not None:
            if _file_id(self._path) == self._file_id:
                return self._connection
            self._close()
        try:
            # in autocommit mode, and used by any thread that holds the lock
            self._connection = sqlite3.connect(
                self._path, timeout=min(ATTEMPT, self._lock_timeout), isolation_level=None, check_same_thread=False
            )
            prepare(self._connection, self._path)
        except sqlite3.Error as error:
            if is_permanent(error, self._path):
                raise ConfigError(f"Results cannot be stored in {self._path}: {reason(error, self._path)}.") from error
            raise
        self._file_id = _file_id(self._path)
        return self._connection

    def _close(self) -> None:  # what is not committed is rolled back
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(sqlite3.Error):
                connection.close()


def _before_fork() -> None:
    # set before FILES is read: a file that is created meanwhile does not open
    held = FORKING[get_ident()] = []
    for file in list(FILES):
        lock = file.close_before_fork()
        if lock is not None:
            held.append(lock)


def _after_in_parent() -> None:
    for lock in FORKING.pop(get_ident(), ()):
        lock.release()


def _after_in_child() -> None:
    FORKING.clear()
    for file in list(FILES):
        file.start_anew()


os.register_at_fork(before=_before_fork, after_in_parent=_after_in_parent, after_in_child=_after_in_child)


def _file_id(path: Path) -> tuple[int, int] | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino
