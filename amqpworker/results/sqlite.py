"""
Results in one SQLite file, shared by the threads and processes of one machine.

Decides the file's schema, when a result is safe (at its commit, written through to the disk) and when expired ones go.
What a result looks like is left to `answer`.

Threads that store at the same time share a commit: whoever holds the lock commits for all that wait. No thread of
its own is needed for that, so nothing has to be stopped and nothing is missing after a fork.
"""

from __future__ import annotations

import sqlite3
import time
from collections import deque
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from amqpworker.errors import ConfigError, ResultStoreError
from amqpworker.log.redaction import redact_url
from amqpworker.results.sqlite_file import Link, may_pass, reason
from amqpworker.results.store import Clock, ResultNotStorable

__all__ = ["SqliteStore", "path_of"]

SCHEME = "sqlite://"
PATIENCE = 30.0
"""Seconds that a store waits for other processes to end their transactions."""

PURGE_EVERY = 64
"""After so many results, at most twice as many expired ones go: the file shrinks, and no commit takes long."""

FIRST_PATIENCE = 1.0
"""Seconds that opening a file waits for other processes: no reason not to start."""

FOR_GOOD = (sqlite3.DataError, OverflowError)
"""What SQLite says of a value that it can never hold: longer than its limit (a billion bytes), or than an int of C."""

STORE = "INSERT OR REPLACE INTO results (task_id, first_sent, result, expires_at) VALUES (?, ?, ?, ?)"
FETCH_LAST = "SELECT result FROM results WHERE task_id = ? AND expires_at > ? ORDER BY rowid DESC LIMIT 1"
FETCH = (
    "SELECT result FROM results WHERE task_id = ? AND expires_at > ? AND first_sent IN (?, '') "
    "ORDER BY first_sent DESC LIMIT 1"
)
PURGE = "DELETE FROM results WHERE rowid IN (SELECT rowid FROM results WHERE expires_at <= ? LIMIT ?)"


def path_of(url: str) -> Path:
    """
    Return the file that a URL names: `sqlite:///relative.db`, `sqlite:////absolute/path.db`.

    Raises:
        ConfigError: it names none.
    """
    shown = redact_url(url)
    place, slash, name = url.removeprefix(SCHEME).partition("/")
    if place:
        raise ConfigError(
            f"results={shown!r} has too few slashes: sqlite:///results.db, sqlite:////var/lib/results.db."
        )
    if "?" in name or "#" in name:
        raise ConfigError(f"results={shown!r}: a SQLite file takes no options ('?' in a name is written %3F, '#' %23).")
    path = unquote(name)
    if not slash or not path or path == ":memory:" or "\0" in path:
        raise ConfigError(f"results={shown!r} names no file, as sqlite:///results.db does.")
    return Path(path).absolute()


class _Row:
    """One result on its way into the file, and how that ended."""

    __slots__ = ("error", "settled", "values")

    def __init__(self, values: tuple[str, str, bytes, float]) -> None:
        self.values = values
        self.settled = False
        self.error: BaseException | None = None


