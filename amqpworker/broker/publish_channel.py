"""
One channel in confirm mode: what is in flight on it, by delivery tag.

Decides which confirm and which return belong to which publication (https://www.rabbitmq.com/docs/confirms). What a
refusal or the end of the channel leads to is decided by its `lane`.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Protocol

from amqpworker.broker.amqp.events import ReturnedMessage
from amqpworker.broker.channel import Channel, Prepared, open_channel
from amqpworker.broker.liveness import Liveness
from amqpworker.broker.pending_publish import PendingPublish
from amqpworker.broker.pika_connection import ChannelListener, PikaConnection
from amqpworker.errors import AmqpWorkerError
from amqpworker.model.message import Delivery

__all__ = ["ChannelUser", "PublishChannel"]

MOST_IN_FLIGHT = 4096
MOST_BYTES_IN_FLIGHT = 32 * 1024 * 1024


class ChannelUser(Protocol):
    """Who publishes on a channel; all in the I/O thread."""

    def on_ready(self, channel: PublishChannel) -> None:
        """Take that publications can be written on it."""

    def on_refused(self, channel: PublishChannel, outgoing: PendingPublish, ack: bool) -> None:
        """Take that the broker did not confirm a publication (`ack` is false), or returned it."""

    def on_confirmed(self, channel: PublishChannel) -> None:
        """Take that there is room again."""

    def on_closed(self, channel: PublishChannel, error: BaseException) -> None:
        """Take that the channel has ended; `take_in_flight` returns what was in flight."""

    def on_reply(self, correlation_id: str, body: bytes) -> None:
        """Take the reply to a call."""


class PublishChannel(ChannelListener):
    """A channel for publications; `serial` is its place in the order of a process's channels."""

    def __init__(self, serial: int, user: ChannelUser, replies: bool = False) -> None:
        self.serial = serial
        self.is_open = False
        self._user = user
        self._replies = replies
        self._channel: Channel | None = None
        self._in_flight: dict[int, PendingPublish] = {}
        self._bytes_in_flight = 0
        self._next_tag = 1
        self._answered: Callable[[], None] = lambda: None

    @property
    def number(self) -> int:
        """The channel's number; the channel is open."""
        assert self._channel is not None
        return self._channel.number

    @property
    def busy(self) -> bool:
        """Whether a caller still waits for a confirm."""
        return bool(self._in_flight)

    def room(self) -> tuple[int, int]:
        """Return how many publications, and how many bytes of them, the bounds allow now."""
        return MOST_IN_FLIGHT - len(self._in_flight), MOST_BYTES_IN_FLIGHT - self._bytes_in_flight

    def open(self, connection: PikaConnection, liveness: Liveness) -> None:
        """Open it, in confirm mode, with a consumer of direct replies if it is to have one."""

        def late(may_leave: bool) -> None:
            if may_leave:
                liveness.leave("a channel to publish on")
            else:
                self._answered = liveness.expect_answer(late)

        self._answered = liveness.expect_answer(late)

        def opened(channel: Channel) -> None:
            self._channel = channel
            channel.select_confirms(consume if self._replies else ready)

        def consume() -> None:
            assert self._channel is not None
            self._channel.consume_replies(ready)

        def ready() -> None:
            self._answered()
            self.is_open = True
            self._user.on_ready(self)

        def closed(error: BaseException) -> None:
            self._answered()
            self.is_open = False
            # If the connection has ended it is that which says why: the lane is told next, and takes what is in flight.
            if connection.is_open:
                self._user.on_closed(self, error)

        open_channel(connection, self, opened, closed)

    def close(self) -> None:
        """Close it without a callback."""
        self._answered()
        self.is_open = False
        self._user = CLOSED_USER
        if self._channel is not None:
            self._channel.close()

    def add(self, outgoing: PendingPublish) -> None:
        """Count a publication as in flight; whoever does writes it next, in the same order."""
        outgoing.channel = self.serial
        self._in_flight[self._next_tag] = outgoing
        self._next_tag += 1
        self._bytes_in_flight += outgoing.size

    def write(self, batch: list[Prepared]) -> None:
        """Write publications that were added."""
        assert self._channel is not None
        self._channel.publish(batch)

    def on_confirm(self, tag: int, multiple: bool, ack: bool) -> None:
        """End what the broker confirmed or refused."""
        in_flight = self._in_flight
        if multiple:
            tags = list(itertools.takewhile(lambda one: one <= tag, in_flight))
        else:
            tags = [tag] if tag in in_flight else []
        for one in tags:
            outgoing = in_flight.pop(one)
            self._bytes_in_flight -= outgoing.size
            if ack and outgoing.returned is None:
                outgoing.finish(None)
            elif not outgoing.done:
                self._user.on_refused(self, outgoing, ack)
        self._user.on_confirmed(self)

    def on_return(self, returned: ReturnedMessage) -> None:
        """Note which publication was returned: its confirm comes next."""
        message_id = returned.properties.message_id
        for outgoing in self._in_flight.values():
            if outgoing.returned is not None:
                continue
            what = outgoing.prepared.publication
            if (
                what.properties.message_id == message_id
                and what.routing_key == returned.routing_key
                and what.exchange == returned.exchange
            ):
                outgoing.returned = returned.reply_text
                return

    def on_delivery(self, delivery: Delivery) -> None:
        """Hand on a reply."""
        self._user.on_reply(delivery.properties.correlation_id or "", delivery.body)

    def expire(self, now: float, error: Callable[[], AmqpWorkerError] | None) -> None:
        """
        End what was not confirmed in time; a confirm of it that comes later, by hours perhaps, means nothing.

        Without an error it is waited for on, and only takes no room from others: who keeps it has bounds of his own.
        """
        for tag in [tag for tag, one in self._in_flight.items() if one.deadline <= now]:
            outgoing = self._in_flight[tag]
            self._bytes_in_flight -= outgoing.size
            if error is None:
                outgoing.size = 0
            else:
                del self._in_flight[tag]
                outgoing.finish(error())

    def overdue(self, before: float) -> int:
        """Return how many publications were to be confirmed before this moment (monotonic), and are waited for."""
        # A copy first, in one step: this is asked by other threads.
        return sum(1 for one in list(self._in_flight.values()) if one.deadline <= before)

    def take_in_flight(self) -> list[PendingPublish]:
        """Return what a caller waits for, in order, and forget it."""
        taken = [one for one in self._in_flight.values() if not one.done]
        self._in_flight.clear()
        self._bytes_in_flight = 0
        return taken


class _ClosedUser:
    """The user of a channel that was closed here."""

    def on_ready(self, channel: PublishChannel) -> None:
        """Close what was opened too late."""
        channel.close()

    def on_refused(self, *_: object) -> None: ...

    def on_confirmed(self, *_: object) -> None: ...

    def on_closed(self, *_: object) -> None: ...

    def on_reply(self, *_: object) -> None: ...


CLOSED_USER = _ClosedUser()
