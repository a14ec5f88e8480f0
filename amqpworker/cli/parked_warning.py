"""
The warning that what a command published may be parked; `client.parked_watch` counts.

Decides what it advises.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from amqpworker.cli.dead_listing import counted
from amqpworker.log.terminal import print_error

if TYPE_CHECKING:
    from amqpworker.client.parked_watch import ParkedWatch


def warn_if_parked(watch: ParkedWatch, expected: int = 0) -> None:
    """Warn if more messages were parked meanwhile than the `expected` more, or fewer."""
    if more := watch.more(expected):
        print_error(
            f"Warning: {counted(more, 'message')} more in {watch.queue!r} than expected: perhaps no binding leads to their queue. "
            f"`amqpworker topology declare` creates that of an app's queue; `amqpworker dead replay --parked` then runs them, "
            f"with --to in another queue."
        )
