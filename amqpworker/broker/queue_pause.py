"""
Queues that a consumer holds: for a while it takes nothing from them, and keeps the deliveries that it has.

Decides how: the subscription ends, and its channel stays, so that what runs can be acknowledged. Which queues are held is
`worker.sharing`'s.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

from amqpworker.broker.consumer_channel import ConsumerChannel
from amqpworker.log.logger import get_logger

__all__ = ["Holding"]

log = get_logger(__name__)


class Holding:
    """
    Holds and releases queues; all of it in the I/O thread, but for `wanted`, the queues that are to be held.

    `subscribe` makes a new subscription on the channel of an intake, `held` is called once no delivery can arrive any more.
    """

    def __init__(self, subscribe: Callable[[ConsumerChannel], None], held: Callable[[ConsumerChannel], None]) -> None:
        self.wanted: frozenset[str] = frozenset()
        self._done = self.wanted
        self._subscribe = subscribe
        self._on_held = held

    @property
    def due(self) -> bool:
        """Whether other queues are to be held than before."""
        return self.wanted is not self._done

    def apply(self, intakes: Iterable[ConsumerChannel]) -> None:
        """Hold what is to be held, and release everything else."""
        self._done = self.wanted
        for intake in intakes:
            if intake.held_since and intake.queue not in self._done:
                self._release(intake)
            else:
                self.begin(intake)

    def begin(self, intake: ConsumerChannel) -> None:
        """Hold a queue if it is to be held; a subscription that is on its way is held when it is there."""
        tag, channel = intake.consumer_tag, intake.channel
        if intake.queue not in self._done or tag is None or channel is None or not channel.is_open:
            return
        log.debug("queue_held", queue=intake.queue)
        since = intake.held_since = time.monotonic()
        intake.consumer_tag = None

        def cancelled() -> None:
            if intake.held_since == since:
                self._on_held(intake)

        channel.cancel(tag, cancelled)

    def _release(self, intake: ConsumerChannel) -> None:
        intake.held_since, intake.cancelled = 0.0, False
        # What has closed the channel subscribes again.
        if intake.channel is not None and intake.channel.is_open:
            log.debug("queue_released", queue=intake.queue)
            intake.released = True
            self._subscribe(intake)
