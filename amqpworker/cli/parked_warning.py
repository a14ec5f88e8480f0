"""
The warning that what was published may be parked: the broker confirms it, but no queue has it.

Decides by the number of parked messages before and after, since a confirm does not show which queue took a message.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from amqpworker.cli.dead_listing import counted
from amqpworker.log.terminal import print_error

if TYPE_CHECKING:
    from amqpworker.client.letter_walks import LetterWalks


class ParkedWatch:
    """Made before letters are published; `warn` is called after it."""

    def __init__(self, walks: LetterWalks) -> None:
        self._walks = walks
        self._before = walks.parked()

    def warn(self, expected: int = 0) -> None:
        """Warn if there are more parked messages than the `expected` more, or fewer; never if a number is not known."""
        after = self._walks.parked()
        if self._before is None or after is None or (more := after - self._before - expected) <= 0:
            return
        queue = self._walks.parked_queue
        print_error(
            f"Warning: {counted(more, 'message')} more in {queue!r} than expected: perhaps no binding leads to their queue. "
            f"`amqpworker topology declare` creates that of an app's queue; `amqpworker dead replay --parked` then runs them, "
            f"with --to in another queue."
        )
