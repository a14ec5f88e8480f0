"""
Results in a table of PostgreSQL, shared by the threads and processes of any number of machines.

Decides when a result is safe: when the server has committed it (its setting `synchronous_commit` decides what that means).

Threads that store at the same time share a transaction: the one that has the connection puts the rows of all that wait.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, TypeVar

import psycopg

from amqpworker.errors import ConfigError, ResultStoreError
from amqpworker.log.logger import get_logger
from amqpworker.results.postgresql_connection import ANSWER_TIMEOUT, Connection, Server
from amqpworker.results.postgresql_errors import is_permanent, reason
from amqpworker.results.postgresql_link import PostgresLink
from amqpworker.results.postgresql_put import put_part, put_rows
from amqpworker.results.postgresql_sql import DELETE, EXPIRE, GET, LATEST, NOTIFY
from amqpworker.results.postgresql_subscription import PostgresSubscription
from amqpworker.results.postgresql_values import HASHED, escaped, ids_array, row_of, stored_id, unescaped
from amqpworker.results.row import ResultRow, merged
from amqpworker.results.row_listing import NOT_LISTED
from amqpworker.results.store import CHECK_ROW

CHECK_TIMEOUT = 5.0
"""Seconds that the start of a worker waits for a statement: a locked table does not keep it from starting."""

LATE = 1.2
"""A row that expires later than after this many times the usual time counts as one that is kept for longer."""

log = get_logger(__name__)

_Result = TypeVar("_Result")


class _Batch:
    """The rows of one `put`, until they are committed or have failed."""

    __slots__ = ("ended", "errors", "rows")

    def __init__(self, rows: Sequence[ResultRow]) -> None:
        self.rows = rows
        self.errors: dict[str, ResultStoreError] = {}
        self.ended = False

    def end(self, errors: Mapping[str, ResultStoreError]) -> None:
        """End with what has become of the rows of several batches."""
        if errors:
            self.errors = {row.id: errors[row.id] for row in self.rows if row.id in errors}
        self.ended = True

    def fail(self, error: BaseException) -> None:
        """End with an error for each row."""
        failure = error if isinstance(error, ResultStoreError) else ResultStoreError(f"Not stored: {error!r}.")
        self.errors = dict.fromkeys((row.id for row in self.rows), failure)
        self.ended = True


class PostgresStore:
    """
    A `ResultStore` in a database of PostgreSQL; without `declare` it never creates its table.

    Raises:
        ConfigError: the URL is malformed.
    """

    def __init__(self, url: str, namespace: str, declare: bool = True, answer_timeout: float = ANSWER_TIMEOUT) -> None:
        self._server = Server(url, namespace, answer_timeout)
        self._namespace = namespace
        self._waiting: deque[_Batch] = deque()
        # a reader has a connection of its own, so that it never waits for a commit
        self._writer = PostgresLink(self._server, declare)
        self._reader = PostgresLink(self._server, declare)
        self._has_logged_missing_hints = False

    def put(self, rows: Sequence[ResultRow]) -> Mapping[str, ResultStoreError]:
        """Store rows: they are committed when this returns. Return an error for each that is not known to be."""
        batch = _Batch(rows)
        self._waiting.append(batch)
        try:
            with self._writer.turn():
                if not batch.ended:  # by another thread
                    self._put_waiting()
        except BaseException as error:
            with suppress(ValueError):  # another thread may have taken it
                self._waiting.remove(batch)
            if not isinstance(error, ResultStoreError):
                raise
            if not batch.ended:
                batch.fail(error)
        return batch.errors

    def get(self, ids: Collection[str]) -> Mapping[str, ResultRow]:
        """Return the rows of those ids that have one."""
        wanted = {stored_id(one): one for one in ids}
        if not wanted:
            return {}
        found = self._run(self._reader, "read from", partial(_get, self._namespace, list(wanted)))
        return {wanted[row[0]]: row_of(wanted[row[0]], row[1:]) for row in found}

    def latest(self, most: int, now: float, usual_ttl: float, state: str = "") -> Sequence[ResultRow]:
        """Return rows that were stored last, without their replies (`RowListing`)."""
        parameters = {
            "namespace": escaped(self._namespace),
            "now": now,
            "usual": now + LATE * usual_ttl,
            "state": escaped(state),
            "others": [*NOT_LISTED, HASHED],
            "most": most,
        }
        found = self._run(self._reader, "read from", lambda it: it.execute(LATEST, parameters, binary=True).fetchall())
        return [row_of(unescaped(row[0]), row[1:]) for row in found]

    def subscribe(self) -> PostgresSubscription:
        """Return a subscription to changes of rows."""
        return PostgresSubscription(self._server, self._namespace, self._notify, self._log_missing_hints)

    def delete(self, ids: Collection[str]) -> None:
        """Delete the rows of these ids."""
        if ids:
            chosen = (escaped(self._namespace), ids_array(map(stored_id, sorted(ids))))
            self._delete(DELETE, chosen)

    def expire(self, now: float, most: int) -> int:
        """Delete some rows that have expired, of any namespace, and return how many."""
        return self._delete(EXPIRE, (now, most))

    def check_writable(self) -> str | None:
        """Write, and undo it; return why that is not possible at the moment."""
        try:
            self._run(self._writer, "stored in", partial(_try_to_write, self._namespace), CHECK_TIMEOUT)
        except ResultStoreError as error:
            return str(error)
        return None

    def close(self) -> None:
        """Close the connections, after the threads that use them."""
        for link in (self._writer, self._reader):
            # a signal handler that interrupted a use leaves it open
            with suppress(ResultStoreError):
                link.close()

    def _put_waiting(self) -> None:
        batches = []
        while self._waiting:
            batches.append(self._waiting.popleft())
        try:
            rows = merged([row for each in batches for row in each.rows])
            errors = put_rows(self._writer, self._namespace, rows)
        except BaseException as error:
            for each in batches:
                each.fail(error)
            raise
        for each in batches:
            each.end(errors)

    def _delete(self, statement: str, parameters: Sequence[object]) -> int:
        try:
            return self._run(
                self._writer, "deleted from", lambda connection: connection.execute(statement, parameters).rowcount
            )
        except ConfigError as error:
            raise ResultStoreError(str(error)) from error

    def _run(
        self,
        link: PostgresLink,
        verb: str,
        work: Callable[[Connection], _Result],
        answer_timeout: float = math.inf,
    ) -> _Result:
        """Use a link; raises ResultStoreError, and ConfigError if the error does not pass by itself."""
        try:
            return link.use(work, answer_timeout)
        except (psycopg.Error, OSError) as error:
            kind = ConfigError if isinstance(error, psycopg.Error) and is_permanent(error) else ResultStoreError
            raise kind(f"Results cannot be {verb} {self._server.place}: {reason(error)}.") from error

    def _notify(self, payload: str) -> None:
        self._reader.use(lambda connection: connection.execute(NOTIFY, (payload,)))

    def _log_missing_hints(self) -> None:
        if not self._has_logged_missing_hints:
            self._has_logged_missing_hints = True
            log.warning("result_hints_missing", store=self._server.place)


def _get(namespace: str, ids: Sequence[str], connection: Connection) -> list[tuple[Any, ...]]:
    return connection.execute(GET, (escaped(namespace), ids_array(ids)), binary=True).fetchall()


def _try_to_write(namespace: str, connection: Connection) -> None:
    with connection.transaction(force_rollback=True):
        put_part(namespace, [CHECK_ROW], True, connection)
