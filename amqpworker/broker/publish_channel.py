"""
A channel in confirm mode: what is in flight on it, by delivery tag.

Decides which confirm and which return belong to which publication (https://www.rabbitmq.com/docs/confirms).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import TYPE_CHECKING

from amqpworker.broker.amqp.decode import ReturnedMessage
from amqpworker.broker.connection import Channel, ChannelError, ChannelListener
from amqpworker.broker.pending_publish import PendingPublish
from amqpworker.errors import AmqpWorkerError
from amqpworker.model.message import Delivery

if TYPE_CHECKING:
    from amqpworker.broker.lane import Lane
    from amqpworker.broker.quarantine import Quarantine

MAX_IN_FLIGHT = 4096
MAX_BYTES_IN_FLIGHT = 32 * 1024 * 1024


class PublishChannel(ChannelListener):
    """
    A channel for publications of a lane; `serial` counts the channels of a process.

    Its `owner` writes on it: the lane or its quarantine, None once the channel was closed here.
    """

    def __init__(self, lane: Lane, owner: Lane | Quarantine) -> None:
        self.serial = next(lane.session.serials)
        self.owner: Lane | Quarantine | None = owner
        self._lane = lane
        self._channel: Channel | None = None
        self._in_flight: dict[int, PendingPublish] = {}
        self._bytes_in_flight = 0
        self._next_tag = 1
        self._stop_waiting: Callable[[], None] = lambda: None

    @property
    def number(self) -> int:
        """The channel's number; the channel is open."""
        assert self._channel is not None
        return self._channel.number

    @property
    def is_busy(self) -> bool:
        """Whether a caller still waits for a confirm."""
        return bool(self._in_flight)

    def room(self) -> tuple[int, int]:
        """Return how many publications, and how many bytes of them, the bounds allow now."""
        return MAX_IN_FLIGHT - len(self._in_flight), MAX_BYTES_IN_FLIGHT - self._bytes_in_flight

    def open(self) -> None:
        """Open it in confirm mode, with a consumer of direct replies if its lane has `replies`."""
        session = self._lane.session
        connection, liveness = session.connection, session.keeper.liveness
        assert connection is not None

        def on_late(may_leave: bool) -> None:
            if may_leave:
                liveness.leave("a channel to publish on")
            else:
                self._stop_waiting = liveness.expect_answer(on_late)

        self._stop_waiting = liveness.expect_answer(on_late)

        def on_opened(channel: Channel) -> None:
            self._channel = channel
            channel.select_confirms(consume if self._lane.purpose.replies else on_ready)

        def consume() -> None:
            assert self._channel is not None
            self._channel.consume_replies(on_ready)

        def on_ready() -> None:
            self._stop_waiting()
            if self.owner is None:
                self.close()
            else:
                self.owner.on_ready(self)

        def on_closed(error: ChannelError) -> None:
            self._stop_waiting()
            # If the connection was lost, the lane takes what is in flight: its `on_lost` is called next, with the reason.
            if self.owner is not None and connection.is_open:
                self.owner.on_closed(self, error)

        connection.open_channel(self, on_opened, on_closed)

    def close(self) -> None:
        """Close it without a callback."""
        self._stop_waiting()
        self.owner = None
        if self._channel is not None:
            self._channel.close()

    def add(self, pending: PendingPublish) -> None:
        """Count a publication as in flight; the caller writes it next, in the same order."""
        pending.channel = self.serial
        self._in_flight[self._next_tag] = pending
        self._next_tag += 1
        self._bytes_in_flight += pending.size

    def write(self, frames: list[bytes]) -> None:
        """Write publications that were added."""
        assert self._channel is not None
        self._channel.publish(frames)

    def on_confirm(self, tag: int, multiple: bool, ack: bool) -> None:
        """End what the broker confirmed, and report what it nacked or returned."""
        in_flight = self._in_flight
        if multiple:
            tags = list(itertools.takewhile(lambda one: one <= tag, in_flight))
        else:
            tags = [tag] if tag in in_flight else []
        for one in tags:
            pending = in_flight.pop(one)
            self._bytes_in_flight -= pending.size
            if ack and pending.returned is None:
                pending.finish(None)
            elif not pending.done:
                self._lane.on_refused(pending, ack)
        if self.owner is not None:
            self.owner.on_confirmed(self)

    def on_return(self, returned: ReturnedMessage) -> None:
        """Note which publication was returned: its confirm follows."""
        message_id = returned.properties.message_id
        for pending in self._in_flight.values():
            if pending.returned is not None:
                continue
            what = pending.publication
            if (
                what.properties.message_id == message_id
                and what.routing_key == returned.routing_key
                and what.exchange == returned.exchange
            ):
                pending.returned = returned.reply_text
                return

    def on_delivery(self, delivery: Delivery) -> None:
        """Pass on the reply to a call."""
        self._lane.session.calls.resolve(delivery.properties.correlation_id or "", delivery.body)

    def expire(self, now: float, error: Callable[[], AmqpWorkerError] | None) -> None:
        """
        End what was not confirmed in time; a confirm of it that arrives later, perhaps by hours, is ignored.

        Without an error it stays in flight and only stops to count against the bounds: its sender has bounds of its own.
        """
        for tag in [tag for tag, one in self._in_flight.items() if one.deadline <= now]:
            pending = self._in_flight[tag]
            self._bytes_in_flight -= pending.size
            if error is None:
                pending.size = 0
            else:
                del self._in_flight[tag]
                pending.finish(error())

    def overdue(self, before: float) -> int:
        """Return how many publications are in flight whose deadline was before this moment (monotonic)."""
        # Copied first, in one step: other threads call this.
        return sum(1 for one in list(self._in_flight.values()) if one.deadline <= before)

    def take_in_flight(self) -> list[PendingPublish]:
        """Return what a caller waits for, in order, and forget it."""
        taken = [one for one in self._in_flight.values() if not one.done]
        self._in_flight.clear()
        self._bytes_in_flight = 0
        return taken
