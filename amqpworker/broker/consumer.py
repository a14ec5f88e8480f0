"""
The consuming side of a process: one connection, one channel for each queue.

Decides when to subscribe, and again. A channel that ends, for whatever reason, voids its deliveries: the broker
requeues them. Settling them is left to `worker.settle`, the only place that acknowledges.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from amqpworker.broker import acktimeout
from amqpworker.broker.address import Address
from amqpworker.broker.channel import Channel, open_channel
from amqpworker.broker.connection import IOThread
from amqpworker.broker.declare import Declarer, Need
from amqpworker.broker.probe import Look, Probe, renewal, trouble_of
from amqpworker.broker.reasons import ConnectionProblem, channel_error
from amqpworker.broker.seam import PublicConnection, Sink
from amqpworker.broker.version import version_of
from amqpworker.errors import AmqpWorkerError
from amqpworker.logs import get_logger
from amqpworker.message import Delivery
from amqpworker.settings import Settings
from amqpworker.topology import Topology

__all__ = ["Consumer", "Intake", "Receiver", "Subscription"]

log = get_logger(__name__)

FIRST_PAUSE = 0.5
LONGEST_PAUSE = 30.0
# The first half of them subscribe again, the others connect again; then another process is to try it.
MOST_HEALINGS = 6


@dataclass(frozen=True, slots=True)
class Subscription:
    """A queue to consume from: how many deliveries at once, and what must exist first."""

    queue: str
    prefetch: int
    needs: tuple[Need, ...] = ()


class Receiver(Protocol):
    """Who takes deliveries and settles them; all in the I/O thread."""

    def begin(self, intake: Intake) -> None:
        """Make ready for the deliveries of a new channel."""

    def receive(self, delivery: Delivery) -> None:
        """Take a delivery."""

    def end(self, intake: Intake) -> None:
        """Forget the deliveries of a channel that is gone."""

    def holds(self, intake: Intake) -> bool:
        """Tell whether deliveries of a channel are not settled yet."""

    def settle(self) -> None:
        """Settle what has gathered."""

    def tick(self) -> bool:
        """Look at what has waited for too long; true while there is anything to look at."""


class Intake(Sink):
    """
    One incarnation of the channel of one queue: the generation that its deliveries belong to.

    `unstarted` maps the tag of each delivery that no runner has begun to the time it came. Whoever pops a tag from it
    owns the delivery: a runner to run it, the I/O thread to give it back. `suspects` are tags of those to run in an
    isolated process. `watch` is called when the first delivery comes.
    """

    def __init__(self, subscription: Subscription, receiver: Receiver, watch: Callable[[], None]) -> None:
        self.subscription = subscription
        self.queue = subscription.queue
        self.receiver = receiver
        self.watch = watch
        self.channel: Channel | None = None
        self.consumer_tag: str | None = None
        self.unstarted: dict[int, float] = {}
        self.suspects: set[int] = set()
        self.last_tag = 0
        self.is_open = True
        self.cancelled = False
        self.renewing = False
        self.ledger: Any = None
        self.looked_at = 0
        self.starved = 0

    @property
    def subscribed(self) -> bool:
        """Whether the broker has confirmed a consumer, here or on the channel that this one takes the place of."""
        return self.consumer_tag is not None or self.renewing

    def on_delivery(self, delivery: Delivery) -> None:
        """Take a delivery from the channel."""
        if not self.is_open:
            return  # it comes again on the next channel
        delivery.intake = self
        delivery.queue = self.queue
        if not self.unstarted:
            self.watch()
        tag = self.last_tag = delivery.tag
        self.unstarted[tag] = time.monotonic()
        self.receiver.receive(delivery)


class Consumer:
    """Consumes from queues over one connection, and goes on after whatever ends a channel or the connection."""

    def __init__(
        self,
        addresses: Sequence[Address],
        settings: Settings,
        topology_of: Callable[[Need], Topology],
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
        self._topology_of = topology_of
        self._io = IOThread("consumer", addresses, settings, self, mistakes_told=True)
        self._intakes: dict[str, Intake] = {}
        self._pauses: dict[str, float] = {}
        self._connection: PublicConnection | None = None
        self._declarer: Declarer | None = None
        self._draining = False
        # How often a queue's subscription brought nothing, since it last did.
        self._healings: dict[str, int] = {}
        # Queues that cannot be asked for an ack timeout.
        self._untimed: set[str] = set()
        self._hopeless = False
        self._on_drained: Callable[[], None] = lambda: None

    # ---- from any thread --------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Connect and consume."""
        self._io.start()

    def on_beat(self, beat: Callable[[], None]) -> None:
        """Have `beat` called about once in a second by the I/O thread; before `start`."""
        self._io.beat = beat

    def wake(self) -> None:
        """Have what was settled meanwhile be told to the broker."""
        self._io.wake()

    @property
    def consuming(self) -> bool:
        """Whether every queue has a consumer that the broker confirmed."""
        intakes = list(self._intakes.values())
        return len(intakes) == len(self.subscriptions) and all(one.subscribed for one in intakes)

    @property
    def broken(self) -> bool:
        """Whether the I/O thread has ended though nobody closed it, or a queue brings nothing whatever is tried."""
        return self._io.ended or self._hopeless

    def drain(self, drained: Callable[[], None]) -> None:
        """Stop consuming; `drained` is called in the I/O thread once no delivery can come any more."""
        self._on_drained = drained
        self._draining = True
        self._io.wake()

    def close(self, timeout: float) -> bool:
        """Close the connection: whatever is not settled goes back to its queue."""
        return self._io.stop(timeout)

    # ---- in the I/O thread ------------------------------------------------------------------------------------------

    def opened(self, connection: PublicConnection) -> None:
        """Subscribe to every queue."""
        self._connection = connection
        self.problem = None
        self._declarer = Declarer(connection, self._topology_of)
        self._pauses.clear()
        self.failures.clear()
        Probe(connection, self._io.call_later, self).start()
        for subscription in self.subscriptions:
            self._prepare(subscription)

    def _prepare(self, subscription: Subscription) -> None:
        """Make sure that what a subscription needs exists, then subscribe."""
        declarer = self._declarer
        if declarer is None or self._draining:
            return
        missing = [need for need in subscription.needs if need not in declarer.done]

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

    def _subscribe(self, subscription: Subscription, renewed: bool = False) -> None:
        connection = self._connection
        if connection is None or not connection.is_open:
            return
        intake = Intake(subscription, self.receiver, self._io.start_ticking)
        intake.renewing = renewed
        self._intakes[subscription.queue] = intake
        self.receiver.begin(intake)

        def opened(channel: Channel) -> None:
            intake.channel = channel
            if self._draining:
                self._void(intake)
                channel.close()
                self._check_drained()
                return
            channel.on_cancel(lambda: self._on_cancelled(intake))
            channel.consume(subscription.queue, subscription.prefetch, consumed, self._arguments(subscription))

        def consumed(tag: str) -> None:
            intake.consumer_tag = tag
            intake.renewing = False
            self.ever_consumed = True
            self.failures.pop(subscription.queue, None)
            self._pauses.pop(subscription.queue, None)
            tell = log.debug if renewed else log.info
            tell("queue_consuming", queue=subscription.queue, prefetch=subscription.prefetch)
            self._io.call_later(renewal(version_of(connection)), lambda: self._renew(intake, 0))
            if self._draining:
                self._cancel_all()

        open_channel(connection, intake, opened, lambda error: self._on_channel_closed(intake, error))

    def _arguments(self, subscription: Subscription) -> dict[str, int]:
        if self._connection is None or subscription.queue in self._untimed:
            return {}
        return acktimeout.asked_for(self._settings, version_of(self._connection))

    def _renew(self, intake: Intake, seen: int) -> None:
        """Subscribe anew on another channel, unless deliveries came since the last look, or are still here."""
        if not intake.is_open or self._draining or self._connection is None:
            return
        if intake.last_tag != seen or self.receiver.holds(intake):
            last = intake.last_tag
            self._io.call_later(renewal(version_of(self._connection)), lambda: self._renew(intake, last))
            return
        self._void(intake)
        if intake.channel is not None:
            intake.channel.close()
        self._subscribe(intake.subscription, renewed=True)

    # ---- what the broker says of our queues -------------------------------------------------------------------------

    def subscribed(self) -> list[str]:
        """Return the queues that have a consumer, as far as we know, or are about to again; none where we stop."""
        return [] if self._draining else [queue for queue, one in self._intakes.items() if one.subscribed]

    def looked(self, queue: str, ready: int | None, consumers: int) -> None:
        """Subscribe again where the broker does not see the subscription, or where nothing comes of it."""
        intake = self._intakes.get(queue)
        if intake is None or not intake.consumer_tag or self._draining:
            return
        hungry = bool(ready) and intake.last_tag == intake.looked_at and not self.receiver.holds(intake)
        intake.starved = intake.starved + 1 if hungry else 0
        intake.looked_at = intake.last_tag
        trouble = trouble_of(Look(ready, consumers, intake.starved))
        if trouble:
            self._heal(intake, trouble)
        elif not intake.starved:
            self._healings.pop(queue, None)

    def _heal(self, intake: Intake, trouble: str) -> None:
        """Subscribe again; where that has not helped before, by another connection, and at last by another process."""
        tries = self._healings[intake.queue] = self._healings.get(intake.queue, 0) + 1
        log.warning("consumer_lost", queue=intake.queue, reason=trouble, tries=tries)
        if tries > MOST_HEALINGS:
            self._hopeless = True
        if tries > MOST_HEALINGS // 2:
            self._io.drop("a subscription brings nothing")
            return
        self._begin_anew(intake)

    def unanswered(self) -> None:
        """Give up a connection on which the broker does not answer any more."""
        log.warning("broker_silent", effect="connecting again")
        self._io.drop("the broker did not answer")

    def _on_cancelled(self, intake: Intake) -> None:
        """
        Begin anew: the broker ended the subscription, because the queue is gone or an ack came too late.

        https://www.rabbitmq.com/docs/consumer-cancel
        """
        log.warning("consumer_cancelled", queue=intake.queue, effect="subscribing again")
        self._begin_anew(intake)

    def _begin_anew(self, intake: Intake) -> None:
        """Leave a subscription that is none, and make another, with whatever it needs."""
        self._void(intake)
        if self._declarer is not None:
            self._declarer.forget()
        if intake.channel is not None:
            intake.channel.close()
        self._resume(intake.subscription)

    def _on_channel_closed(self, intake: Intake, error: BaseException) -> None:
        was_open = intake.is_open
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

    def _void(self, intake: Intake) -> None:
        """Void the deliveries of a channel that is gone: they come again, to whoever consumes then."""
        if intake.is_open:
            intake.is_open = False
            intake.renewing = False
            intake.consumer_tag = None
            intake.unstarted.clear()
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

    def lost(self, problem: ConnectionProblem) -> None:
        """Void every delivery: the connection is gone."""
        self.problem = problem
        self._connection = None
        self._declarer = None
        for intake in self._intakes.values():
            self._void(intake)
        self._intakes.clear()
        self._check_drained()

    def woken(self) -> None:
        """Settle what has gathered; begin to drain where that was asked for."""
        if self._draining:
            self._cancel_all()
        self.receiver.settle()

    def tick(self) -> bool:
        """Let the receiver look at its deadlines; without a connection nothing else tells that there is no more to drain."""
        if self._draining and self._connection is None:
            self._check_drained()
        return self.receiver.tick()

    def _cancel_all(self) -> None:
        """Cancel each subscription once; one that is on its way is cancelled when it is there."""
        for intake in list(self._intakes.values()):
            tag, intake.consumer_tag = intake.consumer_tag, None
            if tag is not None and intake.channel is not None and intake.channel.is_open:
                intake.channel.cancel(tag, lambda intake=intake: self._on_cancel_ok(intake))  # type: ignore[misc]
        self._check_drained()

    def _on_cancel_ok(self, intake: Intake) -> None:
        intake.cancelled = True
        self._check_drained()

    def _check_drained(self) -> None:
        """Tell once that no channel is left that may still bring deliveries."""
        if self._draining and all(one.cancelled or not one.is_open for one in self._intakes.values()):
            # What nobody has begun goes back first: from now on whatever is not settled is running.
            self.receiver.settle()
            drained, self._on_drained = self._on_drained, lambda: None
            drained()
