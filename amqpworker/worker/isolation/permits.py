"""
How many suspects run at once: each needs its own interpreter, and a lost connection must not start one for each thread.

Decides which suspects wait. A suspect that waits is unclaimed: like any other delivery that has not started, it can be requeued.
"""

from __future__ import annotations

import threading
from collections import deque

from amqpworker.model.message import Delivery


class Permits:
    """Permits for `limit` suspects at once; safe to use from many threads."""

    def __init__(self, limit: int) -> None:
        self._free = limit
        self._lock = threading.Lock()
        self._waiting: deque[Delivery] = deque()

    @property
    def waiting(self) -> int:
        """How many suspects wait for a permit."""
        return len(self._waiting)

    def acquire(self, delivery: Delivery) -> bool:
        """Take a permit for a delivery. If there is none, the delivery waits until `release` or `take_waiting` returns it."""
        with self._lock:
            if not self._free:
                self._waiting.append(delivery)
                return False
            self._free -= 1
            return True

    def release(self) -> Delivery | None:
        """Free a permit, and return the delivery that should ask for it next, None if none waits."""
        with self._lock:
            self._free += 1
            while self._waiting:
                delivery = self._waiting.popleft()
                if delivery.channel.is_unclaimed(delivery):
                    return delivery
            return None

    def take_waiting(self) -> list[Delivery]:
        """Return all deliveries that wait, except those that were requeued; each has to ask for a permit again."""
        with self._lock:
            waiting, self._waiting = self._waiting, deque()
        return [one for one in waiting if one.channel.is_unclaimed(one)]
