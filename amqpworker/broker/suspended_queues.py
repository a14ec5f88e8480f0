"""
Which queues of a consumer are not consumed for now: left to other processes, or paused in all of them; or none is consumed.

A suspended queue keeps its channel, so that what runs can be acknowledged. What has not started of it stays, and is requeued if
the queue is paused. As long as it is not known what is paused, no queue is subscribed to.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from amqpworker.broker.consumer_channel import ConsumerChannel, Subscription
from amqpworker.log.logger import get_logger

if TYPE_CHECKING:
    from amqpworker.broker.consumer import Consumer

log = get_logger(__name__)


class SuspendedQueues:
    """
    The queues left to other processes and the paused ones: as other threads want it, and as it was applied in the I/O thread.

    `paused` is None as long as that is not known. A subscription is postponed if its queue is paused before it was made.
    """

    def __init__(self, consumer: Consumer, paused: frozenset[str] | None) -> None:
        self._consumer = consumer
        self._wanted_left = frozenset[str]()
        self._wanted_paused = paused
        self._wanted_stopped = self._stopped = False
        self._left = frozenset[str]()
        self._paused = paused
        self._postponed: dict[str, Subscription] = {}

    # ---- from any thread --------------------------------------------------------------------------------------------

    def leave_to_others(self, queues: frozenset[str]) -> None:
        """Leave these work queues to other processes, and no others."""
        self._wanted_left = queues

    def pause(self, queues: frozenset[str]) -> None:
        """Pause these work queues, with the queues for their due messages, and no others."""
        self._wanted_paused = queues

    def stop_all(self, is_stopped: bool) -> None:
        """Consume nothing, or what is not suspended for another reason."""
        self._wanted_stopped = is_stopped

    def is_postponed(self, queue: str) -> bool:
        """Return whether a queue is known to be paused, and therefore not subscribed to."""
        return self._paused is not None and queue in self._postponed

    # ---- in the I/O thread ------------------------------------------------------------------------------------------

    def apply(self, channels: Mapping[str, ConsumerChannel]) -> None:
        """Let what other threads want count from now on."""
        left, paused, stopped = self._wanted_left, self._wanted_paused, self._wanted_stopped
        if left == self._left and paused == self._paused and stopped == self._stopped:
            return
        self._left, self._paused, self._stopped = left, paused, stopped
        for consumer_channel in list(channels.values()):
            if not consumer_channel.suspended_since or self._is_suspended(consumer_channel.work_queue):
                self.suspend_if_wanted(consumer_channel)
                self._requeue_if_paused(consumer_channel)
            elif consumer_channel.resume():  # if its channel was closed, another subscription is made anyway
                log.debug("queue_resumed", queue=consumer_channel.queue)
                self._consumer.subscribe_again(consumer_channel)
        for subscription in self._take_resumed():
            self._consumer.prepare(subscription)
        if paused is not None:
            for subscription in self._postponed.values():
                self._consumer.on_postponed(subscription)

    def suspend_if_wanted(self, consumer_channel: ConsumerChannel) -> None:
        """
        Suspend a queue if wanted; a subscription that is being made is suspended when it is confirmed.

        The subscription is cancelled, and its channel stays open.
        """
        tag = consumer_channel.lasting_tag
        if not self._is_suspended(consumer_channel.work_queue) or tag is None:
            return
        log.debug("queue_suspended", queue=consumer_channel.queue)
        since = consumer_channel.suspend()

        def on_cancelled() -> None:
            if consumer_channel.suspended_since == since:
                self._consumer.on_cancel_ok(consumer_channel)
                self._requeue_if_paused(consumer_channel)

        consumer_channel.cancel(tag, on_cancelled)

    def _requeue_if_paused(self, consumer_channel: ConsumerChannel) -> None:
        """Requeue what has not started of a paused queue, once no more of it can arrive."""
        suspended = consumer_channel.is_cancelled and consumer_channel.suspended_since
        if suspended and self.is_paused(consumer_channel.work_queue):
            self._consumer.receiver.on_paused(consumer_channel)

    def _is_suspended(self, work_queue: str) -> bool:
        return work_queue in self._left or self.is_paused(work_queue)

    def is_paused(self, work_queue: str) -> bool:
        """Return whether a work queue is paused, or may be; each one is if nothing is to be consumed."""
        return self._paused is None or self._stopped or work_queue in self._paused

    def postpone(self, subscription: Subscription) -> bool:
        """Do not subscribe to a queue until it is resumed; return whether it is known to be paused."""
        self._postponed[subscription.queue] = subscription
        return self._paused is not None

    def _take_resumed(self) -> list[Subscription]:
        resumed = [one for one in self._postponed.values() if not self.is_paused(one.work_queue)]
        for one in resumed:
            del self._postponed[one.queue]
        return resumed

    def clear(self) -> None:
        """Forget postponed subscriptions: the connection was lost, and on another one all are made anew."""
        self._postponed.clear()
