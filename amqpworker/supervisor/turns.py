"""
Which process starts next: an import takes a core, and with more imports than cores at once each takes longer.

Decides how many processes may start at the same time, and that pools take turns. A turn ends once the process is ready, has
ended, or is about to be killed.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

from amqpworker.supervisor.slots import Process, Slot


class Turns:
    """The turns of all pools; at most `limit` processes start at once, None sets no limit."""

    def __init__(self, limit: int | None) -> None:
        self._limit = math.inf if limit is None else limit
        self._last: dict[str, int] = {}
        self._count = 0

    def has_room(self, processes: Iterable[Process]) -> bool:
        """Return whether another process may start beside these."""
        return sum(one.is_starting for one in processes) < self._limit

    def record(self, pool: str) -> None:
        """Record that a pool has had its turn."""
        self._count += 1
        self._last[pool] = self._count

    def rank(self, pool: str) -> int:
        """Return a number that is smaller the longer ago a pool had its turn."""
        return self._last.get(pool, 0)

    def next(self, slots: Iterable[Slot], processes: Iterable[Process]) -> Slot | None:
        """Return the slot to fill now: of the pool that has waited longest the one that was due first; None if none may start."""
        if not self.has_room(processes):
            return None
        return min(slots, key=lambda slot: (self.rank(slot.pool), slot.start_at), default=None)
