"""A publisher without its thread, on a connection that does nothing by itself: a test takes each step of both."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

from amqpworker.broker.address import addresses
from amqpworker.broker.connection import ChannelListener, NoChannelLeft, OnClosed
from amqpworker.broker.connection_problem import ConnectionProblem
from amqpworker.broker.io_thread import CLOSED, IOThread
from amqpworker.broker.publisher import Publisher
from amqpworker.client.calls import Calls
from amqpworker.model.message import Properties, Publication
from amqpworker.settings import Settings

ADDRESSES = addresses("amqp://localhost:1")
GONE = ConnectionProblem("gone.", "unreachable", "localhost:1")
CLOSE = ConnectionProblem(CLOSED, "unreachable", "localhost:1")
PUBLISH = b"\x00\x3c\x00\x28"


class StillThread(IOThread):
    """An I/O thread that never runs: a test does its work, and lets time pass for `call_later`."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._later: list[Callable[[], None]] = []

    def call_later(self, _delay: float, callback: Callable[[], None]) -> Callable[[], None]:
        self._later.append(callback)
        return lambda: self._later.remove(callback)

    def pass_time(self) -> None:
        """Call what is to be called later."""
        later, self._later = self._later, []
        for callback in later:
            callback()

    def start(self) -> None:
        """Do nothing."""

    def retire(self, _needed: Callable[[], bool] | None = None) -> None:
        self.is_retired = True

    def stop(self, _timeout: float) -> bool:
        return self.has_ended

    def join(self, _timeout: float) -> bool:
        return self.has_ended

    def end(self) -> None:
        """Do the last work of the thread."""
        self.has_ended = True
        self.user.on_lost(CLOSE)


class WireChannel:
    """A channel whose broker confirms what it is asked once the test has it `answer`; without queues."""

    def __init__(self, wire: Wire, number: int, on_closed: OnClosed) -> None:
        self.number = number
        self.is_open = False
        self._wire = wire
        self._on_closed = on_closed

    def publish(self, frames: list[bytes]) -> None:
        self._wire.written += b"".join(frames).count(PUBLISH)

    def select_confirms(self, on_selected: Callable[[], None]) -> None:
        self._wire.answers.append(on_selected)

    consume_replies = select_confirms

    def declare(self, *_: Any) -> None:
        """It is never declared."""

    def close(self, error: Exception | None = None) -> None:
        """Close it, as the broker does if there is an `error`."""
        self.is_open = False
        del self._wire.listeners[self.number]
        if error is not None:
            self._on_closed(error)


class Wire:
    """An open connection."""

    def __init__(self) -> None:
        self.is_open = self.accepts_messages = True
        self.is_blocked = self.has_unread = False
        self.frame_max = 131_072
        self.max_channels = 65_535
        self.listeners: dict[int, ChannelListener] = {}
        self.channels: list[WireChannel] = []
        self.answers: deque[Callable[[], None]] = deque()
        self.written = 0

    def open_channel(
        self, listener: ChannelListener, on_opened: Callable[[WireChannel], None], on_closed: OnClosed
    ) -> None:
        if len(self.channels) >= self.max_channels:
            on_closed(NoChannelLeft(self.max_channels))
            return
        channel = WireChannel(self, len(self.channels) + 1, on_closed)
        self.channels.append(channel)

        def opened() -> None:
            channel.is_open = True
            self.listeners[channel.number] = listener
            on_opened(channel)

        self.answers.append(opened)

    def answer(self) -> None:
        """Answer all requests."""
        while self.answers:
            self.answers.popleft()()

    def confirm(self, tag: int, *, multiple: bool = False, channel: int = 1) -> None:
        """Confirm what was published on a channel."""
        self.listeners[channel].on_confirm(tag, multiple, True)


class Publishing:
    """A publisher and its connection, if it is connected."""

    def __init__(self, *, connected: bool = True) -> None:
        self.publisher = Publisher(ADDRESSES, Settings(), Calls())
        self.thread = StillThread("publisher", ADDRESSES, Settings(), self.publisher)
        self.publisher.keeper = self.publisher.session.keeper = self.thread
        self.wire = Wire()
        if connected:
            self.publisher.on_opened(self.wire)  # type: ignore[arg-type]

    def write(self) -> None:
        """Write what can be written, with all that this needs."""
        self.publisher.on_wake()
        self.wire.answer()
        self.publisher.on_wake()

    def lose(self) -> None:
        """Lose the connection."""
        self.wire.is_open = False
        self.publisher.on_lost(GONE)

    def reconnect(self) -> None:
        """Lose the connection, make another, and write what can be written."""
        self.lose()
        self.wire = Wire()
        self.publisher.on_opened(self.wire)  # type: ignore[arg-type]
        self.write()


def publication(body: bytes = b"") -> Publication:
    return Publication("e", "k", Properties(), body)
