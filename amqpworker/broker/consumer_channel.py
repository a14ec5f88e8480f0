"""
The channel of a queue's consumer, from its opening to its end: its deliveries are valid only on this channel.

Decides which deliveries can still be claimed, requeued and acknowledged on it, and whether its subscription delivers.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from amqpworker.broker.ack_tracker import AckTracker
from amqpworker.broker.connection import ChannelListener, QueueState
from amqpworker.broker.pika_channel import PikaChannel
from amqpworker.model.message import Delivery
from amqpworker.routing.queues import Requirement

if TYPE_CHECKING:
    from amqpworker.worker.receiver import DeliveryReceiver

# What a check counts that finds no new delivery while a message arrives on another channel.
BEHIND_OTHERS = 0.125
# Checks in a row that find ready messages and nothing delivered, or no consumer.
MAX_IDLE_CHECKS = 2
MAX_MISSING_CHECKS = 2


@dataclass(frozen=True, slots=True)
class Subscription:
    """
    A queue to consume from: how many deliveries at once, and what must exist first.

    `beside` is the bounded queue that this one is beside: its deliveries are taken as that queue's, before all others of it.
    """

    queue: str
    prefetch: int
    requirements: tuple[Requirement, ...] = ()
    beside: str | None = None

    @property
    def work_queue(self) -> str:
        """The queue that messages are sent to which arrive here."""
        return self.beside or self.queue


class ConsumerChannel(ChannelListener):
    """
    The channel of one queue, from its opening to its end; another object takes its place after that.

    `on_first_waiting` is called when a delivery arrives and no other is unclaimed. Only its own methods change it: `claim`
    and `is_unclaimed` from any thread, all others in the I/O thread.

    While it is suspended, from `suspended_since` on (monotonic, 0 if it is not), it has no consumer and its deliveries stay;
    after that it `is_resuming` until it has one again.
    """

    def __init__(
        self,
        subscription: Subscription,
        receiver: DeliveryReceiver,
        on_first_waiting: Callable[[], None],
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.subscription = subscription
        self.queue = subscription.queue
        self.work_queue = subscription.work_queue
        self.goes_first = subscription.beside is not None
        """Whether its deliveries are taken before others of the work queue."""
        self.channel: PikaChannel | None = None
        self.consumer_tag: str | None = None
        self.prefetch = 0
        """The prefetch of its consumer."""
        self.is_being_replaced = False
        """Whether another consumer was asked for, and the former one is not cancelled yet."""
        self.has_shared_limit = False
        """Whether its channel has the limit that `PikaChannel.set_shared_limit` sets."""
        self.suspended_since = 0.0
        self.is_resuming = False
        self.is_open = True
        self.is_cancelled = False
        self.unclaimed: dict[int, Delivery] = {}
        """The deliveries that are not claimed yet, by tag, in the order in which they arrived."""
        self.ack_tracker = AckTracker()
        self._on_delivery = receiver.on_delivery
        self._on_first_waiting = on_first_waiting
        self._monotonic = monotonic
        self._withholds = False
        self._on_written: Callable[[], None] = lambda: None
        self._last_tag = 0
        self._checked_tag = 0
        self._idle_checks = 0.0
        self._missing_checks = 0
        self._on_reply: Callable[[], None] = lambda: None

    # ---- from any thread --------------------------------------------------------------------------------------------

    def claim(self, delivery: Delivery) -> bool:
        """Claim a delivery: only if this returns true may it be run, or settled in any other way."""
        return self.unclaimed.pop(delivery.tag, None) is not None

    def is_unclaimed(self, delivery: Delivery) -> bool:
        """Return whether a delivery can still be claimed."""
        return delivery.tag in self.unclaimed

    # ---- deliveries, in the I/O thread ------------------------------------------------------------------------------

    def on_delivery(self, delivery: Delivery) -> None:
        """Take a delivery from the channel."""
        if not self.is_open:
            return  # it is redelivered on the next channel
        delivery.channel = self
        delivery.queue = self.work_queue
        if not self.unclaimed:
            self._on_first_waiting()
        tag = self._last_tag = delivery.tag
        delivery.arrived = self._monotonic()
        delivery.is_suspect = False
        self.unclaimed[tag] = delivery
        self._on_delivery(delivery)

    def acknowledge(self, tags: Iterable[int]) -> None:
        """Acknowledge deliveries in as few frames as possible; `flush` writes them."""
        if self.channel is not None:
            for tag, multiple in self.ack_tracker.settle(tags):
                self.channel.ack(tag, multiple)

    def requeue(self, tag: int) -> bool:
        """Requeue a delivery, to be written by `flush`; false if the broker has it already, or it is settled."""
        if not self.is_open or self.channel is None or not self.ack_tracker.note_requeued(tag):
            return False
        self.channel.requeue(tag)
        return True

    def waiting_since(self, moment: float) -> list[Delivery]:
        """Return the unclaimed deliveries that arrived before this moment (monotonic)."""
        return [delivery for delivery in list(self.unclaimed.values()) if delivery.arrived <= moment]

    def flush(self) -> None:
        """Write the acknowledgements and the requeued deliveries that have gathered."""
        if self.is_open and self.channel is not None and not self._withholds:
            self.channel.flush()

    @property
    def has_unsettled(self) -> bool:
        """Whether deliveries are not settled yet."""
        return not self.ack_tracker.covers(self._last_tag)

    # ---- its subscription, in the I/O thread ------------------------------------------------------------------------

    @property
    def is_subscribed(self) -> bool:
        """Whether the broker has confirmed a consumer."""
        return self.consumer_tag is not None

    @property
    def is_served(self) -> bool:
        """Whether it has a consumer, or had one and is left to other processes for a while."""
        return self.is_subscribed or self.suspended_since > 0 or self.is_resuming

    def on_opened(self, channel: PikaChannel) -> None:
        """Take the AMQP channel, once it is open."""
        self.channel = channel

    def on_subscribing(self, on_reply: Callable[[], None]) -> None:
        """Note that a consumer was asked for; `on_reply` is called when the broker has replied, or the channel is lost."""
        self._on_reply = on_reply

    def on_subscribed(self, consumer_tag: str, prefetch: int) -> bool:
        """Note the consumer that the broker has confirmed; return whether its queue was suspended before."""
        self._on_reply()
        was_suspended, self.is_resuming = self.is_resuming, False
        self.consumer_tag = consumer_tag
        self.prefetch = prefetch
        return was_suspended

    def set_shared_limit(self) -> None:
        """As `PikaChannel.set_shared_limit`, if the channel is open."""
        if self.channel is not None:
            self.channel.set_shared_limit()
            self.has_shared_limit = True

    def on_replacing(self, on_written: Callable[[], None]) -> None:
        """
        Note that its consumer is about to be replaced: until `on_replaced` or `write_withheld` it writes no acknowledgements.

        Else they would have the broker send more to the former consumer, which is redelivered if that is cancelled meanwhile.
        `on_written` is called when they are written.
        """
        self.is_being_replaced = self._withholds = True
        self._on_written = on_written

    def on_replaced(self) -> None:
        """Note that its former consumer is cancelled."""
        self.is_being_replaced = False
        self.write_withheld()

    def write_withheld(self) -> None:
        """Write the acknowledgements that were withheld."""
        self._withholds = False
        self._on_written()
        self.flush()

    @property
    def lasting_tag(self) -> str | None:
        """The tag of its consumer; None if it has none, or if one is about to take the place of another."""
        has_channel = self.channel is not None and self.channel.is_open
        return self.consumer_tag if has_channel and not self.is_being_replaced else None

    def take_consumer_tag(self) -> str | None:
        """Return the tag of the consumer that is to be cancelled, None if there is none yet; have none from now on."""
        if (tag := self.lasting_tag) is not None:
            self.consumer_tag = None
        return tag

    def cancel(self, consumer_tag: str, on_cancelled: Callable[[], None]) -> None:
        """Cancel a consumer, if the channel is open."""
        if self.channel is not None and self.channel.is_open:
            self.channel.cancel(consumer_tag, on_cancelled)

    def on_cancelled(self) -> None:
        """Note that no delivery can arrive any more, until it subscribes again."""
        self.is_cancelled = True

    def suspend(self) -> float:
        """Have no consumer for a while; return since when."""
        self.consumer_tag = None
        self.suspended_since = self._monotonic()
        return self.suspended_since

    def resume(self) -> bool:
        """End the suspension; return whether it can subscribe again: if its channel is closed, `consumer` opens another."""
        self.suspended_since, self.is_cancelled = 0.0, False
        self.is_resuming = self.channel is not None and self.channel.is_open
        return self.is_resuming

    def check(self, state: QueueState, arrives: bool, arrives_elsewhere: bool) -> str:
        """
        Return why the subscription does not deliver, "" if it does as far as can be seen.

        A part of a message may have arrived on this channel (`arrives`), or on another one (`arrives_elsewhere`): it may be
        a long one, which this queue's messages wait behind.
        """
        unsettled = self.has_unsettled
        if not state.ready or arrives or unsettled or self._last_tag != self._checked_tag:
            self._idle_checks = 0.0
        else:
            self._idle_checks += BEHIND_OTHERS if arrives_elsewhere else 1.0
        if state.consumers:
            self._missing_checks = 0
        elif not (state.is_unreliable and unsettled):
            self._missing_checks += 1
        self._checked_tag = self._last_tag
        if state.ready is None:
            return "the queue does not exist"
        if self._missing_checks >= MAX_MISSING_CHECKS:
            return "the broker has no consumer"
        if self._idle_checks >= MAX_IDLE_CHECKS:
            return f"{state.ready} messages are ready, but none is delivered"
        return ""

    @property
    def is_sound(self) -> bool:
        """Whether the last check found nothing wrong at all."""
        return not self._idle_checks and not self._missing_checks

    def invalidate(self) -> bool:
        """Forget all deliveries, which the broker requeues: the channel is lost. False if it was lost before."""
        if not self.is_open:
            return False
        self._on_reply()
        self.is_open = False
        self.consumer_tag = None
        self.suspended_since, self.is_resuming = 0.0, False
        self.unclaimed.clear()
        return True
