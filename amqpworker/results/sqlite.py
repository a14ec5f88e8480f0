"""
Results in one SQLite file, shared by the threads and processes of one machine.

Decides when a result is safe: at its commit, which is written through to the disk.

Threads that store at the same time share a commit: the one that holds the lock commits for all that wait. This needs no
thread of its own: there is nothing to stop, and nothing is missing after a fork.
"""

from __future__ import annotations

import sqlite3
from collections import deque
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from urllib.parse import unquote

from amqpworker.errors import ConfigError, ResultStoreError
from amqpworker.log.redaction import redact_url
from amqpworker.results.row import ResultRow, merged
from amqpworker.results.row_listing import EXAMINED, NOT_LISTED
from amqpworker.results.sqlite_errors import is_permanent, reason
from amqpworker.results.sqlite_file import Connect, SqliteFile
from amqpworker.results.sqlite_subscription import SqliteSubscription
from amqpworker.results.store import CHECK_ROW, ResultNotStorable
from amqpworker.text import encodable

SCHEME = "sqlite://"

LOCK_TIMEOUT = 30.0
"""Seconds that a store waits for other processes to end their transactions."""

CHECK_TIMEOUT = 1.0
"""Seconds that the start of a worker waits for them: a locked file does not keep it from starting."""

NEVER_STORABLE = (sqlite3.DataError, OverflowError)
"""SQLite can never hold the row: it is longer than a billion bytes (https://www.sqlite.org/limits.html), or than a C int."""

ROW_ERRORS = (*NEVER_STORABLE, sqlite3.IntegrityError, sqlite3.InterfaceError, sqlite3.ProgrammingError)
"""One row is at fault: the transaction continues without it."""

_COLUMNS = "state, task, reply, first_sent, stored_at, expires_at, attempt, worker, started_at, progress"
# as `ResultRow.replaces`; a replaced row gets a new number, by which subscriptions find it
PUT = (
    f"INSERT OR REPLACE INTO result_rows (namespace, rank, id, {_COLUMNS})"  # noqa: S608
    " SELECT ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13 WHERE NOT EXISTS"
    " (SELECT 1 FROM result_rows WHERE namespace = ?1 AND id = ?3 AND (first_sent > ?7 OR (first_sent = ?7 AND rank > ?2)))"
)
# those of an earlier version have no namespace
_OURS = "namespace IN (?, '') AND id = ?"
GET = f"SELECT {_COLUMNS} FROM result_rows WHERE {_OURS} ORDER BY first_sent DESC, namespace DESC LIMIT 1"  # noqa: S608
DELETE = f"DELETE FROM result_rows WHERE {_OURS}"  # noqa: S608
# A replaced row has a new `seq`: the last ones are the latest.
LATEST = (
    "SELECT id, state, task, x'', first_sent, stored_at, expires_at, attempt, worker, started_at, progress FROM"  # noqa: S608
    " (SELECT namespace, id, state, task, first_sent, stored_at, expires_at, attempt, worker, started_at, progress"
    f" FROM result_rows ORDER BY seq DESC LIMIT {EXAMINED})"
    " WHERE namespace IN (?1, '') AND expires_at > ?2 AND ?3 IN ('', state) AND id NOT LIKE ?4 AND id NOT LIKE ?5"
    " ORDER BY stored_at DESC LIMIT ?6"
)
EXPIRE = "DELETE FROM result_rows WHERE seq IN (SELECT seq FROM result_rows WHERE expires_at <= ? LIMIT ?)"


def path_of(url: str) -> Path:
    """Return the file that a URL names (`sqlite:///relative.db`, `sqlite:////absolute/path.db`), or raise ConfigError."""
    shown = redact_url(url)
    host, slash, name = url.removeprefix(SCHEME).partition("/")
    if host:
        raise ConfigError(
            f"results={shown!r} has too few slashes: sqlite:///results.db, sqlite:////var/lib/results.db."
        )
    if "?" in name or "#" in name:
        raise ConfigError(
            f"results={shown!r}: a SQLite file has no options (write '?' in a name as %3F, and '#' as %23)."
        )
    path = unquote(name)
    if not slash or not path or path == ":memory:" or "\0" in path:
        raise ConfigError(f"results={shown!r} does not name a file, as sqlite:///results.db does.")
    return Path(path).absolute()


class _Batch:
    """The rows of one `put`, until they are committed or have failed."""

    __slots__ = ("ended", "errors", "rows")

    def __init__(self, rows: Sequence[ResultRow]) -> None:
        self.rows = rows
        self.errors: dict[str, BaseException] = {}
        self.ended = False

    def write(self, connection: sqlite3.Connection, namespace: str) -> None:
        """Add the rows to the transaction."""
        for row in merged(self.rows):
            try:
                connection.execute(PUT, _parameters(namespace, row))
            except ROW_ERRORS as error:
                self.errors[row.id] = error

    def fail(self, error: BaseException) -> None:
        """End with an error for each row."""
        self.errors = dict.fromkeys((row.id for row in self.rows), error)
        self.ended = True


