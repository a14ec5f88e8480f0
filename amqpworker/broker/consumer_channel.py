"""
One incarnation of the channel that a queue is consumed by: the generation that its deliveries belong to.

Decides nothing; `consumer` opens and closes it, and its receiver takes the deliveries.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from amqpworker.broker.channel import Channel
from amqpworker.broker.pika_connection import ChannelListener
from amqpworker.model.message import Delivery
from amqpworker.routing.queues import Requirement

__all__ = ["ConsumerChannel", "Receiver", "Subscription"]


@dataclass(frozen=True, slots=True)
class Subscription:
    """A queue to consume from: how many deliveries at once, and what must exist first."""

    queue: str
    prefetch: int
    requirements: tuple[Requirement, ...] = ()


class Receiver(Protocol):
    """Who takes deliveries and settles them; all in the I/O thread."""

    def begin(self, intake: ConsumerChannel) -> None:
        """Make ready for the deliveries of a new channel."""

    def receive(self, delivery: Delivery) -> None:
        """Take a delivery."""

    def end(self, intake: ConsumerChannel) -> None:
        """Forget the deliveries of a channel that is gone."""

    def on_ack_timeout(self, intake: ConsumerChannel, timeout: float, reason: str) -> None:
        """Name what runs for longer than the ack timeout, for the `reason` that the channel is lost."""

    def holds(self, intake: ConsumerChannel) -> bool:
        """Tell whether deliveries of a channel are not settled yet."""

    def settle(self) -> None:
        """Settle what has gathered."""

    def tick(self) -> bool:
        """Look at what has waited for too long; true while there is anything to look at."""


class ConsumerChannel(ChannelListener):
    """
    One incarnation of the channel of one queue: the generation that its deliveries belong to.

    `unclaimed` maps the tag of each delivery that no runner has begun to the time it came. Whoever pops a tag from it
    owns the delivery: a runner to run it, the I/O thread to give it back. `suspects` are tags of those to run in an
    isolated process, `redelivered` those that were delivered before. `watch` is called when the first delivery comes.

    While it is held, from `held_since` on (monotonic, 0 if it is not), it has no consumer and its deliveries stay; after
    that it is `released` until it has one again.
    """

    def __init__(self, subscription: Subscription, receiver: Receiver, watch: Callable[[], None]) -> None:
        self.subscription = subscription
        self.queue = subscription.queue
        self.receiver = receiver
        self.watch = watch
        self.channel: Channel | None = None
        self.consumer_tag: str | None = None
        self.unclaimed: dict[int, float] = {}
        self.suspects: set[int] = set()
        self.redelivered: set[int] = set()
        self.held_since = 0.0
        self.released = False
        self.last_tag = 0
        self.is_open = True
        self.cancelled = False
        self.ledger: Any = None
        self.looked_at = 0
        self.starved = 0.0
        self.forgotten = 0
        self.answered: Callable[[], None] = lambda: None

    @property
    def subscribed(self) -> bool:
        """Whether the broker has confirmed a consumer."""
        return self.consumer_tag is not None

    @property
    def served(self) -> bool:
        """Whether it has a consumer, or had one and is left to other processes for a while."""
        return self.subscribed or self.held_since > 0 or self.released

    def on_delivery(self, delivery: Delivery) -> None:
        """Take a delivery from the channel."""
        if not self.is_open:
            return  # it comes again on the next channel
        delivery.intake = self
        delivery.queue = self.queue
        if not self.unclaimed:
            self.watch()
        tag = self.last_tag = delivery.tag
        self.unclaimed[tag] = time.monotonic()
        self.receiver.receive(delivery)
