"""
Changes of rows in a SQLite file, as other processes and threads commit them.

Decides how soon they are seen: SQLite does not notify, so the version of its data is read every ten milliseconds, which takes
some microseconds (https://www.sqlite.org/pragma.html#pragma_data_version).
"""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Collection
from pathlib import Path

from amqpworker.errors import ResultStoreError
from amqpworker.results.sqlite_errors import reason
from amqpworker.results.sqlite_file import Connect, SqliteFile

LOOK_EVERY = 0.01
LOCK_TIMEOUT = 5.0
CHANGED = "SELECT seq, id FROM result_rows WHERE seq > ? AND namespace IN (?, '') ORDER BY seq"
LATEST = "SELECT coalesce(max(seq), 0) FROM result_rows"


class SqliteSubscription:
    """A `Subscription` to the rows of a file: it reports the changes of all of them."""

    poll_every = 5.0

    def __init__(self, path: Path, namespace: str) -> None:
        self._path = path
        self._namespace = namespace
        # of its own: what a connection has changed itself does not change its version of the data
        self._file = SqliteFile(path, LOCK_TIMEOUT)
        self._connection: sqlite3.Connection | None = None
        self._version = 0
        self._latest = 0
        self._woken = threading.Event()

    def __del__(self) -> None:
        """Close what was not closed."""
        self._file.abandon()

    def watch(self, ids: Collection[str]) -> None:
        """Do nothing: all changes are seen."""

    def unwatch(self, ids: Collection[str]) -> None:
        """Do nothing: all changes are seen."""

    def wait(self, timeout: float) -> Collection[str] | None:
        """Return the ids of rows that have changed, none of them after `timeout` seconds or `wake`; `None`: any may have."""
        until = time.monotonic() + timeout
        while True:
            changed = self._changed()
            if changed is None or changed:
                return changed
            left = until - time.monotonic()
            if left <= 0 or self._woken.wait(min(LOOK_EVERY, left)):
                self._woken.clear()
                return ()

    def wake(self) -> None:
        """End the present `wait`, or the next one."""
        self._woken.set()

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _changed(self) -> Collection[str] | None:
        try:
            return self._file.use(self._look)
        except (sqlite3.Error, OSError) as error:
            raise ResultStoreError(f"Results cannot be read from {self._path}: {reason(error, self._path)}.") from error

    def _look(self, connect: Connect) -> Collection[str] | None:
        connection = connect()
        (version,) = connection.execute("PRAGMA data_version").fetchone()
        if connection is not self._connection:
            self._connection, self._version = connection, version
            (self._latest,) = connection.execute(LATEST).fetchone()
            return None
        if version == self._version:
            return ()
        self._version = version
        found = connection.execute(CHANGED, (self._latest, self._namespace)).fetchall()
        if found:
            self._latest = found[-1][0]
        return [task_id for _, task_id in found]
