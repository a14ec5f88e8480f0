"""
Whether all calls of a sender are delivered too late: then a clock is wrong, or their queue is behind.

Nothing more can be known, since AMQP has no clock to compare with. Decides when that is worth a warning.
"""

from __future__ import annotations

import threading

WARN_AFTER = 60.0
MAX_SENDERS = 1000


class LateCalls:
    """Counts discarded calls by sender; safe to use from many threads. Times are monotonic."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        # For each sender: how many of its calls were discarded since one last ran, and when to warn next.
        self._discards: dict[str, tuple[int, float]] = {}

    def on_run(self, sender: str) -> None:
        """Note a call that runs: not all calls of this sender are discarded."""
        if self._discards:
            self._discards.pop(sender, None)

    def on_discarded(self, sender: str, now: float) -> int:
        """Note a discarded call; if a warning is due (once per minute), return how many were discarded since one ran, else 0."""
        with self._lock:
            count, warn_at = self._discards.get(sender, (0, now + WARN_AFTER))
            is_due = now >= warn_at
            if count or len(self._discards) < MAX_SENDERS:
                self._discards[sender] = (count + 1, now + WARN_AFTER if is_due else warn_at)
            return count + 1 if is_due else 0
