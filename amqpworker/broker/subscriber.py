"""
How a consumer is asked for on an open channel: its tag, its arguments, and how many deliveries it may have.

Decides the prefetch of each queue, which may change while the queue is consumed. `consumer` decides when to subscribe.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from amqpworker.broker.ack_timeout import ack_timeout_arguments, refuses_ack_timeout
from amqpworker.broker.connection import ChannelError
from amqpworker.broker.consumer_channel import ConsumerChannel
from amqpworker.broker.consumer_check import resubscribes_silently
from amqpworker.broker.labels import ConsumerTags
from amqpworker.broker.pika_connection import PikaConnection, version_of
from amqpworker.settings import Settings


class Subscriber:
    """Asks for the consumers of a process; in its I/O thread, except `set_prefetch`."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._tags = ConsumerTags()
        # Queues that refuse a consumer with an ack timeout.
        self._without_timeout: set[str] = set()
        # As it was set last, for the queues whose prefetch was set.
        self._prefetch: Mapping[str, int] = {}
        self._has_changed = False

    def set_prefetch(self, prefetch: Mapping[str, int]) -> None:
        """Use these numbers, by work queue, in place of those of subscriptions, from the next consumer on; from any thread."""
        self._prefetch = prefetch
        self._has_changed = True

    def take_changed(self) -> bool:
        """Return whether numbers were set since this was called last."""
        if not self._has_changed:
            return False
        # Before the numbers are read: what another thread sets from now on is found the next time.
        self._has_changed = False
        return True

    def prefetch_of(self, channel: ConsumerChannel) -> int:
        """Return the prefetch that the consumer of a channel should have."""
        return self._prefetch.get(channel.work_queue, channel.subscription.prefetch)

    def consume(
        self, channel: ConsumerChannel, connection: PikaConnection, on_consumed: Callable[[str, int], None]
    ) -> None:
        """
        Ask for a consumer on an open channel, also if it has one already; the broker limits each by its own prefetch.

        `on_consumed` is called with the tag and the prefetch of the consumer, unless the channel is lost first.
        """
        opened = channel.channel
        if opened is None:
            return
        tag, prefetch, version = self._tags.make(channel.queue), self.prefetch_of(channel), version_of(connection)
        if channel.has_shared_limit:
            opened.remove_shared_limit()

        def on_answered() -> None:
            if not channel.is_open:
                return
            if resubscribes_silently(version):
                channel.set_shared_limit()
            on_consumed(tag, prefetch)

        arguments = {} if channel.queue in self._without_timeout else ack_timeout_arguments(self._settings, version)
        opened.consume(channel.queue, prefetch, tag, on_answered, arguments)

    def can_do_without(self, queue: str, error: ChannelError) -> bool:
        """Return whether a queue refused its consumer for its ack timeout, for the first time: the next one asks for none."""
        if not refuses_ack_timeout(error) or queue in self._without_timeout:
            return False
        self._without_timeout.add(queue)
        return True
