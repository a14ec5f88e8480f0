"""
Writes results, one by one, with the times of one clock.

Decides when rows expire; `expiry` decides when those that have are deleted.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from amqpworker.errors import ConfigError, ResultStoreError
from amqpworker.results.expiry import Expiry
from amqpworker.results.row import ResultRow
from amqpworker.results.store import ResultStore


class ResultWriter:
    """Puts rows with the times of one clock, and deletes those that have expired."""

    def __init__(self, store: ResultStore, ttl: float, now: Callable[[], float] = time.time) -> None:
        self._store = store
        self._ttl = ttl
        self._now = now
        self._expiry = Expiry(store)

    def write(self, task_id: str, state: str, task: str, reply: bytes, first_sent: str) -> ResultStoreError | None:
        """Store a result; return why it may not be stored."""
        return self._put(self._row(task_id, state, task, reply, first_sent))

    def write_unless_there(
        self, task_id: str, state: str, task: str, reply: bytes, first_sent: str
    ) -> ResultStoreError | None:
        """As `write`, but a result of the same message that is stored already stays."""
        row = self._row(task_id, state, task, reply, first_sent)
        try:
            stored = self._store.get((task_id,)).get(task_id)
        except ResultStoreError as error:
            return error
        except ConfigError as error:
            return ResultStoreError(str(error))
        return None if stored is not None and stored.has_reply_of(row, row.stored_at) else self._put(row)

    def _row(self, task_id: str, state: str, task: str, reply: bytes, first_sent: str) -> ResultRow:
        now = self._now()
        return ResultRow(task_id, state, task, reply, first_sent, now, now + self._ttl)

    def _put(self, row: ResultRow) -> ResultStoreError | None:
        error = self._store.put((row,)).get(row.id)
        if error is None:
            self._expiry.on_stored(1, row.stored_at)
        return error
