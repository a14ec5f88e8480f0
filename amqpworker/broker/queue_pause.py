"""
Queues that a consumer holds: for a while it takes nothing from them, and keeps the deliveries that it has.

Decides how: the subscription ends, and its channel stays, so that what runs can be acknowledged. Which queues are held is
`worker.sharing`'s.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from amqpworker.broker.consumer_channel import ConsumerChannel
from amqpworker.log.logger import get_logger

__all__ = ["Holding"]

log = get_logger(__name__)


class Holding:
    """
    Holds and releases queues; all of it in the I/O thread, but for `wanted`, the queues that are to be held.

    `subscribe` makes a new subscription on the channel of a consumer channel, `held` is called once no delivery can arrive any more.
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

    def apply(self, channels: Iterable[ConsumerChannel]) -> None:
        """Hold what is to be held, and release everything else."""
        self._done = self.wanted
        for consumer_channel in channels:
            if consumer_channel.held_since and consumer_channel.queue not in self._done:
                self._release(consumer_channel)
            else:
                self.begin(consumer_channel)

    def begin(self, consumer_channel: ConsumerChannel) -> None:
        """Hold a queue if it is to be held; a subscription that is on its way is held when it is there."""
        tag, channel = consumer_channel.consumer_tag, consumer_channel.channel
        if consumer_channel.queue not in self._done or tag is None or channel is None or not channel.is_open:
            return
        log.debug("queue_held", queue=consumer_channel.queue)
        since = consumer_channel.hold()

        def cancelled() -> None:
            if consumer_channel.held_since == since:
                self._on_held(consumer_channel)

        channel.cancel(tag, cancelled)

    def _release(self, consumer_channel: ConsumerChannel) -> None:
        # If its channel is closed, what has closed it subscribes again.
        if consumer_channel.release():
            log.debug("queue_released", queue=consumer_channel.queue)
            self._subscribe(consumer_channel)
