"""
Queues that a consumer holds: for a while it consumes nothing from them, and keeps the deliveries that it has.

Decides how: the subscription is cancelled and its channel stays open, so that what runs can be acknowledged.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from amqpworker.broker.consumer_channel import ConsumerChannel
from amqpworker.log.logger import get_logger

log = get_logger(__name__)


class QueuePause:
    """
    Holds and releases queues; for the I/O thread, except for `wanted`, the queues to hold.

    `subscribe` makes a new subscription on an open consumer channel; `on_held` is called once no delivery can arrive any more.
    """

    def __init__(
        self, subscribe: Callable[[ConsumerChannel], None], on_held: Callable[[ConsumerChannel], None]
    ) -> None:
        self.wanted: frozenset[str] = frozenset()
        self._applied = self.wanted
        self._subscribe = subscribe
        self._on_held = on_held

    @property
    def is_due(self) -> bool:
        """Whether `wanted` has changed."""
        return self.wanted is not self._applied

    def apply(self, channels: Iterable[ConsumerChannel]) -> None:
        """Hold what is wanted, and release everything else."""
        self._applied = self.wanted
        for consumer_channel in channels:
            if consumer_channel.held_since and consumer_channel.queue not in self._applied:
                self._release(consumer_channel)
            else:
                self.hold_if_wanted(consumer_channel)

    def hold_if_wanted(self, consumer_channel: ConsumerChannel) -> None:
        """Hold a queue if wanted; a subscription that is being made is held when it is confirmed."""
        tag, channel = consumer_channel.consumer_tag, consumer_channel.channel
        if consumer_channel.queue not in self._applied or tag is None or channel is None or not channel.is_open:
            return
        log.debug("queue_held", queue=consumer_channel.queue)
        since = consumer_channel.hold()

        def on_cancelled() -> None:
            if consumer_channel.held_since == since:
                self._on_held(consumer_channel)

        channel.cancel(tag, on_cancelled)

    def _release(self, consumer_channel: ConsumerChannel) -> None:
        # If its channel was closed, the consumer subscribes again anyway.
        if consumer_channel.release():
            log.debug("queue_released", queue=consumer_channel.queue)
            self._subscribe(consumer_channel)
