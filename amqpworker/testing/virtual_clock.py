"""A clock that can be moved forward: it runs as the real one does, and is as far ahead of it as it was moved."""

from __future__ import annotations

import time

from amqpworker.model.clock import Clock


class VirtualClock:
    """The time in inline tests; it never goes backward."""

    def __init__(self) -> None:
        self._ahead = 0.0
        self.clock = Clock(self.now, self.monotonic)
        """This clock, as the parts of a worker take it."""

    def now(self) -> float:
        """Return the time in seconds since the epoch."""
        return time.time() + self._ahead

    def monotonic(self) -> float:
        """Return a time for durations, in seconds, that is moved together with `now`."""
        return time.monotonic() + self._ahead

    def move_to(self, moment: float) -> None:
        """Move it forward to a time (seconds since the epoch), unless that has passed."""
        self._ahead += max(0.0, moment - self.now())
