"""
Which queues of a consumer are not consumed for a while: held for other processes, or paused in all of them.

A held queue keeps its channel, so that what runs can be acknowledged. What has not started of it stays, and is requeued if the
queue is paused. As long as it is not known what is paused, no queue is subscribed to.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from amqpworker.broker.consumer_channel import ConsumerChannel, Subscription
from amqpworker.log.logger import get_logger

if TYPE_CHECKING:
    from amqpworker.broker.consumer import Consumer

log = get_logger(__name__)


class QueueHolds:
    """
    The queues to hold and the paused ones: as other threads want it, and as it was applied last in the I/O thread.

    `paused` is None as long as that is not known. A queue is parked if it is not even subscribed to because it is paused.
    """

    def __init__(self, consumer: Consumer, paused: frozenset[str] | None) -> None:
        self._consumer = consumer
        self._wanted_holds = frozenset[str]()
        self._wanted_pauses = paused
        self._applied = frozenset[str](), paused
        self._parked: dict[str, Subscription] = {}

    # ---- from any thread --------------------------------------------------------------------------------------------

    def hold(self, queues: frozenset[str]) -> None:
        """Hold these work queues, and no others."""
        self._wanted_holds = queues

    def pause(self, queues: frozenset[str]) -> None:
        """Pause these work queues, with the queues for their due messages, and no others."""
        self._wanted_pauses = queues

    def is_parked(self, queue: str) -> bool:
        """Return whether a queue is known to be paused, and therefore not subscribed to."""
        return self._applied[1] is not None and queue in self._parked

    # ---- in the I/O thread ------------------------------------------------------------------------------------------

    def apply(self, channels: Mapping[str, ConsumerChannel]) -> None:
        """Let what other threads want count from now on."""
        wanted = self._wanted_holds, self._wanted_pauses
        if wanted == self._applied:
            return
        self._applied = wanted
        for consumer_channel in list(channels.values()):
            if not consumer_channel.held_since or self._includes(consumer_channel.work_queue):
                self.hold_if_wanted(consumer_channel)
                self._requeue_if_paused(consumer_channel)
            elif consumer_channel.release():  # if its channel was closed, another subscription is made anyway
                log.debug("queue_released", queue=consumer_channel.queue)
                self._consumer.subscribe_again(consumer_channel)
        for subscription in self._take_resumed():
            self._consumer.prepare(subscription)
        if wanted[1] is not None:
            for subscription in self._parked.values():
                self._consumer.on_parked(subscription)

    def hold_if_wanted(self, consumer_channel: ConsumerChannel) -> None:
        """
        Hold a queue if wanted; a subscription that is being made is held when it is confirmed.

        The subscription is cancelled, and its channel stays open.
        """
        tag = consumer_channel.lasting_tag
        if not self._includes(consumer_channel.work_queue) or tag is None:
            return
        log.debug("queue_held", queue=consumer_channel.queue)
        since = consumer_channel.hold()

        def on_cancelled() -> None:
            if consumer_channel.held_since == since:
                self._consumer.on_cancel_ok(consumer_channel)
                self._requeue_if_paused(consumer_channel)

        consumer_channel.cancel(tag, on_cancelled)

    def _requeue_if_paused(self, consumer_channel: ConsumerChannel) -> None:
        """Requeue what has not started of a paused queue, once no more of it can arrive."""
        held = consumer_channel.is_cancelled and consumer_channel.held_since
        if held and self.is_paused(consumer_channel.work_queue):
            self._consumer.receiver.on_paused(consumer_channel)

    def _includes(self, queue: str) -> bool:
        return queue in self._applied[0] or self.is_paused(queue)

    def is_paused(self, queue: str) -> bool:
        """Return whether a work queue is paused, or may be."""
        paused = self._applied[1]
        return paused is None or queue in paused

    def park(self, subscription: Subscription) -> bool:
        """Do not subscribe to a queue until it is resumed; return whether it is known to be paused."""
        self._parked[subscription.queue] = subscription
        return self._applied[1] is not None

    def _take_resumed(self) -> list[Subscription]:
        resumed = [one for one in self._parked.values() if not self.is_paused(one.work_queue)]
        for one in resumed:
            del self._parked[one.queue]
        return resumed

    def clear(self) -> None:
        """Park nothing any more: the connection was lost, and another one subscribes anew."""
        self._parked.clear()
