"""
Whose turn it is to start: an import takes a core, and with more imports than cores at once each takes longer.

Decides how many processes may start at the same time, and that pools take turns. A turn ends when the process is ready, ends,
or is to be killed.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

from amqpworker.supervisor.slots import Process, Slot

__all__ = ["Turns"]


class Turns:
    """The turns of all pools; at most `most` processes start at once, None sets no limit."""

    def __init__(self, most: int | None) -> None:
        self._most = math.inf if most is None else most
        self._last: dict[str, int] = {}
        self._count = 0

    def free(self, processes: Iterable[Process]) -> bool:
        """Return whether one more process may start beside these."""
        return sum(one.starts for one in processes) < self._most

    def take(self, pool: str) -> None:
        """Note that a pool has had its turn."""
        self._count += 1
        self._last[pool] = self._count

    def rank(self, pool: str) -> int:
        """Return a number that is smaller the longer ago a pool had its turn."""
        return self._last.get(pool, 0)

    def next(self, places: Iterable[Slot], processes: Iterable[Process]) -> Slot | None:
        """Return the place to fill now: of the pool that waited longest the one that was due first; None if none may start."""
        if not self.free(processes):
            return None
        return min(places, key=lambda place: (self.rank(place.pool), place.start_at), default=None)
