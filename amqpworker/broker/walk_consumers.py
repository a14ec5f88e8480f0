"""
The consumers of a walk through a queue: how many there are, which deliveries each got, and how those are requeued in order.

Decides only what the broker's order requires (measured on 3.10, 4.0 and 4.3). RabbitMQ puts what is requeued behind all that
was requeued before, and in front of the rest. Below 4.0, the messages of a channel keep their order if it is closed; from 4.0
on if they are requeued by a nack, which does not count as a failed delivery there. Only 32 commands of a channel keep their
order (`rabbit_fifo_client`), and only the messages of 32 consumers that end together (`rabbit_fifo`): so each nack, and each
close of a channel, has to take effect before the next one.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from amqpworker.broker.ack_tracker import AckTracker
from amqpworker.broker.connection import ChannelError, ChannelListener
from amqpworker.broker.pika_channel import MAX_PREFETCH, PikaChannel
from amqpworker.broker.pika_connection import PikaConnection
from amqpworker.model.message import Delivery

PORTION = 5_000
"""Messages per consumer: the broker keeps in memory what one consumer is to receive, however much that is."""

MAX_CONSUMERS = 30
CLOSING_KEEPS_ORDER_BELOW = (4,)
OTHER_CHANNELS = 2


@dataclass(frozen=True, slots=True)
class Portions:
    """How a queue is walked: `size` messages for each consumer, and whether they have `own_channels` or share one."""

    size: int
    own_channels: bool

    @classmethod
    def of(cls, messages: int, by_closing: bool, channel_max: int) -> Portions:
        """Return the portions of a queue with this many messages; `channel_max` is 0 if the broker has no limit."""
        own_channels = by_closing and messages > (MAX_CONSUMERS - 1) * PORTION
        if not own_channels or channel_max == 0:
            return cls(PORTION, own_channels)
        # A broker that allows few channels has to keep more in memory.
        most = max(PORTION, -(-messages // max(1, channel_max - OTHER_CHANNELS)))
        return cls(min(most, MAX_PREFETCH), own_channels)


@dataclass(slots=True, eq=False)
class WalkConsumer:
    """One consumer that gets `credit` messages and no more; its deliveries have the tags from `first_tag` on."""

    tag: str
    credit: int
    channel: PikaChannel | None = None
    first_tag: int = 0
    arrived: int = 0
    deliveries: deque[Delivery] = field(default_factory=deque)
    is_subscribed: bool = False
    is_cancelled: bool = False
    _removed: bytearray = field(default_factory=bytearray)

    @property
    def is_complete(self) -> bool:
        """Whether it has got all that it may get."""
        return self.arrived >= self.credit

    def receive(self, delivery: Delivery) -> None:
        """Note a delivery."""
        if not self.arrived:
            self.first_tag = delivery.tag
        self.arrived += 1
        self._removed.append(0)
        self.deliveries.append(delivery)

    def note_removed(self, delivery: Delivery) -> None:
        """Note that a delivery is not requeued."""
        self._removed[delivery.tag - self.first_tag] = 1

    @property
    def last_to_requeue(self) -> int | None:
        """The tag of the last delivery that is to be requeued; `None` if all are removed."""
        place = self._removed.rfind(0)
        return None if place < 0 else self.first_tag + place


@dataclass(frozen=True, slots=True)
class RequeueStep:
    """
    A step that requeues messages in their order: a nack `up_to` a tag, or (`None`) the close of the channel.

    Once it has taken effect, the queue has at most `left` consumers of the walk. Without a channel it only waits for that.
    """

    channel: PikaChannel | None
    up_to: int | None
    left: int


class SubscriptionEnded(ChannelError):
    """The broker has ended the subscription to this queue: the queue was deleted, or has lost its leader."""

    def __init__(self, queue: str) -> None:
        super().__init__(queue)
        self.queue = queue


class WalkConsumers(ChannelListener):
    """
    The consumers of one walk, used in the I/O thread only.

    `on_progress` is called when a consumer is subscribed and when it has got all its messages, `on_error` if the broker closes a
    channel or ends a subscription.
    """

    def __init__(
        self, queue: str, by_closing: bool, on_progress: Callable[[], None], on_error: Callable[[BaseException], None]
    ) -> None:
        self._queue = queue
        self._by_closing = by_closing
        self._on_progress = on_progress
        self._on_error = on_error
        self._by_tag: dict[str, WalkConsumer] = {}
        self._trackers: dict[PikaChannel, AckTracker] = {}
        self._closing: dict[int, Callable[[], None]] = {}
        self._is_ending = False

    # ---- read and remove --------------------------------------------------------------------------------------------

    def subscribe(self, connection: PikaConnection, consumer: WalkConsumer, own_channel: bool) -> None:
        """Subscribe once more, on the channel of the last consumer, or with `own_channel` on a new one."""
        last = next(reversed(self._by_tag.values()), None)
        self._by_tag[consumer.tag] = consumer

        def on_opened(channel: PikaChannel) -> None:
            if self._is_ending:
                channel.close()
                return
            channel.on_cancel(lambda: self._on_error(SubscriptionEnded(self._queue)))
            consume(channel)

        def consume(channel: PikaChannel) -> None:
            consumer.channel = channel
            channel.consume(self._queue, consumer.credit, consumer.tag, on_consumed)

        def on_consumed() -> None:
            consumer.is_subscribed = True
            self._on_progress()

        if last is not None and last.channel is not None and not own_channel:
            consume(last.channel)
        else:
            connection.open_channel(self, on_opened, lambda error: self._on_closed(consumer, error))

    def on_delivery(self, delivery: Delivery) -> None:
        """Take a message; the last one of a consumer ends its subscription, so that an ack makes room for no other one."""
        consumer = self._by_tag.get(delivery.consumer_tag)
        if consumer is None:
            return
        consumer.receive(delivery)
        if consumer.is_complete:
            self.cancel(consumer)
            self._on_progress()

    @property
    def counted(self) -> int:
        """How many of the consumers the broker counts for certain: those that may get messages, or have some that stay."""
        made = self._by_tag.values()
        return sum(one.last_to_requeue is not None or (one.is_subscribed and not one.is_cancelled) for one in made)

    def cancel(self, consumer: WalkConsumer) -> None:
        """End a subscription; what it has got stays with it."""
        if not consumer.is_cancelled and consumer.channel is not None and consumer.channel.is_open:
            consumer.is_cancelled = True
            consumer.channel.cancel(consumer.tag, lambda: None)

    def acknowledge(self, deliveries: Iterable[Delivery]) -> bool:
        """Remove messages from the queue, each once; false if a channel has ended, so that they are in the queue again."""
        tags: dict[PikaChannel, list[int]] = {}
        for delivery in deliveries:
            consumer = self._by_tag[delivery.consumer_tag]
            if consumer.channel is None or not consumer.channel.is_open:
                return False
            consumer.note_removed(delivery)
            tags.setdefault(consumer.channel, []).append(delivery.tag)
        for channel, removed in tags.items():
            for tag, multiple in self._trackers.setdefault(channel, AckTracker()).settle(removed):
                channel.ack(tag, multiple)
            channel.flush()
        return True

    # ---- requeue ----------------------------------------------------------------------------------------------------

    def end(self, on_ready: Callable[[list[RequeueStep]], None]) -> None:
        """Subscribe no more; `on_ready` is called with what requeues the rest, once no delivery is under way."""
        self._is_ending = True
        channels = list(dict.fromkeys(one.channel for one in self._by_tag.values() if one.channel is not None))
        waiting = [channel for channel in channels if channel.is_open]

        def on_finished() -> None:
            waiting.pop()
            if not waiting:
                on_ready(self._steps(channels))

        if not waiting:
            on_ready([])
        for channel in list(waiting):
            self._finish(channel, on_finished)

    def _finish(self, channel: PikaChannel, on_finished: Callable[[], None]) -> None:
        """Call `on_finished` once the consumers of a channel have all their deliveries, and the broker all acks."""
        if not self._by_closing:
            for consumer in self._by_tag.values():
                if consumer.channel is channel:
                    self.cancel(consumer)
            # Its answer is behind the last delivery of a cancelled consumer.
            channel.ask(self._queue, lambda _: on_finished())
        elif channel in self._trackers:
            # The broker gathers acks if there are many, and forgets them at the close of the channel. Two more commands of this
            # channel, one after the other, are behind all of them; what the new consumer may get is newer than all others.
            tag = f"{next(reversed(self._by_tag))} last"
            channel.consume(self._queue, 1, tag, lambda: channel.cancel(tag, on_finished))
        else:
            on_finished()

    def _steps(self, channels: list[PikaChannel]) -> list[RequeueStep]:
        """Return what requeues everything in order."""
        if self._by_closing:
            counts = [sum(one.channel is channel for one in self._by_tag.values()) for channel in channels]
            return [RequeueStep(channel, None, sum(counts[place + 1 :])) for place, channel in enumerate(channels)]
        found = [(one.channel, tag) for one in self._by_tag.values() if one.channel and (tag := one.last_to_requeue)]
        # Consumers of which all messages were removed vanish once the broker has their acks.
        acked = RequeueStep(None, None, len(found))
        nacks = [RequeueStep(channel, tag, len(found) - place) for place, (channel, tag) in enumerate(found, 1)]
        return [acked, *nacks, *(RequeueStep(channel, None, 0) for channel in channels)]

    def requeue(self, step: RequeueStep, on_done: Callable[[], None]) -> None:
        """Do a step; `on_done` is called when the broker has got it."""
        channel = step.channel
        if channel is None or not channel.is_open:
            on_done()
        elif step.up_to is None:
            self._closing[channel.number] = on_done
            channel.close()
        else:
            channel.requeue_up_to(step.up_to)
            on_done()

    def _on_closed(self, consumer: WalkConsumer, error: ChannelError) -> None:
        channel = consumer.channel
        on_requeued = None if channel is None else self._closing.pop(channel.number, None)
        if on_requeued is not None:
            on_requeued()
        else:
            self._on_error(error)
