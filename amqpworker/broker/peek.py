"""
Peeking into a queue without changing it: consumers take all of it, and all of it is requeued at once.

Decides what to take and how to requeue it. RabbitMQ puts what is requeued behind all that was requeued before, and in front
of the rest (`rabbit_fifo`, 3.10 to 4.3): only requeueing the whole queue keeps its order. Messages from `basic.get`
are requeued in any order on every version. Those of a consumer keep theirs below 4.0 if the channel is closed, and from 4.0 on if
they are requeued by one nack, which does not count as a failed delivery there.
"""

from __future__ import annotations

from collections.abc import Callable
from queue import SimpleQueue
from typing import Any

from amqpworker.broker.connection import (
    ChannelClosedByUs,
    ChannelError,
    ChannelListener,
    QueueState,
)
from amqpworker.broker.labels import process_name
from amqpworker.broker.pika_channel import PikaChannel
from amqpworker.broker.pika_connection import PikaConnection, version_of
from amqpworker.broker.tool_connection import needs_read
from amqpworker.model.message import Delivery

FULL_SCAN_LIMIT = 100_000
"""Up to this many messages a queue is taken as a whole, even if fewer are to be returned."""

# Taken by one consumer after the other: the broker keeps in memory what one consumer is to receive, however large it is.
MIN_CREDIT = 200
# The messages of more than 32 consumers are requeued in any order.
MAX_PEEK_CONSUMERS = 30
CLOSING_KEEPS_ORDER_BELOW = (4,)


class End:
    """The last answer of a peek."""


class PeekSession(ChannelListener):
    """
    One peek into a queue: passes on the first `most` messages that match, and requeues everything.

    Each message is an answer, `None` if it is not passed on: a sign of life. `held` is how many were taken.
    """

    def __init__(
        self, queue: str, most: int, matches: Callable[[Delivery], bool] | None, answers: SimpleQueue[Any]
    ) -> None:
        self.held = 0
        self._queue = queue
        self._most = most
        self._matches = matches
        self._answers = answers
        self._channel: PikaChannel | None = None
        self._consumers: list[str] = []
        self._to_take = 0
        self._portion = 0
        self._credit = 0
        self._ending = False
        self._by_closing = True

    def start(self, connection: PikaConnection) -> None:
        """Open a channel and ask how many messages there are."""
        self._by_closing = version_of(connection) < CLOSING_KEEPS_ORDER_BELOW
        connection.open_channel(self, self._on_channel, self._on_closed)

    def finish(self) -> None:
        """Requeue what is held and take nothing more."""
        if self._ending:
            return
        self._ending = True
        if self._channel is None:
            return  # it is not open yet, or no longer
        if self._by_closing or not self._consumers:
            self._channel.close()
        else:
            self._cancel_next()

    def _on_channel(self, channel: PikaChannel) -> None:
        self._channel = channel
        if self._ending:
            channel.close()
        else:
            channel.ask(self._queue, self._on_state)

    def _on_state(self, state: QueueState) -> None:
        self._answers.put(None)
        self._to_take = min(state.ready or 0, FULL_SCAN_LIMIT)
        self._portion = max(MIN_CREDIT, -(-self._to_take // MAX_PEEK_CONSUMERS))
        self._take_more()

    def _take_more(self) -> None:
        """Take no more than there were at the beginning: a larger credit would also take messages that arrive meanwhile."""
        if self._to_take == 0 or self._ending or self._channel is None:
            self.finish()
            return
        self._credit = min(self._to_take, self._portion)
        # The broker requeues consumer by consumer, in the order of their tags.
        tag = f"{process_name()} peek {len(self._consumers):04}"
        self._consumers.append(tag)
        self._channel.consume(self._queue, self._credit, tag, lambda: None)

    def on_delivery(self, delivery: Delivery) -> None:
        """Hold one message."""
        self.held += 1
        passed_on = (self._matches is None or self._matches(delivery)) and self._most > 0
        self._most -= passed_on
        self._answers.put(delivery if passed_on else None)
        self._to_take -= 1
        self._credit -= 1
        if self._credit == 0:
            self._take_more()

    def _cancel_next(self) -> None:
        """Cancel one consumer after the other, then requeue all that they hold by one nack."""
        assert self._channel is not None
        if self._consumers:
            self._channel.cancel(self._consumers.pop(), self._cancel_next)
        else:
            self._channel.requeue_all()
            self._channel.close()

    def _on_closed(self, reason: ChannelError) -> None:
        self._channel = None
        by_us = self._ending and isinstance(reason, ChannelClosedByUs)
        self._answers.put(End if by_us else needs_read(reason))
