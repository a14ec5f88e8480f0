"""How many deliveries of this process had which outcome: the listener whose numbers the flight recorder shows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import get_args

from amqpworker.hooks import Settled
from amqpworker.ipc.recorder import Counts
from amqpworker.model.outcome import (
    AlreadyDone,
    Cancelled,
    Dead,
    Deferred,
    Discarded,
    Done,
    Outcome,
    Postpone,
    Republish,
    Requeue,
    Retry,
    Snooze,
)


class OutcomeCounters:
    """Counts deliveries by the kind of their outcome; one thread calls `on_settled`, any other `counts`."""

    def __init__(self) -> None:
        self._number: dict[type, int] = dict.fromkeys(get_args(Outcome), 0)

    def on_settled(self, events: Sequence[Settled]) -> None:
        """Count these deliveries."""
        kinds = [type(event.outcome) for event in events]
        for kind in set(kinds):
            self._number[kind] += kinds.count(kind)

    def counts(self) -> Counts:
        """Return the numbers so far."""
        number = self._number
        return Counts(
            done=number[Done] + number[AlreadyDone] + number[Discarded] + number[Cancelled],
            retried=number[Retry] + number[Snooze] + number[Postpone],
            dead=number[Dead],
            requeued=number[Requeue] + number[Republish] + number[Deferred],
        )
