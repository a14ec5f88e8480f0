"""
Whether a broker is silent.

Decides, by the bytes that come, when it is asked whether it is still there, and when its connection is given up. Any
byte that comes is a sign of life, and so is one that the other side takes of what was written before the question.
Decides also how long an answer is waited for on a connection that lives.
"""

from __future__ import annotations

from enum import Enum, auto

__all__ = ["LOOK_EVERY", "Patience", "Silence", "Step"]

LOOK_EVERY = 0.5
# With what a check of the subscriptions adds (`consumer_check`), and one look, both kinds of connections are left within 8 s.
ASK_AFTER = 4.5
GIVE_UP_AFTER = 7.0
# A process that stood still for longer between two looks has not listened: that time is not the broker's.
LONGEST_STEP = 2 * LOOK_EVERY

FIRST_PATIENCE = 4.0
MOST_PATIENCE = 16.0
# A connection that was kept for so long has answered whatever it was asked at its beginning.
KEPT = 60.0


class Step(Enum):
    """What is to be done after a look."""

    NOTHING = auto()
    ASK = auto()
    GIVE_UP = auto()


class Silence:
    """The silence of one connection while something is expected; `lasted` is how long there may have been one already."""

    def __init__(self, now: float, received: int, lasted: float = 0.0) -> None:
        self.lasted = lasted
        self._looked_at = now
        self._received = received
        self._taken = 0
        self._asked_at: int | None = None

    def look(self, now: float, received: int, written: int, unsent: int) -> Step:
        """Look at the counts of bytes that were received and written, and at those that the other side has not taken."""
        step = min(now - self._looked_at, LONGEST_STEP)
        self._looked_at = now
        taken, before = written - unsent, self._taken
        self._taken = taken
        if received != self._received:
            self._received = received
            self.lasted = 0.0
            self._asked_at = None
            return Step.NOTHING
        if self._asked_at is not None and before < taken < self._asked_at:
            return Step.NOTHING  # the question is still on its way, behind what was written before it
        self.lasted += step
        if self._asked_at is None and self.lasted >= ASK_AFTER:
            self._asked_at = written
            return Step.ASK
        return Step.GIVE_UP if self._asked_at is not None and self.lasted >= GIVE_UP_AFTER else Step.NOTHING


class Patience:
    """How long an answer is waited for: twice as long in each round of the addresses that were left for want of one."""

    def __init__(self, addresses: int) -> None:
        self._addresses = addresses
        self._left = 0
        self._opened_at = 0.0

    def opened(self, now: float) -> None:
        """Take that a connection is open."""
        self._opened_at = now

    def seconds(self, now: float) -> float:
        """Return the patience for a question that is asked now."""
        if now > self._opened_at + KEPT:
            self._left = 0
        doubled: int = 1 << min(self._left // self._addresses, 8)
        return min(FIRST_PATIENCE * doubled, MOST_PATIENCE)

    def exhausted(self) -> None:
        """Take that a connection is left because an answer did not come."""
        self._left += 1
