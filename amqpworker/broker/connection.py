"""
Connections and channels as the rest of `broker` uses them, whichever library made them.

Implemented by `pika_connection` and `pika_channel` in an I/O thread, by `aio_connection` and `aio_channel` in an event loop.
Everything here is called in that thread or loop.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, TypeAlias, TypeVar

from amqpworker.broker.amqp.decode import Confirm, Event, RawFrame, ReturnedMessage
from amqpworker.broker.connection_problem import ConnectionProblem
from amqpworker.model.message import Delivery
from amqpworker.routing.topology import Part


class ChannelError(Exception):
    """Why a channel was closed, or could not be opened."""


class ChannelClosedByBroker(ChannelError):
    """The broker closed the channel, with this code and text."""

    def __init__(self, reply_code: int, reply_text: str) -> None:
        super().__init__(reply_code, reply_text)
        self.reply_code = reply_code
        self.reply_text = reply_text


class ChannelClosedByUs(ChannelError):
    """The channel was closed by this process."""


class ConnectionEnded(ChannelError):
    """The connection ended before the channel was closed."""


class NoChannelLeft(ChannelError):
    """All channels that the broker allows on a connection, `limit`, are in use."""

    def __init__(self, limit: int) -> None:
        super().__init__(limit)
        self.limit = limit


OnClosed: TypeAlias = Callable[[ChannelError], None]


# RabbitMQ waits 250 ms for the leader of a queue, then it reports no messages and no consumers (3.10 to 4.3). So an answer that
# took about this many seconds is not reliable.
UNRELIABLE_AFTER = 0.2


class ChannelListener:
    """Receives what arrives on one channel."""

    def on_delivery(self, delivery: Delivery) -> None:
        """Receive a message."""

    def on_return(self, returned: ReturnedMessage) -> None:
        """Receive a message of ours that was not routed to any queue."""

    def on_confirm(self, tag: int, multiple: bool, ack: bool) -> None:
        """Receive the broker's confirm (`ack`) or refusal of messages of ours."""


def dispatch(events: list[Event], listeners: dict[int, ChannelListener], on_frame: Callable[[RawFrame], None]) -> None:
    """Pass what was decoded to the listeners of their channels, and all other frames to `on_frame`."""
    for event in events:
        # By exact type, deliveries first: this loop runs for every message.
        if type(event) is Delivery:
            if listener := listeners.get(event.channel_number):
                listener.on_delivery(event)
        elif type(event) is Confirm:
            if listener := listeners.get(event.channel):
                listener.on_confirm(event.tag, event.multiple, event.ack)
        elif type(event) is RawFrame:
            on_frame(event)
        elif type(event) is ReturnedMessage and (listener := listeners.get(event.channel)):
            listener.on_return(event)


@dataclass(frozen=True, slots=True)
class QueueState:
    """
    The broker's view of a queue: `ready` messages (None if there is no such queue) and `consumers`.

    If `is_unreliable`, both may be 0 because the leader of the queue has not responded.
    """

    ready: int | None
    consumers: int
    is_unreliable: bool = False

    @classmethod
    def from_answer(cls, ready: int, consumers: int, asked_at: float) -> QueueState:
        """Return what the broker has just answered to a question that was asked then (monotonic)."""
        return cls(ready, consumers, time.monotonic() >= asked_at + UNRELIABLE_AFTER)


class Channel(Protocol):
    """An open channel."""

    number: int

    @property
    def is_open(self) -> bool:
        """Whether frames can be sent on it."""

    def publish(self, frames: list[bytes]) -> None:
        """Write encoded publications in one piece."""

    def select_confirms(self, on_selected: Callable[[], None]) -> None:
        """Have the broker confirm every publication from now on."""

    def consume_replies(self, on_consumed: Callable[[], None]) -> None:
        """Subscribe to the replies to our calls: without acknowledgement, as direct reply-to requires."""

    def declare(self, part: Part, on_declared: Callable[[], None] | None) -> None:
        """Declare one part of a topology; without `on_declared` the broker's answer is ignored."""

    def ask(self, queue: str, on_answer: Callable[[QueueState], None]) -> None:
        """Ask for the state of a queue; if it does not exist, the broker closes the channel instead."""

    def close(self) -> None:
        """Close the channel."""


class Connection(Protocol):
    """An open connection."""

    bytes_received: int
    bytes_sent: int
    is_blocked: bool

    @property
    def is_open(self) -> bool:
        """Whether frames can be sent on it."""

    @property
    def accepts_messages(self) -> bool:
        """Whether publications can be written now."""

    @property
    def has_unread(self) -> bool:
        """Whether the broker has sent something that was not read yet: perhaps its close."""

    @property
    def unsent(self) -> int:
        """How many bytes were written that the other host has not acknowledged yet."""

    @property
    def frame_max(self) -> int:
        """The largest frame that the broker accepts, in bytes; 0 means no limit."""

    def open_channel(
        self, listener: ChannelListener, on_opened: Callable[[Channel], None], on_closed: OnClosed
    ) -> None:
        """Open a channel; `on_opened` is called then, `on_closed` when it is closed or cannot be opened."""


_C_contra = TypeVar("_C_contra", contravariant=True)


class ConnectionUser(Protocol[_C_contra]):
    """What uses the connections of a keeper; called in their thread."""

    def on_opened(self, connection: _C_contra) -> None:
        """The connection is open."""

    def on_lost(self, problem: ConnectionProblem) -> None:
        """The connection was lost or could not be made."""

    def on_wake(self) -> None:
        """Something has called `wake`."""

    def on_tick(self) -> bool:
        """Check deadlines, connected or not; return whether anything is waited for."""
