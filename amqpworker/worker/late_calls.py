"""
Whether all calls of a sender come too late: then a clock is off, or their queue is behind.

Nothing more can be known, since AMQP tells no time. Decides when that is worth a warning. Dropping calls is `executor`'s.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass

__all__ = ["LateCalls"]

WARN_AFTER = 60.0
MOST_SENDERS = 1000


@dataclass(slots=True)
class LateCall:
    """The calls of a sender that were dropped since one of them last ran, and when that is said next (monotonic)."""

    count: int
    warn_at: float


class LateCalls:
    """Counts dropped calls by sender; safe to use from many threads. Times are monotonic."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._dropped: dict[str, LateCall] = {}

    def note_run(self, sender: str) -> None:
        """Note a call that runs: not all calls of this sender are dropped."""
        if self._dropped:
            self._dropped.pop(sender, None)

    def note_dropped(self, sender: str, now: float) -> int:
        """Note a dropped call; return how many were dropped and none run, if a warning is due: once per minute. Else 0."""
        with self._lock:
            found = self._dropped.get(sender)
            if found is None:
                if len(self._dropped) < MOST_SENDERS:
                    self._dropped[sender] = LateCall(1, now + WARN_AFTER)
                return 0
            found.count += 1
            if now < found.warn_at:
                return 0
            found.warn_at = now + WARN_AFTER
            return found.count
