"""
The consuming side of a process: one connection, one channel for each queue.

Decides when to subscribe, and again. A channel that ends, for whatever reason, voids its deliveries: the broker
requeues them. Settling them is left to `worker.settle`, the only place that acknowledges.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from amqpworker.broker import ack_timeout as acktimeout
from amqpworker.broker.address import Address
from amqpworker.broker.channel import Channel, open_channel
from amqpworker.broker.connection_errors import ConnectionProblem, channel_error
from amqpworker.broker.consumer_channel import ConsumerChannel, Receiver, Subscription
from amqpworker.broker.consumer_check import Look, Probe, subscribes_for_us, trouble_of
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
# What a look that finds nothing delivered counts while something else comes in.
BEHIND_OTHERS = 0.125
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
        self._io.liveness.must_stay = lambda: any(receiver.holds(one) for one in self._intakes.values())
        self._tags = ConsumerTags()
        self._intakes: dict[str, ConsumerChannel] = {}
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
        intakes = list(self._intakes.values())
        return len(intakes) == len(self.subscriptions) and all(one.served for one in intakes)

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
        intake = ConsumerChannel(subscription, self.receiver, self._io.start_ticking)
        intake.answered = self._io.liveness.expect_answer(lambda may_leave: self._late(intake, may_leave))
        self._intakes[subscription.queue] = intake
        self.receiver.begin(intake)

        def opened(channel: Channel) -> None:
            intake.channel = channel
            if self._draining or not intake.is_open:
                self._void(intake)
                channel.close()
                self._check_drained()
                return
            channel.on_cancel(lambda: self._on_cancelled(intake))
            self._consume(intake, connection, channel)

        open_channel(connection, intake, opened, lambda error: self._on_channel_closed(intake, error))

    def _consume(self, intake: ConsumerChannel, connection: PikaConnection, channel: Channel) -> None:
        subscription = intake.subscription
        tag = self._tags.make(subscription.queue)

        def consumed() -> None:
            if intake.is_open:
                intake.consumer_tag = tag
                self._on_consumed(intake, connection)

        channel.consume(subscription.queue, subscription.prefetch, tag, consumed, self._arguments(subscription))

    def _on_consumed(self, intake: ConsumerChannel, connection: PikaConnection) -> None:
        intake.answered()
        self.ever_consumed = True
        self.failures.pop(intake.queue, None)
        self._pauses.pop(intake.queue, None)
        if not intake.released:
            log.info("queue_consuming", queue=intake.queue, prefetch=intake.subscription.prefetch)
        intake.released = False
        if intake.channel is not None and subscribes_for_us(version_of(connection)):
            intake.channel.limit_all()
        if self._draining:
            self._cancel_all()
        else:
            self._holding.begin(intake)

    def _late(self, intake: ConsumerChannel, may_leave: bool) -> None:
        """Give up a subscription that is not answered: by the next address, or by another channel of this one."""
        asked = f"a subscription to queue {intake.queue!r}"
        if may_leave:
            self._io.liveness.leave(asked)
            return
        self._void(intake)
        if intake.channel is not None:
            intake.channel.close()
        self._check_drained()
        self._later(
            intake.subscription, NotConnected(f"The broker did not answer in time when it was asked for {asked}.")
        )

    def _arguments(self, subscription: Subscription) -> dict[str, int]:
        if self._connection is None or subscription.queue in self._untimed:
            return {}
        return acktimeout.asked_for(self._settings, version_of(self._connection))

    # ---- what the broker says of our queues -------------------------------------------------------------------------

    def subscribed(self) -> list[str]:
        """Return the queues that have a consumer, as far as we know, or are about to again; none where we stop."""
        return [] if self._draining else [queue for queue, one in list(self._intakes.items()) if one.subscribed]

    def looked(self, queue: str, look: Look) -> None:
        """Subscribe again where the broker does not see the subscription, or where nothing comes of it."""
        intake = self._intakes.get(queue)
        if intake is None or not intake.consumer_tag or self._draining or self._connection is None:
            return
        holds = self.receiver.holds(intake)
        connection, channel = self._connection, intake.channel
        arrives = intake.last_tag != intake.looked_at or (
            channel is not None and connection.has_partial_on(channel.number)
        )
        if not look.ready or arrives or holds:
            intake.starved = 0.0
        else:
            # A message that comes in by another channel just now, perhaps a long one, may be what ours wait behind.
            intake.starved += BEHIND_OTHERS if connection.has_partial else 1.0
        if look.consumers:
            intake.forgotten = 0
        elif not (look.doubtful and holds):
            intake.forgotten += 1
        intake.looked_at = intake.last_tag
        trouble = trouble_of(look, intake.starved, intake.forgotten)
        if trouble:
            self._heal(intake, trouble)
        elif not intake.starved and not intake.forgotten:
            self._healings.pop(queue, None)

    def _heal(self, intake: ConsumerChannel, trouble: str) -> None:
        """Subscribe again; where that has not helped before, by another connection, and at last by another process."""
        tries = self._healings[intake.queue] = self._healings.get(intake.queue, 0) + 1
        log.warning("consumer_lost", queue=intake.queue, reason=trouble, tries=tries)
        if tries > MOST_HEALINGS:
            self._hopeless = True
        if tries > MOST_HEALINGS // 2:
            self._io.drop("a subscription brings nothing")
            return
        self._begin_anew(intake)

    def _on_cancelled(self, intake: ConsumerChannel) -> None:
        """
        Begin anew: the broker ended the subscription, because the queue is gone or an ack came too late.

        https://www.rabbitmq.com/docs/consumer-cancel
        """
        log.warning("consumer_cancelled", queue=intake.queue, effect="subscribing again")
        if self._connection is not None and acktimeout.cancels(version_of(self._connection)):
            self.receiver.on_ack_timeout(intake, self._settings.ack_timeout, CANCELLED)
        self._begin_anew(intake)

    def _begin_anew(self, intake: ConsumerChannel) -> None:
        """Leave a subscription that is none, and make another, with whatever it needs."""
        self._void(intake)
        if self._declarer is not None:
            self._declarer.forget()
        if intake.channel is not None:
            intake.channel.close()
        self._resume(intake.subscription)

    def _on_channel_closed(self, intake: ConsumerChannel, error: BaseException) -> None:
        was_open = intake.is_open
        if was_open and (timeout := acktimeout.passed(error, self._settings.ack_timeout)) is not None:
            self.receiver.on_ack_timeout(intake, timeout, str(error))
        self._void(intake)
        connected = self._connection is not None and self._connection.is_open
        if acktimeout.is_refused(error) and intake.queue not in self._untimed:
            self._untimed.add(intake.queue)
            self._subscribe(intake.subscription)
        elif was_open and connected and not self._draining:
            if self._declarer is not None:
                self._declarer.forget()
            self._later(intake.subscription, channel_error(error, f"consuming from queue {intake.queue!r}", "read"))
        self._check_drained()

    def _void(self, intake: ConsumerChannel) -> None:
        """Void the deliveries of a channel that is gone: they come again, to whoever consumes then."""
        if intake.is_open:
            intake.answered()
            intake.is_open = False
            intake.consumer_tag = None
            intake.held_since, intake.released = 0.0, False
            intake.unclaimed.clear()
            self.receiver.end(intake)

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
        for intake in self._intakes.values():
            self._void(intake)
        self._intakes.clear()
        self._check_drained()

    def on_wake(self) -> None:
        """Settle what has gathered; begin to drain where that was asked for."""
        if self._draining:
            self._cancel_all()
        elif self._holding.due:
            self._holding.apply(list(self._intakes.values()))
        self.receiver.settle()

    def on_tick(self) -> bool:
        """Let the receiver look at its deadlines; without a connection nothing else tells that there is no more to drain."""
        if self._draining and self._connection is None:
            self._check_drained()
        return self.receiver.tick()

    def _subscribe_again(self, intake: ConsumerChannel) -> None:
        """Subscribe to a queue that was held, by the same channel."""
        connection, channel = self._connection, intake.channel
        if connection is None or channel is None:
            return
        intake.answered = self._io.liveness.expect_answer(lambda may_leave: self._late(intake, may_leave))
        if subscribes_for_us(version_of(connection)):
            channel.limit_none()
        self._consume(intake, connection, channel)

    def _cancel_all(self) -> None:
        """Cancel each subscription once; one that is on its way is cancelled when it is there."""
        for intake in list(self._intakes.values()):
            tag, intake.consumer_tag = intake.consumer_tag, None
            if tag is not None and intake.channel is not None and intake.channel.is_open:
                intake.channel.cancel(tag, lambda intake=intake: self._on_cancel_ok(intake))  # type: ignore[misc]
        self._check_drained()

    def _on_cancel_ok(self, intake: ConsumerChannel) -> None:
        intake.cancelled = True
        self._check_drained()

    def _check_drained(self) -> None:
        """Tell once that no channel is left that may still bring deliveries."""
        if self._draining and all(one.cancelled or not one.is_open for one in self._intakes.values()):
            # What nobody has begun goes back first: from now on whatever is not settled is running.
            self.receiver.settle()
            drained, self._on_drained = self._on_drained, lambda: None
            drained()
