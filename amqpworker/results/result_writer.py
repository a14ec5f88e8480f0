"""
Writes results, one by one, with the times of one clock.

Decides when rows expire, and when those that have are deleted.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress

from amqpworker.errors import ConfigError, ResultStoreError
from amqpworker.results.row import ResultRow
from amqpworker.results.store import ResultStore

EXPIRE_EVERY = 64
"""After this many results, at most twice as many expired ones are deleted: the store shrinks, and no deletion is long."""


class ResultWriter:
    """Puts rows with the times of one clock, and deletes those that have expired."""

    def __init__(self, store: ResultStore, ttl: float, now: Callable[[], float] = time.time) -> None:
        self._store = store
        self._ttl = ttl
        self._now = now
        self._until_expire = 1

    def write(self, task_id: str, state: str, task: str, reply: bytes, first_sent: str) -> ResultStoreError | None:
        """Store a result; return why it may not be stored."""
        now = self._now()
        row = ResultRow(task_id, state, task, reply, first_sent, now, now + self._ttl)
        error = self._store.put((row,)).get(task_id)
        self._until_expire -= 1
        if error is None and self._until_expire <= 0:
            self._until_expire = EXPIRE_EVERY
            with suppress(ResultStoreError):  # the next time will do
                self._store.expire(now, 2 * EXPIRE_EVERY)
        return error

    def write_unless_there(
        self, task_id: str, state: str, task: str, reply: bytes, first_sent: str
    ) -> ResultStoreError | None:
        """As `write`, but a result of the same message that is stored already stays."""
        try:
            row = self._store.get((task_id,)).get(task_id)
        except ResultStoreError as error:
            return error
        except ConfigError as error:
            return ResultStoreError(str(error))
        if row is not None and row.reply and row.first_sent == first_sent and row.expires_at > self._now():
            return None
        return self.write(task_id, state, task, reply, first_sent)
