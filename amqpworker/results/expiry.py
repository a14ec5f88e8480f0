"""
When what has expired is deleted: as new rows are stored, a bounded number at a time.

Decides the pace. Which rows have expired, and of which namespaces, is decided by the store.
"""

from __future__ import annotations

from contextlib import suppress

from amqpworker.results.store import ResultStore

EXPIRE_EVERY = 64
"""After this many rows, at most twice as many expired ones are deleted: the store shrinks, and no deletion is long."""


class Expiry:
    """Deletes expired rows of a store at the pace at which one writer stores others, the first time at its first row."""

    def __init__(self, store: ResultStore) -> None:
        self._store = store
        self._left = 1

    def on_stored(self, count: int, now: float) -> None:
        """Note that this many rows were stored, and delete expired ones if enough were; a failure is ignored."""
        self._left -= count
        if self._left <= 0:
            self._left = EXPIRE_EVERY
            # The next time will do; a store of another package may raise anything.
            with suppress(Exception):
                self._store.expire(now, 2 * max(count, EXPIRE_EVERY))
