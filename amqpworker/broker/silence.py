"""
Whether a broker is silent, and how long to wait for an answer on a live connection.

Decides, by the bytes that arrive, when to probe it and when to give up its connection. Any byte that arrives is a sign of
life, and so is any byte that the other side receives of what was written before the probe.
"""

from __future__ import annotations

from enum import Enum, auto

from amqpworker.lifecycle import backoff

CHECK_EVERY = 0.5
# With the period of `consumer_check` and one check here, both kinds of connections are left within 8 s.
PROBE_AFTER = 4.5
GIVE_UP_AFTER = 7.0
# A process that was stopped for longer between two checks has read nothing: that time does not count.
MAX_STEP = 2 * CHECK_EVERY

FIRST_ANSWER_TIMEOUT = 4.0
MAX_ANSWER_TIMEOUT = 16.0
# A connection that is this old has answered all requests of its beginning.
STABLE_AFTER = 60.0


class Step(Enum):
    """What to do after a check."""

    NOTHING = auto()
    PROBE = auto()
    GIVE_UP = auto()


class Silence:
    """The silence of a connection while something is expected; `lasted` is how long it may have been silent already."""

    def __init__(self, now: float, received: int, lasted: float = 0.0) -> None:
        self.lasted = lasted
        self._checked_at = now
        self._received = received
        self._sent = 0
        self._probed_at: int | None = None

    def check(self, now: float, received: int, written: int, unsent: int) -> Step:
        """Check the counts of bytes received and written, and of those that the other side has not received."""
        step = min(now - self._checked_at, MAX_STEP)
        self._checked_at = now
        sent, before = written - unsent, self._sent
        self._sent = sent
        if received != self._received:
            self._received = received
            self.lasted = 0.0
            self._probed_at = None
            return Step.NOTHING
        if self._probed_at is not None and before < sent < self._probed_at:
            return Step.NOTHING  # the probe is still on its way, behind what was written before it
        self.lasted += step
        if self._probed_at is None and self.lasted >= PROBE_AFTER:
            self._probed_at = written
            return Step.PROBE
        return Step.GIVE_UP if self._probed_at is not None and self.lasted >= GIVE_UP_AFTER else Step.NOTHING


class AnswerTimeout:
    """How long to wait for an answer: twice as long after each round of addresses that were left without one."""

    def __init__(self, addresses: int) -> None:
        self._addresses = addresses
        self._left = 0
        self._opened_at = 0.0

    def on_opened(self, now: float) -> None:
        """A connection is open."""
        self._opened_at = now

    def seconds(self, now: float) -> float:
        """Return how long to wait for an answer to a request that is sent now."""
        if now > self._opened_at + STABLE_AFTER:
            self._left = 0
        return backoff(FIRST_ANSWER_TIMEOUT, MAX_ANSWER_TIMEOUT, 1 + self._left // self._addresses)

    def on_left(self) -> None:
        """A connection was left because an answer did not arrive."""
        self._left += 1
