"""
Which messages are cancelled, as far as this worker process knows.

Decides by what the stream of cancels has; `stored_checks` also asks the result store. `cancelled_runs` acts on tasks that run.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from amqpworker.log.logger import get_logger
from amqpworker.model.cancel import Cancel, merged
from amqpworker.model.message import Delivery
from amqpworker.model.outcome import Outcome
from amqpworker.worker import outcomes

log = get_logger(__name__)

FIRST_PRUNING = 1024
CHECKING_THREADS = 4
REPEAT_LOG_AFTER = 60.0


class Cancels:
    """The cancels that hold. One thread calls `add`; the rest is safe to use from many."""

    def __init__(self, now: Callable[[], float] = time.time) -> None:
        self._now = now
        self._cancels: dict[str, Cancel] = {}
        self._prune_above = FIRST_PRUNING

    def __len__(self) -> int:
        return len(self._cancels)

    def add(self, cancel: Cancel) -> None:
        """Note a cancel, unless it no longer holds; any number of times."""
        now = int(self._now() * 1000)
        if cancel.until <= now:
            return
        known = self._cancels.get(cancel.id)
        self._cancels[cancel.id] = cancel if known is None else merged(known, cancel)
        if len(self._cancels) > self._prune_above:
            for one in [one.id for one in self._cancels.values() if one.until <= now]:
                del self._cancels[one]
            self._prune_above = max(FIRST_PRUNING, 2 * len(self._cancels))

    def gate(self, delivery: Delivery, known: Mapping[str, int]) -> Outcome | None:
        """Return the outcome of a message that is cancelled, else None; `known` are our parsed headers."""
        cancels = self._cancels
        if not cancels:
            return None
        cancel = cancels.get(delivery.properties.message_id or "")
        if cancel is None or not cancel.counts_for(known, int(self._now() * 1000)):
            return None
        return outcomes.CANCELLED

    def is_cancelled(self, delivery: Delivery) -> bool:
        """Return whether the message of a run is cancelled."""
        cancel = self._cancels.get(delivery.properties.message_id or "")
        return cancel is not None and cancel.covers(delivery, int(self._now() * 1000))
