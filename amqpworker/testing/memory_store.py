"""A result store in the memory of this process, which takes the place of the app's in inline tests."""

from __future__ import annotations

import math
import threading
from collections.abc import Collection, Mapping, Sequence

from amqpworker.errors import ResultStoreError
from amqpworker.results.row import ResultRow


class MemoryStore:
    """Keeps rows in a dictionary; safe to use from many threads."""

    def __init__(self) -> None:
        self._rows: dict[str, ResultRow] = {}
        self._first_expires = math.inf
        self._subscriptions: list[MemorySubscription] = []
        self._lock = threading.Lock()

    def put(self, rows: Sequence[ResultRow]) -> Mapping[str, ResultStoreError]:
        """Store rows; of two with one id, `ResultRow.replaces` decides which one stays."""
        with self._lock:
            for row in rows:
                known = self._rows.get(row.id)
                if known is None or row.replaces(known):
                    self._rows[row.id] = row
                    self._first_expires = min(self._first_expires, row.expires_at)
            for subscription in self._subscriptions:
                subscription.report({row.id for row in rows})
        return {}

    def get(self, ids: Collection[str]) -> Mapping[str, ResultRow]:
        """Return the rows of those ids that have one."""
        with self._lock:
            return {one: self._rows[one] for one in ids if one in self._rows}

    def subscribe(self) -> MemorySubscription:
        """Return a subscription to changes of rows."""
        subscription = MemorySubscription()
        with self._lock:
            self._subscriptions.append(subscription)
        return subscription

    def delete(self, ids: Collection[str]) -> None:
        """Delete the rows of these ids."""
        with self._lock:
            for one in ids:
                self._rows.pop(one, None)

    def expire(self, now: float, most: int) -> int:
        """Delete at most `most` rows that have expired at `now`, and return how many were deleted."""
        if now < self._first_expires:
            return 0  # it is asked after each message
        with self._lock:
            expired = [row.id for row in self._rows.values() if row.expires_at <= now][:most]
            for one in expired:
                del self._rows[one]
            self._first_expires = min((row.expires_at for row in self._rows.values()), default=math.inf)
        return len(expired)

    def check_writable(self) -> str | None:
        """Return None: it always is."""
        return None

    def close(self) -> None:
        """Keep the rows: the test may read them."""


class MemorySubscription:
    """Hints that rows have changed, whichever are watched; one thread waits, any may report."""

    poll_every = 1.0

    def __init__(self) -> None:
        self._changed: set[str] = set()
        self._woken = threading.Event()

    def watch(self, ids: Collection[str]) -> None:
        """Do nothing: all changes are reported."""

    def unwatch(self, ids: Collection[str]) -> None:
        """Do nothing: all changes are reported."""

    def report(self, ids: Collection[str]) -> None:
        """Note that these rows have changed."""
        self._changed |= set(ids)
        self._woken.set()

    def wait(self, timeout: float) -> Collection[str] | None:
        """Return the ids of rows that have changed; none after `timeout` seconds or `wake`."""
        self._woken.wait(timeout)
        self._woken.clear()
        changed, self._changed = self._changed, set()
        return changed

    def wake(self) -> None:
        """End the present `wait`, or the next one; from any thread."""
        self._woken.set()

    def close(self) -> None:
        """Do nothing: it has no connection."""
