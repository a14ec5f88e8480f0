"""
Which acknowledgements to send for settled deliveries: as few as possible, never a wrong one.

It does no I/O. Decides between one acknowledgement for many deliveries and one for each, by the rules of AMQP 0-9-1: `multiple`
covers every unsettled tag up to the one it names, and naming a tag that is not unsettled closes the channel.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple


class Ack(NamedTuple):
    """One `basic.ack`."""

    tag: int
    multiple: bool


class AckTracker:
    """
    The deliveries of one channel, by tag: 1, 2, 3 … as the broker counts them.

    Everything below `_lowest` is settled, and the broker knows that; `_ahead` has the settled tags behind an unfinished
    one, which the broker knows, too.
    """

    __slots__ = ("_ahead", "_lowest")

    def __init__(self) -> None:
        self._lowest = 1
        self._ahead: set[int] = set()

    def settle(self, tags: Iterable[int]) -> list[Ack]:
        """
        Return the acknowledgements to send for deliveries that were settled since the last call.

        The settled prefix goes in one acknowledgement that names its highest tag of this call; what is settled behind
        an unfinished delivery goes singly, at once: a long task does not hold back the others. What the broker knows
        already is not sent again, since the broker would close the channel.
        """
        ahead = self._ahead
        fresh = set(tags).difference(ahead)
        lowest = self._lowest
        highest = 0
        while True:
            if lowest in fresh:
                fresh.remove(lowest)
                highest = lowest
            elif lowest in ahead:
                ahead.remove(lowest)
            else:
                break
            lowest += 1
        covered = self._lowest
        self._lowest = lowest
        singly = sorted(tag for tag in fresh if tag > lowest)
        ahead.update(singly)
        acks = [Ack(tag, False) for tag in singly]
        if highest:
            acks.insert(0, Ack(highest, highest > covered))
        return acks

    def covers(self, tag: int) -> bool:
        """Return whether every delivery up to this one is settled."""
        return tag < self._lowest

    def note_requeued(self, tag: int) -> bool:
        """Note a delivery that is requeued: it needs no acknowledgement then; false if it was settled before."""
        if tag < self._lowest or tag in self._ahead:
            return False
        self._ahead.add(tag)
        while self._lowest in self._ahead:
            self._ahead.remove(self._lowest)
            self._lowest += 1
        return True
