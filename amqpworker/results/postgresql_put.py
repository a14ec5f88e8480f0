"""
How rows are put into PostgreSQL: in statements of limited size, each of which is one transaction.

Decides which rows fail: if one may be at fault, its statement is repeated in two halves until that row is alone; if the database
is, all that are left fail.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from struct import error as StructError  # noqa: N812 - a module's own name for an exception

import psycopg

from amqpworker.errors import ConfigError, ResultStoreError
from amqpworker.results.postgresql_connection import Connection
from amqpworker.results.postgresql_errors import NEVER_STORABLE, ROW_FAULTS, reason
from amqpworker.results.postgresql_link import PostgresLink
from amqpworker.results.postgresql_sql import PUT
from amqpworker.results.postgresql_values import payloads, put_parameters
from amqpworker.results.row import ResultRow
from amqpworker.results.store import ResultNotStorable

MOST_ROWS = 1000
MOST_BYTES = 8 * 1024 * 1024
"""Of one statement. Bytes are those of the replies: all else of most rows is small."""

LARGEST_ROW = 100_000_000
"""Bytes. PostgreSQL takes 1 GB, but copies it several times: 400 MB took 28 s, longer than a statement may take."""

_FAULTS = (*ROW_FAULTS, StructError, OverflowError)


def put_rows(link: PostgresLink, namespace: str, rows: Sequence[ResultRow]) -> dict[str, ResultStoreError]:
    """Put rows, which are merged; return an error for each that is not known to be stored. The caller has the link's turn."""
    errors = {row.id: _too_large(row) for row in rows if _size(row) > LARGEST_ROW}
    waiting = deque((part, True) for part in _parts(row for row in rows if row.id not in errors))
    while waiting:
        part, notify = waiting.popleft()
        try:
            link.run(partial(put_part, namespace, part, notify))
        except _FAULTS as error:
            if len(part) > 1:
                middle = len(part) // 2
                waiting.extendleft([(part[middle:], notify), (part[:middle], notify)])
            elif notify and isinstance(error, psycopg.errors.ProgramLimitExceeded):
                # perhaps not the fault of the row: a listener that does not read has filled the queue of notifications
                waiting.appendleft((part, False))
            else:
                errors[part[0].id] = _not_stored(part[0].id, link.place, error)
        except (psycopg.Error, ConfigError, OSError) as error:
            for failed, _ in ((part, notify), *waiting):
                errors.update((row.id, _not_stored(row.id, link.place, error)) for row in failed)
            break
    return errors


def put_part(namespace: str, rows: Sequence[ResultRow], notify: bool, connection: Connection) -> None:
    """Put rows in one transaction, and notify those who wait for them."""
    notified = payloads(namespace, (row.id for row in rows)) if notify else []
    connection.execute(PUT, put_parameters(namespace, rows, notified))


def _size(row: ResultRow) -> int:
    return sum(map(len, (row.id, row.state, row.task, row.reply, row.first_sent, row.worker, row.progress)))


def _parts(rows: Iterable[ResultRow]) -> Iterator[list[ResultRow]]:
    part: list[ResultRow] = []
    size = 0
    for row in rows:
        if part and (len(part) >= MOST_ROWS or size + len(row.reply) > MOST_BYTES):
            yield part
            part, size = [], 0
        part.append(row)
        size += len(row.reply)
    if part:
        yield part


def _too_large(row: ResultRow) -> ResultStoreError:
    return ResultNotStorable(
        f"The result of task {row.id} was not stored: it has {_size(row)} bytes, and PostgreSQL takes at most {LARGEST_ROW}."
    )


def _not_stored(task_id: str, place: str, error: Exception) -> ResultStoreError:
    if isinstance(error, ConfigError):
        text = str(error)
    else:
        text = f"The result of task {task_id} was not stored in {place}: {reason(error)}."
    useless = isinstance(error, (*NEVER_STORABLE, StructError, OverflowError))
    failure = (ResultNotStorable if useless else ResultStoreError)(text)
    failure.__cause__ = error
    return failure
