"""
Whether all calls of a sender are delivered too late: then a clock is wrong, or their queue is behind.

Nothing more can be known, since AMQP has no clock to compare with. Decides when that is worth a warning; `outcomes` decides
that a call is discarded.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass

WARN_AFTER = 60.0
MAX_SENDERS = 1000


@dataclass(slots=True)
class Discards:
    """How many calls of a sender were discarded since one last ran, and when to warn next (monotonic)."""

    count: int
    warn_at: float


class LateCalls:
    """Counts discarded calls by sender; safe to use from many threads. Times are monotonic."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._discards: dict[str, Discards] = {}

    def on_run(self, sender: str) -> None:
        """Note a call that runs: not all calls of this sender are discarded."""
        if self._discards:
            self._discards.pop(sender, None)

    def on_discarded(self, sender: str, now: float) -> int:
        """Note a discarded call; if a warning is due (once per minute), return how many were discarded since one ran, else 0."""
        with self._lock:
            found = self._discards.get(sender)
            if found is None:
                if len(self._discards) < MAX_SENDERS:
                    self._discards[sender] = Discards(1, now + WARN_AFTER)
                return 0
            found.count += 1
            if now < found.warn_at:
                return 0
            found.warn_at = now + WARN_AFTER
            return found.count
