"""
The consuming side of a process: one connection, one channel for each queue.

Decides when to subscribe, and when to subscribe again. When a channel is closed, for any reason, its deliveries become
invalid: the broker requeues them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

from amqpworker.broker.ack_timeout import ack_timeout_that_closed, cancels_after_ack_timeout
from amqpworker.broker.address import Address
from amqpworker.broker.channel_errors import channel_error
from amqpworker.broker.connection import ChannelError, QueueState
from amqpworker.broker.connection_problem import ConnectionProblem
from amqpworker.broker.consumer_channel import ConsumerChannel, Subscription
from amqpworker.broker.consumer_check import SubscriptionCheck
from amqpworker.broker.io_thread import IOThread
from amqpworker.broker.pika_channel import PikaChannel
from amqpworker.broker.pika_connection import PikaConnection, version_of
from amqpworker.broker.preparation import Preparation
from amqpworker.broker.subscriber import Subscriber
from amqpworker.broker.suspended_queues import SuspendedQueues
from amqpworker.errors import AmqpWorkerError, NotConnected
from amqpworker.log.logger import get_logger
from amqpworker.settings import Settings

if TYPE_CHECKING:
    from amqpworker.worker.receiver import DeliveryReceiver

log = get_logger(__name__)

# The first half of them subscribe again, the others reconnect; after that another process has to take over.
MAX_RECOVERIES = 6
# Acknowledgements wait for as long at most while a consumer is replaced.
LONGEST_WITHHELD = 1.0
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
        self.ever_consumed = False
        self._settings = settings
        self.keeper = IOThread("consumer", addresses, settings, self, user_reports_errors=True)
        self.keeper.liveness.must_stay = lambda: any(one.has_unsettled for one in list(self._channels.values()))
        self._preparation = Preparation(self.keeper, self._on_prepared)
        self._subscriber = Subscriber(settings)
        self._channels: dict[str, ConsumerChannel] = {}
        self._connection: PikaConnection | None = None
        self._draining = False
        # Recoveries of a queue since a check last found its subscription sound.
        self._recoveries: dict[str, int] = {}
        self._gave_up = False
        self._suspended = SuspendedQueues(self, paused)
        self._on_drained: Callable[[], None] = lambda: None

    # ---- from any thread --------------------------------------------------------------------------------------------

    @property
    def connected(self) -> bool:
        """Whether there is a connection now."""
        return self._connection is not None

    @property
    def failures(self) -> dict[str, AmqpWorkerError]:
        """The errors of the queues that are not consumed."""
        return self._preparation.failures

    @property
    def consuming(self) -> bool:
        """Whether every queue has a consumer that the broker confirmed, is left to other processes for now, or is paused."""
        return all(self._is_served(one.queue) for one in self.subscriptions)

    def _is_served(self, queue: str) -> bool:
        channel = self._channels.get(queue)
        return self._suspended.is_postponed(queue) or (channel is not None and channel.is_served)

    @property
    def broken(self) -> bool:
        """Whether the I/O thread has ended, or a queue could not be recovered."""
        return self.keeper.has_ended or self._gave_up

    def leave_to_others(self, queues: frozenset[str]) -> None:
        """Leave these work queues to other processes, and consume from all others again; deliveries that are here stay."""
        self._suspended.leave_to_others(queues)
        self.keeper.wake()

    def pause(self, queues: frozenset[str]) -> None:
        """Consume from all work queues except these, and requeue what has not started of them; what runs continues."""
        self._suspended.pause(queues)
        self.keeper.wake()

    def stop_all(self, is_stopped: bool) -> None:
        """Consume nothing and requeue what has not started, or consume again what is not paused; what runs continues."""
        self._suspended.stop_all(is_stopped)
        self.keeper.wake()

    def set_prefetch(self, prefetch: Mapping[str, int]) -> None:
        """
        Consume from these queues with another prefetch each, in place of that of their subscriptions.

        A queue that is consumed gets another consumer, then the former one is cancelled; deliveries that are here stay.
        """
        self._subscriber.set_prefetch(prefetch)
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
        SubscriptionCheck(connection, self).start()
        if not self._draining:
            self._suspended.apply({})  # what was paused while there was no connection
            self._preparation.on_opened(connection)
            for subscription in self.subscriptions:
                self.prepare(subscription)

    def prepare(self, subscription: Subscription) -> None:
        """Subscribe to a queue once what that requires exists."""
        self._preparation.prepare(subscription)

    def _on_prepared(self, subscription: Subscription) -> None:
        if not self._suspended.is_paused(subscription.work_queue):
            self._subscribe(subscription)
        elif self._suspended.postpone(subscription):
            self.on_postponed(subscription)

    def on_postponed(self, subscription: Subscription) -> None:
        """Note that a queue is known to be paused: the process is ready without it."""
        self.ever_consumed = True
        self._preparation.on_consumed(subscription.queue)

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
            self._consume(consumer_channel, connection)

        connection.open_channel(
            consumer_channel, on_opened, lambda error: self._on_channel_closed(consumer_channel, error)
        )

    def _consume(self, consumer_channel: ConsumerChannel, connection: PikaConnection) -> None:
        self._subscriber.consume(consumer_channel, connection, partial(self._on_consumed, consumer_channel))

    def _on_consumed(self, consumer_channel: ConsumerChannel, tag: str, prefetch: int) -> None:
        former, before = consumer_channel.consumer_tag, consumer_channel.prefetch
        was_suspended = consumer_channel.on_subscribed(tag, prefetch)
        self.ever_consumed = True
        self._preparation.on_consumed(consumer_channel.queue)
        if former is not None:
            log.info("prefetch_changed", queue=consumer_channel.queue, prefetch=prefetch, before=before)
            self.receiver.on_replacing(consumer_channel.work_queue)
            consumer_channel.cancel(former, partial(self._on_replaced, consumer_channel))
            return
        if not was_suspended:
            log.info("queue_consuming", queue=consumer_channel.queue, prefetch=prefetch)
        self._change_if_wanted(consumer_channel)

    def _on_replaced(self, consumer_channel: ConsumerChannel) -> None:
        consumer_channel.on_replaced()
        if consumer_channel.is_open:
            self._change_if_wanted(consumer_channel)

    def _change_if_wanted(self, consumer_channel: ConsumerChannel) -> None:
        """Do to a consumer that is confirmed what could not be done to it before."""
        if self._draining:
            self._cancel_all()
        else:
            self._suspended.suspend_if_wanted(consumer_channel)
            self._replace_if_wanted(consumer_channel)

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
        self._preparation.retry_later(
            consumer_channel.subscription,
            NotConnected(f"The broker did not answer the request for {request} in time."),
        )

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
        if not consumer_channel.is_open:
            return  # it had two consumers, one about to take the place of the other
        log.warning("consumer_cancelled", queue=consumer_channel.queue, effect="subscribing again")
        if self._connection is not None and cancels_after_ack_timeout(version_of(self._connection)):
            self.receiver.on_ack_timeout(consumer_channel, self._settings.ack_timeout, CANCELLED)
        self._resubscribe(consumer_channel)

    def _resubscribe(self, consumer_channel: ConsumerChannel) -> None:
        """Replace a subscription that has ended, and declare again what it requires."""
        self._invalidate(consumer_channel)
        self._preparation.forget_declared()
        if consumer_channel.channel is not None:
            consumer_channel.channel.close()
        self._preparation.prepare_after_pause(consumer_channel.subscription)

    def _on_channel_closed(self, consumer_channel: ConsumerChannel, error: ChannelError) -> None:
        was_open = consumer_channel.is_open
        if was_open and (timeout := ack_timeout_that_closed(error, self._settings.ack_timeout)) is not None:
            self.receiver.on_ack_timeout(consumer_channel, timeout, str(error))
        self._invalidate(consumer_channel)
        connected = self._connection is not None and self._connection.is_open
        if self._subscriber.can_do_without(consumer_channel.queue, error):
            self._subscribe(consumer_channel.subscription)
        elif was_open and connected and not self._draining:
            self._preparation.forget_declared()
            self._preparation.retry_later(
                consumer_channel.subscription,
                channel_error(error, f"consuming from queue {consumer_channel.queue!r}", "read"),
            )
        self._check_drained()

    def _invalidate(self, consumer_channel: ConsumerChannel) -> None:
        """Invalidate the deliveries of a channel that is closed: they are redelivered."""
        if consumer_channel.invalidate():
            self.receiver.on_channel_lost(consumer_channel)

    def on_lost(self, problem: ConnectionProblem) -> None:
        """Invalidate every delivery: the connection was lost."""
        self.problem = problem
        self._connection = None
        self._preparation.stop()
        for consumer_channel in self._channels.values():
            self._invalidate(consumer_channel)
        self._channels.clear()
        self._suspended.clear()
        self._check_drained()

    def on_wake(self) -> None:
        """Drain or suspend queues if asked to, and settle what waits."""
        if self._draining:
            self._preparation.stop()
            self._cancel_all()
        else:
            self._suspended.apply(self._channels)
            if self._subscriber.take_changed():
                for consumer_channel in list(self._channels.values()):
                    self._replace_if_wanted(consumer_channel)
        self.receiver.on_wake()

    def on_tick(self) -> bool:
        """Let the receiver check its deadlines; without a connection, only this ends a drain."""
        if self._draining and self._connection is None:
            self._check_drained()
        return self.receiver.on_tick()

    def _replace_if_wanted(self, consumer_channel: ConsumerChannel) -> None:
        """Ask for another consumer if its prefetch is to be another one; when it is confirmed, the former is cancelled."""
        wanted = self._subscriber.prefetch_of(consumer_channel)
        if consumer_channel.lasting_tag is not None and consumer_channel.prefetch != wanted and self._connection:
            consumer_channel.on_replacing(self.keeper.call_later(LONGEST_WITHHELD, consumer_channel.write_withheld))
            self._consume(consumer_channel, self._connection)

    def subscribe_again(self, consumer_channel: ConsumerChannel) -> None:
        """Subscribe to a queue that was suspended, on the same channel."""
        connection, channel = self._connection, consumer_channel.channel
        if connection is None or channel is None:
            return
        self._expect_answer(consumer_channel)
        self._consume(consumer_channel, connection)

    def _cancel_all(self) -> None:
        """Cancel each subscription once; one that is being made is cancelled when it is confirmed."""
        for consumer_channel in list(self._channels.values()):
            if (tag := consumer_channel.take_consumer_tag()) is not None:
                consumer_channel.cancel(tag, partial(self.on_cancel_ok, consumer_channel))
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