class SqliteStore:
    """A `ResultStore` in a SQLite file."""

    def __init__(self, path: Path, clock: Clock = time.time, patience: float = PATIENCE) -> None:
        """
        Open the file, or create it. One that is locked, or on a disk that is full, is opened at a later use.

        Raises:
            ConfigError: it can never be opened, or is something else than a store of ours.
        """
        self.path = path
        self._clock = clock
        self._waiting: deque[_Row] = deque()
        self._since_purge = PURGE_EVERY
        # reading has a connection of its own, so that it never waits for a commit
        self._writer = Link(path, patience)
        self._reader = Link(path, patience)
        try:
            with self._writer.lock:
                self._writer.patiently(lambda _: None, FIRST_PATIENCE)
        except (sqlite3.Error, OSError) as error:
            if not may_pass(error, path):
                raise ConfigError(f"Results cannot be kept in {path}: {reason(error, path)}.") from error

    def store(self, task_id: str, result: bytes, expires_at: float, first_sent: str = "") -> None:
        """Keep `result` until `expires_at`; it is on the disk when this returns."""
        row = _Row((_key(task_id), first_sent, result, expires_at))
        self._waiting.append(row)
        with self._writer.lock:
            if not row.settled:
                self._commit_waiting()
        if row.error is not None:
            why = reason(row.error, self.path)
            kind = ResultNotStorable if isinstance(row.error, FOR_GOOD) else ResultStoreError
            raise kind(f"The result of task {task_id} was not stored in {self.path}: {why}.") from row.error

    def check_writable(self) -> str | None:
        """Begin to write, and undo it; return why that is not possible at the moment."""
        with self._writer.lock:
            try:
                connection = self._writer.patiently(_begin, FIRST_PATIENCE)
                # SQLite lets even those begin who may only read.
                connection.execute(STORE, ("", "", b"", 0.0))
                connection.execute("ROLLBACK")
            except (sqlite3.Error, OSError) as error:
                self._writer.drop()
                text = f"Results cannot be kept in {self.path}: {reason(error, self.path)}."
                if not may_pass(error, self.path):
                    raise ConfigError(text) from error
                return text
        return None

    def fetch(self, task_id: str, first_sent: str | None = None) -> bytes | None:
        """Return what is kept of this message, unless it has expired."""
        with self._reader.lock:
            try:
                found = self._reader.patiently(
                    partial(_fetch, key=_key(task_id), first_sent=first_sent, now=self._clock())
                )
            except (sqlite3.Error, ConfigError, OSError) as error:
                self._reader.drop()
                why = reason(error, self.path)
                raise ResultStoreError(
                    f"The result of task {task_id} cannot be read from {self.path}: {why}."
                ) from error
        return None if found is None else bytes(found[0])

    def close(self) -> None:
        """Close the file, once whoever is at it has done; the next use opens it anew."""
        for link in (self._writer, self._reader):
            # who interrupts a use in its own thread leaves it open
            with suppress(ResultStoreError), link.lock:
                link.drop()

    def _commit_waiting(self) -> None:
        rows = []
        while self._waiting:
            rows.append(self._waiting.popleft())
        self._settle(rows)

    def _settle(self, rows: list[_Row]) -> None:
        """Commit the rows, and tell each of them how that ended."""
        error: BaseException | None = None
        try:
            self._commit(rows)
        except (sqlite3.OperationalError, ConfigError, OSError) as trouble:
            error = trouble
        except Exception as trouble:  # noqa: BLE001 - it is raised where the row came from
            if len(rows) > 1:
                # one of them cannot be stored whatever the state of the file: it must not take the others along
                for row in rows:
                    self._settle([row])
                return
            error = trouble
        except BaseException as trouble:
            error = trouble
            raise
        finally:
            for row in rows:
                if not row.settled:
                    row.error = error
                    row.settled = True

    def _commit(self, rows: list[_Row]) -> None:
        try:
            connection = self._writer.patiently(_begin)
            connection.executemany(STORE, [row.values for row in rows])
            self._since_purge += len(rows)
            if self._since_purge >= PURGE_EVERY:
                connection.execute(PURGE, (self._clock(), 2 * self._since_purge))
                self._since_purge = 0
            connection.execute("COMMIT")
        except BaseException:
            self._writer.drop()
            raise


def _begin(connection: sqlite3.Connection) -> sqlite3.Connection:
    """Begin to write, and return the connection that does."""
    connection.execute("BEGIN IMMEDIATE")
    return connection


def _fetch(connection: sqlite3.Connection, key: str, first_sent: str | None, now: float) -> Any:
    if first_sent is None:
        return connection.execute(FETCH_LAST, (key, now)).fetchone()
    return connection.execute(FETCH, (key, now, first_sent)).fetchone()


def _key(task_id: str) -> str:
    """Return the id as SQLite can keep it: a lone surrogate, which an id made elsewhere may have, is written out."""
    return task_id.encode("utf-8", "backslashreplace").decode()
