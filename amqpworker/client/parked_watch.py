"""
Whether what was published has been parked: the broker confirms it, but no queue has it.

Decides by the number of parked messages before and after, since a confirm does not show which queue took a message. Others may
park messages meanwhile, so it is a reason for a warning, not for an error.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from amqpworker.client.letter_walks import LetterWalks


class ParkedWatch:
    """Made before letters are published; `more` is called after it."""

    def __init__(self, walks: LetterWalks) -> None:
        self._walks = walks
        self._before = walks.parked()

    @property
    def queue(self) -> str:
        """The queue of parked messages."""
        return self._walks.parked_queue

    def more(self, expected: int = 0) -> int:
        """Return how many messages more than the `expected` more, or fewer, are parked now; 0 if a number is not known."""
        after = self._walks.parked()
        return 0 if self._before is None or after is None else max(0, after - self._before - expected)
