"""The numbers of a connection's channels."""

from __future__ import annotations

from amqpworker.broker.connection import NoChannelLeft

MAX_CHANNELS = 65_535


class ChannelNumbers:
    """
    Gives each channel of one connection a number, each time the next one.

    The lowest that is free may be that of a channel which was closed just now, and whose last frames are still on their way.
    """

    def __init__(self) -> None:
        self._in_use: set[int] = set()
        self._last = 0

    def take(self, limit: int) -> int:
        """Return a number up to `limit` (0: no limit of the broker) for another channel; raises NoChannelLeft if all are in use."""
        limit = limit or MAX_CHANNELS
        for _ in range(limit):
            self._last = self._last + 1 if self._last < limit else 1
            if self._last not in self._in_use:
                self._in_use.add(self._last)
                return self._last
        raise NoChannelLeft(limit)

    def release(self, number: int) -> None:
        """Free the number of a channel that is closed."""
        self._in_use.discard(number)
