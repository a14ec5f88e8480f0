"""
The consuming side of a process: one connection, one channel for each queue.

Decides when to subscribe, and again. A channel that ends, for whatever reason, voids its deliveries: the broker
requeues them. Settling them is left to `worker.settle`, the only place that acknowledges.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from amqpworker.broker import ack_timeout as acktimeout
from amqpworker.broker.address import Address
from amqpworker.broker.channel import Channel, open_channel
from amqpworker.broker.connection_errors import ConnectionProblem, channel_error
from amqpworker.broker.consumer_channel import ConsumerChannel, Receiver, Subscription
from amqpworker.broker.consumer_check import Look, Probe, subscribes_for_us
from amqpworker.broker.declarer import Declarer
from amqpworker.broker.io_thread import IOThread
from amqpworker.broker.labels import ConsumerTags
from amqpworker.broker.pika_connection import PikaConnection
from amqpworker.broker.queue_pause import Holding
from amqpworker.broker.server_version import version_of
from amqpworker.errors import AmqpWorkerError, NotConnected
from amqpworker.log.logger import get_logger
from amqpworker.settings import Settings

__all__ = ["Consumer"]

log = get_logger(__name__)

FIRST_PAUSE = 0.5
LONGEST_PAUSE = 30.0
# The first half of them subscribe again, the others connect again; then another process is to try it.
MOST_HEALINGS = 6
CANCELLED = "the broker ended the subscription: an acknowledgement came too late, or the queue was deleted"


class Consumer:
    """Consumes from queues over one connection, and goes on after whatever ends a channel or the connection."""

    def __init__(
        self,
        addresses: Sequence[Address],
        settings: Settings,
        subscriptions: Sequence[Subscription],
        receiver: Receiver,
    ) -> None:
        self.subscriptions = subscriptions
        self.receiver = receiver
        self.problem: ConnectionProblem | None = None
        # Why a queue is not consumed, for each where it is so.
        self.failures: dict[str, AmqpWorkerError] = {}
        self.ever_consumed = False
        self._settings = settings
        self._io = IOThread("consumer", addresses, settings, self, user_reports_errors=True)
        self._io.liveness.must_stay = lambda: any(one.has_unsettled for one in list(self._channels.values()))
        self._tags = ConsumerTags()
        self._channels: dict[str, ConsumerChannel] = {}
        self._pauses: dict[str, float] = {}
        self._connection: PikaConnection | None = None
        self._declarer: Declarer | None = None
        self._draining = False
        # How often a queue's subscription brought nothing, since it last did.
        self._healings: dict[str, int] = {}
        # Queues that cannot be asked for an ack timeout.
        self._untimed: set[str] = set()
        self._hopeless = False
        self._holding = Holding(self._subscribe_again, self._on_cancel_ok)
        self._on_drained: Callable[[], None] = lambda: None

    # ---- from any thread --------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Connect and consume."""
        self._io.start()

    def on_beat(self, beat: Callable[[], None]) -> None:
        """Have `beat` called about once in a second by the I/O thread; before `start`."""
        self._io.beat = beat

    def belongs_to(self, owner: str) -> None:
        """Name the connection after an app, if the settings give no name to it; before `start`."""
        self._io.owner = owner

    def wake(self) -> None:
        """Have what was settled meanwhile be told to the broker."""
        self._io.wake()

    @property
    def connected(self) -> bool:
        """Whether there is a connection now."""
        return self._connection is not None

    @property
    def consuming(self) -> bool:
        """Whether every queue has a consumer that the broker confirmed, or is left to other processes for a while."""
        channels = list(self._channels.values())
        return len(channels) == len(self.subscriptions) and all(one.served for one in channels)

    @property
    def broken(self) -> bool:
        """Whether the I/O thread has ended though nobody closed it, or a queue brings nothing whatever is tried."""
        return self._io.ended or self._hopeless

    def hold(self, queues: frozenset[str]) -> None:
        """Take nothing from these queues for now, and from the others again; what is here stays."""
        self._holding.wanted = queues
        self._io.wake()

    def drain(self, drained: Callable[[], None]) -> None:
        """Stop consuming; `drained` is called in the I/O thread once no delivery can come any more."""
        self._on_drained = drained
        self._draining = True
        self._io.wake()

    def close(self, timeout: float) -> bool:
        """Close the connection: whatever is not settled goes back to its queue."""
        return self._io.stop(timeout)

    # ---- in the I/O thread ------------------------------------------------------------------------------------------

    def on_opened(self, connection: PikaConnection) -> None:
        """Subscribe to every queue."""
        self._connection = connection
        self.problem = None
        self._declarer = Declarer(connection, self._io.liveness)
        self._pauses.clear()
        self.failures.clear()
        Probe(connection, self._io.call_later, self._io.liveness, self).start()
        for subscription in self.subscriptions:
            self._prepare(subscription)

    def _prepare(self, subscription: Subscription) -> None:
        """Make sure that what a subscription needs exists, then subscribe."""
        declarer = self._declarer
        if declarer is None or self._draining:
            return
        missing = [one for one in subscription.requirements if one not in declarer.declared]

        def answer(error: AmqpWorkerError | None) -> None:
            if declarer is not self._declarer:
                return
            if error is None:
                self._prepare(subscription)
            else:
                self._later(subscription, error)

        if missing:
            declarer.ensure(missing[0], answer)
        else:
            self._subscribe(subscription)

    def _subscribe(self, subscription: Subscription) -> None:
        connection = self._connection
        if connection is None or not connection.is_open:
            return
        consumer_channel = ConsumerChannel(subscription, self.receiver, self._io.start_ticking)
        self._expect_answer(consumer_channel)
        self._channels[subscription.queue] = consumer_channel
        self.receiver.on_channel_opening(consumer_channel)

        def opened(channel: Channel) -> None:
            consumer_channel.on_opened(channel)
            if self._draining or not consumer_channel.is_open:
                self._void(consumer_channel)
                channel.close()
                self._check_drained()
                return
            channel.on_cancel(lambda: self._on_cancelled(consumer_channel))
            self._consume(consumer_channel, connection, channel)

        open_channel(
            connection, consumer_channel, opened, lambda error: self._on_channel_closed(consumer_channel, error)
        )

    def _consume(self, consumer_channel: ConsumerChannel, connection: PikaConnection, channel: Channel) -> None:
        subscription = consumer_channel.subscription
        tag = self._tags.make(subscription.queue)

        def consumed() -> None:
            if consumer_channel.is_open:
                self._on_consumed(consumer_channel, connection, tag)

        channel.consume(subscription.queue, subscription.prefetch, tag, consumed, self._arguments(subscription))

    def _on_consumed(self, consumer_channel: ConsumerChannel, connection: PikaConnection, tag: str) -> None:
        was_held = consumer_channel.on_subscribed(tag)
        self.ever_consumed = True
        self.failures.pop(consumer_channel.queue, None)
        self._pauses.pop(consumer_channel.queue, None)
        if not was_held:
            log.info("queue_consuming", queue=consumer_channel.queue, prefetch=consumer_channel.subscription.prefetch)
        if consumer_channel.channel is not None and subscribes_for_us(version_of(connection)):
            consumer_channel.channel.limit_all()
        if self._draining:
            self._cancel_all()
        else:
            self._holding.begin(consumer_channel)

    def _expect_answer(self, consumer_channel: ConsumerChannel) -> None:
        liveness = self._io.liveness
        consumer_channel.on_subscribing(
            liveness.expect_answer(lambda may_leave: self._late(consumer_channel, may_leave))
        )

    def _late(self, consumer_channel: ConsumerChannel, may_leave: bool) -> None:
        """Give up a subscription that is not answered: by the next address, or by another channel of this one."""
        asked = f"a subscription to queue {consumer_channel.queue!r}"
        if may_leave:
            self._io.liveness.leave(asked)
            return
        self._void(consumer_channel)
        if consumer_channel.channel is not None:
            consumer_channel.channel.close()
        self._check_drained()
        self._later(
            consumer_channel.subscription,
            NotConnected(f"The broker did not answer in time when it was asked for {asked}."),
        )

    def _arguments(self, subscription: Subscription) -> dict[str, int]:
        if self._connection is None or subscription.queue in self._untimed:
            return {}
        return acktimeout.asked_for(self._settings, version_of(self._connection))

    # ---- what the broker says of our queues -------------------------------------------------------------------------

    def subscribed(self) -> list[str]:
        """Return the queues that have a consumer, as far as we know, or are about to again; none where we stop."""
        return [] if self._draining else [queue for queue, one in list(self._channels.items()) if one.subscribed]

    def looked(self, queue: str, look: Look) -> None:
        """Subscribe again where the broker does not see the subscription, or where nothing comes of it."""
        consumer_channel = self._channels.get(queue)
        if consumer_channel is None or not consumer_channel.consumer_tag or self._draining or self._connection is None:
            return
        connection, channel = self._connection, consumer_channel.channel
        arrives = channel is not None and connection.has_partial_on(channel.number)
        trouble = consumer_channel.check(look, arrives, connection.has_partial)
        if trouble:
            self._heal(consumer_channel, trouble)
        elif consumer_channel.is_sound:
            self._healings.pop(queue, None)

    def _heal(self, consumer_channel: ConsumerChannel, trouble: str) -> None:
        """Subscribe again; where that has not helped before, by another connection, and at last by another process."""
        tries = self._healings[consumer_channel.queue] = self._healings.get(consumer_channel.queue, 0) + 1
        log.warning("consumer_lost", queue=consumer_channel.queue, reason=trouble, tries=tries)
        if tries > MOST_HEALINGS:
            self._hopeless = True
        if tries > MOST_HEALINGS // 2:
            self._io.drop("a subscription brings nothing")
            return
        self._begin_anew(consumer_channel)

    def _on_cancelled(self, consumer_channel: ConsumerChannel) -> None:
        """
        Begin anew: the broker ended the subscription, because the queue is gone or an ack came too late.

        https://www.rabbitmq.com/docs/consumer-cancel
        """
        log.warning("consumer_cancelled", queue=consumer_channel.queue, effect="subscribing again")
        if self._connection is not None and acktimeout.cancels(version_of(self._connection)):
            self.receiver.on_ack_timeout(consumer_channel, self._settings.ack_timeout, CANCELLED)
        self._begin_anew(consumer_channel)

    def _begin_anew(self, consumer_channel: ConsumerChannel) -> None:
        """Leave a subscription that is none, and make another, with whatever it needs."""
        self._void(consumer_channel)
        if self._declarer is not None:
            self._declarer.forget()
        if consumer_channel.channel is not None:
            consumer_channel.channel.close()
        self._resume(consumer_channel.subscription)

    def _on_channel_closed(self, consumer_channel: ConsumerChannel, error: BaseException) -> None:
        was_open = consumer_channel.is_open
        if was_open and (timeout := acktimeout.passed(error, self._settings.ack_timeout)) is not None:
            self.receiver.on_ack_timeout(consumer_channel, timeout, str(error))
        self._void(consumer_channel)
        connected = self._connection is not None and self._connection.is_open
        if acktimeout.is_refused(error) and consumer_channel.queue not in self._untimed:
            self._untimed.add(consumer_channel.queue)
            self._subscribe(consumer_channel.subscription)
        elif was_open and connected and not self._draining:
            if self._declarer is not None:
                self._declarer.forget()
            self._later(
                consumer_channel.subscription,
                channel_error(error, f"consuming from queue {consumer_channel.queue!r}", "read"),
            )
        self._check_drained()

    def _void(self, consumer_channel: ConsumerChannel) -> None:
        """Void the deliveries of a channel that is gone: they come again, to whoever consumes then."""
        if consumer_channel.invalidate():
            self.receiver.on_channel_lost(consumer_channel)

    def _later(self, subscription: Subscription, error: AmqpWorkerError) -> None:
        self.failures[subscription.queue] = error
        log.warning("queue_not_consumed", queue=subscription.queue, reason=str(error))
        self._resume(subscription)

    def _resume(self, subscription: Subscription) -> None:
        """Subscribe again after a pause that doubles."""
        pause = self._pauses.get(subscription.queue, FIRST_PAUSE)
        self._pauses[subscription.queue] = min(pause * 2, LONGEST_PAUSE)
        connection = self._connection

        def again() -> None:
            if self._connection is connection:
                self._prepare(subscription)

        self._io.call_later(pause, again)

    def on_lost(self, problem: ConnectionProblem) -> None:
        """Void every delivery: the connection is gone."""
        self.problem = problem
        self._connection = None
        self._declarer = None
        for consumer_channel in self._channels.values():
            self._void(consumer_channel)
        self._channels.clear()
        self._check_drained()

    def on_wake(self) -> None:
        """Settle what has gathered; begin to drain where that was asked for."""
        if self._draining:
            self._cancel_all()
        elif self._holding.due:
            self._holding.apply(list(self._channels.values()))
        self.receiver.on_wake()

    def on_tick(self) -> bool:
        """Let the receiver look at its deadlines; without a connection nothing else tells that there is no more to drain."""
        if self._draining and self._connection is None:
            self._check_drained()
        return self.receiver.on_tick()

    def _subscribe_again(self, consumer_channel: ConsumerChannel) -> None:
        """Subscribe to a queue that was held, by the same channel."""
        connection, channel = self._connection, consumer_channel.channel
        if connection is None or channel is None:
            return
        self._expect_answer(consumer_channel)
        if subscribes_for_us(version_of(connection)):
            channel.limit_none()
        self._consume(consumer_channel, connection, channel)

    def _cancel_all(self) -> None:
        """Cancel each subscription once; one that is on its way is cancelled when it is there."""
        for consumer_channel in list(self._channels.values()):
            tag = consumer_channel.take_consumer_tag()
            if tag is not None and consumer_channel.channel is not None and consumer_channel.channel.is_open:
                consumer_channel.channel.cancel(tag, partial(self._on_cancel_ok, consumer_channel))
        self._check_drained()

    def _on_cancel_ok(self, consumer_channel: ConsumerChannel) -> None:
        consumer_channel.on_cancelled()
        self._check_drained()

    def _check_drained(self) -> None:
        """Tell once that no channel is left that may still bring deliveries."""
        if self._draining and all(one.is_cancelled or not one.is_open for one in self._channels.values()):
            # What nobody has begun goes back first: from now on whatever is not settled is running.
            self.receiver.on_wake()
            drained, self._on_drained = self._on_drained, lambda: None
            drained()