class SqliteStore:
    """A `ResultStore` in a SQLite file."""

    def __init__(self, path: Path, namespace: str, lock_timeout: float = LOCK_TIMEOUT) -> None:
        self.path = path
        self._namespace = namespace
        self._waiting: deque[_Batch] = deque()
        # a reader has a connection of its own, so that it never waits for a commit
        self._writer = SqliteFile(path, lock_timeout)
        self._reader = SqliteFile(path, lock_timeout)

    def __del__(self) -> None:
        """Close what was not closed."""
        self._writer.abandon()
        self._reader.abandon()

    def put(self, rows: Sequence[ResultRow]) -> Mapping[str, ResultStoreError]:
        """Store rows: they are on the disk when this returns. Return an error for each that is not known to be."""
        batch = _Batch(rows)
        self._waiting.append(batch)
        try:
            self._writer.use(partial(self._commit_waiting, batch))
        except BaseException as error:
            with suppress(ValueError):  # another thread may have taken it
                self._waiting.remove(batch)
            if not isinstance(error, (sqlite3.Error, ConfigError, ResultStoreError, OSError)):
                raise
            if not batch.ended:
                batch.fail(error)
        return {task_id: self._not_stored(task_id, error) for task_id, error in batch.errors.items()}

    def get(self, ids: Collection[str]) -> Mapping[str, ResultRow]:
        """Return the rows of those ids that have one."""
        try:
            return self._reader.use(partial(_get, self._namespace, ids))
        except (sqlite3.Error, OSError) as error:
            raise ResultStoreError(f"Results cannot be read from {self.path}: {reason(error, self.path)}.") from error

    def latest(self, most: int, now: float, usual_ttl: float, state: str = "") -> Sequence[ResultRow]:  # noqa: ARG002
        """Return rows that were stored last, without their replies (`RowListing`)."""
        parameters = (self._namespace, now, encodable(state), *NOT_LISTED, most)
        try:
            return self._reader.use(lambda connect: list(map(ResultRow._make, connect().execute(LATEST, parameters))))
        except (sqlite3.Error, OSError) as error:
            raise ResultStoreError(f"Results cannot be read from {self.path}: {reason(error, self.path)}.") from error

    def subscribe(self) -> SqliteSubscription:
        """Return a subscription to changes of rows."""
        return SqliteSubscription(self.path, self._namespace)

    def delete(self, ids: Collection[str]) -> None:
        """Delete the rows of these ids."""
        self._delete(DELETE, [(self._namespace, encodable(one)) for one in ids])

    def expire(self, now: float, most: int) -> int:
        """Delete some rows that have expired, and return how many."""
        return self._delete(EXPIRE, [(now, most)])

    def check_writable(self) -> str | None:
        """Write, and undo it; return why that is not possible at the moment."""
        try:
            self._writer.use(_try_to_write, CHECK_TIMEOUT)
        except (sqlite3.Error, OSError) as error:
            text = f"Results cannot be stored in {self.path}: {reason(error, self.path)}."
            if is_permanent(error, self.path):
                raise ConfigError(text) from error
            return text
        return None

    def close(self) -> None:
        """Close the file, after the threads that use it."""
        for file in (self._writer, self._reader):
            # a signal handler that interrupted a use leaves it open
            with suppress(ResultStoreError):
                file.close()

    def _commit_waiting(self, batch: _Batch, connect: Connect) -> None:
        if batch.ended:  # by another thread
            return
        connection = connect()
        connection.execute("BEGIN IMMEDIATE")
        batches = []
        while self._waiting:
            batches.append(self._waiting.popleft())
        try:
            for each in batches:
                each.write(connection, self._namespace)
            connection.execute("COMMIT")
        except BaseException as error:
            for each in batches:
                each.fail(error)
            raise
        for each in batches:
            each.ended = True

    def _delete(self, statement: str, parameters: list[tuple[object, ...]]) -> int:
        def delete(connect: Connect) -> int:
            connection = connect()
            connection.execute("BEGIN IMMEDIATE")
            deleted = connection.executemany(statement, parameters).rowcount
            connection.execute("COMMIT")
            return deleted

        try:
            return self._writer.use(delete)
        except (sqlite3.Error, ConfigError, OSError) as error:
            raise ResultStoreError(
                f"Results cannot be deleted from {self.path}: {reason(error, self.path)}."
            ) from error

    def _not_stored(self, task_id: str, error: BaseException) -> ResultStoreError:
        if isinstance(error, ResultStoreError):
            return error
        if isinstance(error, ConfigError):
            text = str(error)
        else:
            text = f"The result of task {task_id} was not stored in {self.path}: {reason(error, self.path)}."
        failure = (ResultNotStorable if isinstance(error, NEVER_STORABLE) else ResultStoreError)(text)
        failure.__cause__ = error
        return failure


def _parameters(namespace: str, row: ResultRow) -> tuple[object, ...]:
    worker = encodable(row.worker)
    texts = (encodable(row.id), encodable(row.state), encodable(row.task))
    return (namespace, row.rank, *texts, *row[3:8], worker, row.started_at, row.progress)


def _get(namespace: str, ids: Collection[str], connect: Connect) -> dict[str, ResultRow]:
    connection = connect()
    rows = {}
    for one in ids:
        found = connection.execute(GET, (namespace, encodable(one))).fetchone()
        if found is not None:
            rows[one] = ResultRow(one, *found)
    return rows


def _try_to_write(connect: Connect) -> None:
    connection = connect()
    # SQLite lets even a user without write permission begin
    connection.execute("BEGIN IMMEDIATE")
    connection.execute(PUT, _parameters("", CHECK_ROW))
    connection.execute("ROLLBACK")
