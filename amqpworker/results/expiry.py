"""
When what has expired is deleted: as new rows are stored, a bounded number at a time.

Decides the pace. Which rows have expired, and of which namespaces, is decided by the store.
"""

from __future__ import annotations

from contextlib import suppress

from amqpworker.results.store import ResultStore

EXPIRE_AFTER = 64
"""After this many rows expired ones are deleted, at most twice as many: the store shrinks, and no deletion is long."""

MOST = 10_000
"""As many rows are deleted at once at most."""

PAUSE = 0.25
"""Seconds from one deletion to the next: each is a transaction, of which a busy worker has hundreds a second."""


class Expiry:
    """Deletes expired rows of a store at the pace at which one writer stores others, the first time at its first row."""

    def __init__(self, store: ResultStore) -> None:
        self._store = store
        self._stored = EXPIRE_AFTER
        self._last = 0.0

    def on_stored(self, count: int, now: float) -> None:
        """Note that this many rows were stored, and delete expired ones if enough were; a failure is ignored."""
        self._stored += count
        if self._stored > EXPIRE_AFTER and not 0 <= now - self._last < PAUSE:
            stored, self._stored, self._last = self._stored, 0, now
            # The next time will do; a store of another package may raise anything.
            with suppress(Exception):
                self._store.expire(now, min(2 * stored, MOST))
