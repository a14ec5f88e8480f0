"""
The consuming side of a process: one connection, one channel for each queue.

Decides when to subscribe, and when to subscribe again. When a channel is closed, for any reason, its deliveries become
invalid: the broker requeues them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

from amqpworker.broker.ack_timeout import (
    ack_timeout_arguments,
    ack_timeout_that_closed,
    cancels_after_ack_timeout,
    refuses_ack_timeout,
)
from amqpworker.broker.address import Address
from amqpworker.broker.channel_errors import channel_error
from amqpworker.broker.connection import ChannelError, QueueState
from amqpworker.broker.connection_problem import ConnectionProblem
from amqpworker.broker.consumer_channel import ConsumerChannel, Subscription
from amqpworker.broker.consumer_check import SubscriptionCheck, resubscribes_silently
from amqpworker.broker.declarer import Declarer
from amqpworker.broker.io_thread import IOThread
from amqpworker.broker.labels import ConsumerTags
from amqpworker.broker.pika_channel import PikaChannel
from amqpworker.broker.pika_connection import PikaConnection, version_of
from amqpworker.broker.queue_holds import QueueHolds
from amqpworker.errors import AmqpWorkerError, NotConnected
from amqpworker.lifecycle import backoff
from amqpworker.log.logger import get_logger
from amqpworker.settings import Settings

if TYPE_CHECKING:
    from amqpworker.worker.receiver import DeliveryReceiver

log = get_logger(__name__)

FIRST_PAUSE = 0.5
MAX_PAUSE = 30.0
# The first half of them subscribe again, the others reconnect; after that another process has to take over.
MAX_RECOVERIES = 6
CANCELLED = "the broker ended the subscription: an acknowledgement came too late, or the queue was deleted"


class Consumer:
    """
    Consumes from queues over one connection, and recovers from the loss of a channel or of the connection.

    `paused` are the queues that are paused; with None it subscribes to nothing before `pause` was called.
    """

    def __init__(
        self,
        addresses: Sequence[Address],
        settings: Settings,
        subscriptions: Sequence[Subscription],
        receiver: DeliveryReceiver,
        paused: frozenset[str] | None = frozenset(),
    ) -> None:
        self.subscriptions = subscriptions
        self.receiver = receiver
        self.problem: ConnectionProblem | None = None
        # The errors of the queues that are not consumed.
        self.failures: dict[str, AmqpWorkerError] = {}
        self.ever_consumed = False
        self._settings = settings
        self.keeper = IOThread("consumer", addresses, settings, self, user_reports_errors=True)
        self.keeper.liveness.must_stay = lambda: any(one.has_unsettled for one in list(self._channels.values()))
        self._tags = ConsumerTags()
        self._channels: dict[str, ConsumerChannel] = {}
        # How often in a row each queue had to wait before it was subscribed to again.
        self._pauses: dict[str, int] = {}
        self._connection: PikaConnection | None = None
        self._declarer: Declarer | None = None
        self._draining = False
        # Recoveries of a queue since a check last found its subscription sound.
        self._recoveries: dict[str, int] = {}
        # Queues that refuse a consumer with an ack timeout.
        self._without_timeout: set[str] = set()
        self._gave_up = False
        self._holds = QueueHolds(self, paused)
        self._on_drained: Callable[[], None] = lambda: None

    # ---- from any thread --------------------------------------------------------------------------------------------

    @property
    def connected(self) -> bool:
        """Whether there is a connection now."""
        return self._connection is not None

    @property
    def consuming(self) -> bool:
        """Whether every queue has a consumer that the broker confirmed, is left to other processes for now, or is paused."""
        return all(self._is_served(one.queue) for one in self.subscriptions)

    def _is_served(self, queue: str) -> bool:
        channel = self._channels.get(queue)
        return self._holds.is_parked(queue) or (channel is not None and channel.is_served)

    @property
    def broken(self) -> bool:
        """Whether the I/O thread has ended, or a queue could not be recovered."""
        return self.keeper.has_ended or self._gave_up

    def hold(self, queues: frozenset[str]) -> None:
        """Consume nothing from these queues for a while, and from all others again; deliveries that are here stay."""
        self._holds.hold(queues)
        self.keeper.wake()

    def pause(self, queues: frozenset[str]) -> None:
        """Consume from all queues except these, and requeue what has not started of them; what runs continues."""
        self._holds.pause(queues)
        self.keeper.wake()

    def drain(self, on_drained: Callable[[], None]) -> None:
        """Stop consuming; the I/O thread calls `on_drained` once no delivery can arrive any more."""
        self._on_drained = on_drained
        self._draining = True
        self.keeper.wake()

    # ---- in the I/O thread ------------------------------------------------------------------------------------------

    def on_opened(self, connection: PikaConnection) -> None:
        """Subscribe to every queue."""
        self._connection = connection
        self.problem = None
        self._declarer = Declarer(connection, self.keeper)
        self._pauses.clear()
        self.failures.clear()
        SubscriptionCheck(connection, self).start()
        for subscription in self.subscriptions:
            self.prepare(subscription)

    def prepare(self, subscription: Subscription) -> None:
        """Make sure that what a subscription requires exists, then subscribe."""
        declarer = self._declarer
        if declarer is None or self._draining:
            return
        missing = [one for one in subscription.requirements if one not in declarer.declared]

        def on_declared(error: AmqpWorkerError | None) -> None:
            if declarer is not self._declarer:
                return
            if error is None:
                self.prepare(subscription)
            else:
                self._retry_later(subscription, error)

        if missing:
            declarer.ensure(missing[0], on_declared)
        elif self._holds.is_paused(subscription.queue):
            if self._holds.park(subscription):
                self.ever_consumed = True
                self.failures.pop(subscription.queue, None)
        else:
            self._subscribe(subscription)

    def _subscribe(self, subscription: Subscription) -> None:
        connection = self._connection
        if connection is None or not connection.is_open:
            return
        consumer_channel = ConsumerChannel(subscription, self.receiver, self.keeper.start_ticking)
        self._expect_answer(consumer_channel)
        self._channels[subscription.queue] = consumer_channel
        self.receiver.on_channel_opening(consumer_channel)

        def on_opened(channel: PikaChannel) -> None:
            consumer_channel.on_opened(channel)
            if self._draining or not consumer_channel.is_open:
                self._invalidate(consumer_channel)
                channel.close()
                self._check_drained()
                return
            channel.on_cancel(lambda: self._on_cancelled(consumer_channel))
            self._consume(consumer_channel, connection, channel)

        connection.open_channel(
            consumer_channel, on_opened, lambda error: self._on_channel_closed(consumer_channel, error)
        )

    def _consume(self, consumer_channel: ConsumerChannel, connection: PikaConnection, channel: PikaChannel) -> None:
        subscription = consumer_channel.subscription
        tag = self._tags.make(subscription.queue)

        def on_consumed() -> None:
            if consumer_channel.is_open:
                self._on_consumed(consumer_channel, connection, tag)

        channel.consume(subscription.queue, subscription.prefetch, tag, on_consumed, self._arguments(subscription))

    def _on_consumed(self, consumer_channel: ConsumerChannel, connection: PikaConnection, tag: str) -> None:
        was_held = consumer_channel.on_subscribed(tag)
        self.ever_consumed = True
        self.failures.pop(consumer_channel.queue, None)
        self._pauses.pop(consumer_channel.queue, None)
        if not was_held:
            log.info("queue_consuming", queue=consumer_channel.queue, prefetch=consumer_channel.subscription.prefetch)
        if consumer_channel.channel is not None and resubscribes_silently(version_of(connection)):
            consumer_channel.channel.limit_all()
        if self._draining:
            self._cancel_all()
        else:
            self._holds.hold_if_wanted(consumer_channel)

    def _expect_answer(self, consumer_channel: ConsumerChannel) -> None:
        liveness = self.keeper.liveness
        consumer_channel.on_subscribing(
            liveness.expect_answer(lambda may_leave: self._on_late(consumer_channel, may_leave))
        )

    def _on_late(self, consumer_channel: ConsumerChannel, may_leave: bool) -> None:
        """Give up a subscription that is not answered: try the next address, or another channel of this connection."""
        request = f"a subscription to queue {consumer_channel.queue!r}"
        if may_leave:
            self.keeper.liveness.leave(request)
            return
        self._invalidate(consumer_channel)
        if consumer_channel.channel is not None:
            consumer_channel.channel.close()
        self._check_drained()
        self._retry_later(
            consumer_channel.subscription,
            NotConnected(f"The broker did not answer the request for {request} in time."),
        )

    def _arguments(self, subscription: Subscription) -> dict[str, int]:
        if self._connection is None or subscription.queue in self._without_timeout:
            return {}
        return ack_timeout_arguments(self._settings, version_of(self._connection))

    # ---- checks, and what ends a subscription -----------------------------------------------------------------------

    def subscribed(self) -> list[str]:
        """Return the queues that have a consumer as far as we know; none while draining."""
        return [] if self._draining else [queue for queue, one in list(self._channels.items()) if one.is_subscribed]

    def on_checked(self, queue: str, state: QueueState) -> None:
        """Recover a subscription that the broker does not have, or that delivers nothing."""
        consumer_channel = self._channels.get(queue)
        if consumer_channel is None or not consumer_channel.consumer_tag or self._draining or self._connection is None:
            return
        connection, channel = self._connection, consumer_channel.channel
        arrives = channel is not None and connection.decoder.has_partial_on(channel.number)
        problem = consumer_channel.check(state, arrives, connection.decoder.has_partial)
        if problem:
            self._recover(consumer_channel, problem)
        elif consumer_channel.is_sound:
            self._recoveries.pop(queue, None)

    def _recover(self, consumer_channel: ConsumerChannel, problem: str) -> None:
        """Subscribe again; if that has not helped, reconnect; if that has not helped, leave it to another process."""
        tries = self._recoveries[consumer_channel.queue] = self._recoveries.get(consumer_channel.queue, 0) + 1
        log.warning("consumer_lost", queue=consumer_channel.queue, reason=problem, tries=tries)
        if tries > MAX_RECOVERIES:
            self._gave_up = True
        if tries > MAX_RECOVERIES // 2:
            self.keeper.drop("a subscription delivers nothing")
            return
        self._resubscribe(consumer_channel)

    def _on_cancelled(self, consumer_channel: ConsumerChannel) -> None:
        """
        Subscribe again: the broker ended the subscription, since the queue was deleted or an ack was too late.

        https://www.rabbitmq.com/docs/consumer-cancel
        """
        log.warning("consumer_cancelled", queue=consumer_channel.queue, effect="subscribing again")
        if self._connection is not None and cancels_after_ack_timeout(version_of(self._connection)):
            self.receiver.on_ack_timeout(consumer_channel, self._settings.ack_timeout, CANCELLED)
        self._resubscribe(consumer_channel)

    def _resubscribe(self, consumer_channel: ConsumerChannel) -> None:
        """Replace a subscription that has ended, and declare again what it requires."""
        self._invalidate(consumer_channel)
        if self._declarer is not None:
            self._declarer.forget()
        if consumer_channel.channel is not None:
            consumer_channel.channel.close()
        self._subscribe_after_pause(consumer_channel.subscription)

    def _on_channel_closed(self, consumer_channel: ConsumerChannel, error: ChannelError) -> None:
        was_open = consumer_channel.is_open
        if was_open and (timeout := ack_timeout_that_closed(error, self._settings.ack_timeout)) is not None:
            self.receiver.on_ack_timeout(consumer_channel, timeout, str(error))
        self._invalidate(consumer_channel)
        connected = self._connection is not None and self._connection.is_open
        if refuses_ack_timeout(error) and consumer_channel.queue not in self._without_timeout:
            self._without_timeout.add(consumer_channel.queue)
            self._subscribe(consumer_channel.subscription)
        elif was_open and connected and not self._draining:
            if self._declarer is not None:
                self._declarer.forget()
            self._retry_later(
                consumer_channel.subscription,
                channel_error(error, f"consuming from queue {consumer_channel.queue!r}", "read"),
            )
        self._check_drained()

    def _invalidate(self, consumer_channel: ConsumerChannel) -> None:
        """Invalidate the deliveries of a channel that is closed: they are redelivered."""
        if consumer_channel.invalidate():
            self.receiver.on_channel_lost(consumer_channel)

    def _retry_later(self, subscription: Subscription, error: AmqpWorkerError) -> None:
        self.failures[subscription.queue] = error
        log.warning("queue_not_consumed", queue=subscription.queue, reason=str(error))
        self._subscribe_after_pause(subscription)

    def _subscribe_after_pause(self, subscription: Subscription) -> None:
        """Subscribe again after a pause, which doubles each time."""
        pauses = self._pauses[subscription.queue] = self._pauses.get(subscription.queue, 0) + 1
        connection = self._connection

        def on_pause_over() -> None:
            if self._connection is connection:
                self.prepare(subscription)

        self.keeper.call_later(backoff(FIRST_PAUSE, MAX_PAUSE, pauses), on_pause_over)

    def on_lost(self, problem: ConnectionProblem) -> None:
        """Invalidate every delivery: the connection was lost."""
        self.problem = problem
        self._connection = None
        self._declarer = None
        for consumer_channel in self._channels.values():
            self._invalidate(consumer_channel)
        self._channels.clear()
        self._holds.clear()
        self._check_drained()

    def on_wake(self) -> None:
        """Drain or hold queues if asked to, and settle what waits."""
        if self._draining:
            self._cancel_all()
        else:
            self._holds.apply(list(self._channels.values()))
        self.receiver.on_wake()

    def on_tick(self) -> bool:
        """Let the receiver check its deadlines; without a connection, only this ends a drain."""
        if self._draining and self._connection is None:
            self._check_drained()
        return self.receiver.on_tick()

    def subscribe_again(self, consumer_channel: ConsumerChannel) -> None:
        """Subscribe to a queue that was held, on the same channel."""
        connection, channel = self._connection, consumer_channel.channel
        if connection is None or channel is None:
            return
        self._expect_answer(consumer_channel)
        if resubscribes_silently(version_of(connection)):
            channel.limit_none()
        self._consume(consumer_channel, connection, channel)

    def _cancel_all(self) -> None:
        """Cancel each subscription once; one that is being made is cancelled when it is confirmed."""
        for consumer_channel in list(self._channels.values()):
            tag = consumer_channel.take_consumer_tag()
            if tag is not None and consumer_channel.channel is not None and consumer_channel.channel.is_open:
                consumer_channel.channel.cancel(tag, partial(self.on_cancel_ok, consumer_channel))
        self._check_drained()

    def on_cancel_ok(self, consumer_channel: ConsumerChannel) -> None:
        """Note that a subscription has ended at our request."""
        consumer_channel.on_cancelled()
        self._check_drained()

    def _check_drained(self) -> None:
        """Call `on_drained` once no channel is left on which deliveries may arrive."""
        if self._draining and all(one.is_cancelled or not one.is_open for one in self._channels.values()):
            # Unclaimed deliveries are requeued first: from now on everything unsettled is running.
            self.receiver.on_wake()
            on_drained, self._on_drained = self._on_drained, lambda: None
            on_drained()
