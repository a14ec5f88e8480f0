"""
The only module that uses pika's internals: bytes in, bytes out.

`PikaConnection` gives what the socket received to our `StreamDecoder`, and only frames without content to pika: pika's
decoder closes the connection at a property that it cannot read. Importing this module raises `ImportError` unless the
installed pika is one of the versions that the contract tests were run with.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any

import pika
import pika.frame
from pika import exceptions
from pika.adapters.select_connection import SelectConnection

from amqpworker.broker.amqp.decode import FrameError, RawFrame, StreamDecoder
from amqpworker.broker.channel_numbers import ChannelNumbers
from amqpworker.broker.connection import (
    ChannelClosedByBroker,
    ChannelClosedByUs,
    ChannelError,
    ChannelListener,
    ConnectionEnded,
    NoChannelLeft,
    OnClosed,
    dispatch,
)
from amqpworker.broker.connection_problem import version_in
from amqpworker.broker.library_version import require_version
from amqpworker.broker.pika_channel import PikaChannel
from amqpworker.broker.socket_state import has_unread, unsent_bytes
from amqpworker.log.logger import get_logger

log = get_logger(__name__)

# The versions of pika that the contract tests were run with: from the first one up to, but not including, the second.
OLDEST_PIKA = (1, 4)
FIRST_UNKNOWN_PIKA = (1, 5)

# pika reads 4 KiB at a time: thirteen deliveries, then another system call.
RECEIVE_BYTES = 256 * 1024


def check_pika_version(installed: str) -> None:
    """Raise ImportError unless this version of pika has the private methods that `PikaConnection` overrides and calls."""
    require_version("pika", installed, OLDEST_PIKA, FIRST_UNKNOWN_PIKA)


check_pika_version(pika.__version__)


class PikaConnection(SelectConnection):  # type: ignore[misc]
    """A connection that decodes contents and confirms by our codec, and leaves all other frames to pika."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        self.listeners: dict[int, ChannelListener] = {}
        """By channel number."""
        self.is_blocked = False
        self.has_received = False
        self.decoder = StreamDecoder()
        self._closing = False
        self._plain_socket: socket.socket | None = None
        self._channel_numbers = ChannelNumbers()
        super().__init__(*arguments, **named)

    # ---- channels ---------------------------------------------------------------------------------------------------

    def open_channel(
        self, listener: ChannelListener, on_opened: Callable[[PikaChannel], None], on_closed: OnClosed
    ) -> None:
        """Open a channel; `on_opened` is called then, `on_closed` when it is closed or cannot be opened."""

        def on_open(channel: Any) -> None:
            on_opened(PikaChannel(self, channel, listener))

        def on_close(channel: Any, reason: BaseException) -> None:
            self.listeners.pop(channel.channel_number, None)
            self._channel_numbers.release(channel.channel_number)
            on_closed(_channel_error(reason))

        try:
            channel = self.channel(
                channel_number=self._channel_numbers.take(self.params.channel_max or 0), on_open_callback=on_open
            )
        except NoChannelLeft as error:
            on_closed(error)
            return
        except exceptions.AMQPError as error:
            on_closed(_channel_error(error))
            return
        channel.add_on_close_callback(on_close)

    # ---- state ------------------------------------------------------------------------------------------------------

    @property
    def frame_max(self) -> int:
        """The largest frame that the broker accepts, in bytes; 0 means no limit."""
        return int(self.params.frame_max or 0)

    @property
    def unsent(self) -> int:
        """How many bytes were written that the other host has not acknowledged yet."""
        sock = socket_of(self)
        return 0 if sock is None else unsent_bytes(sock, self._transport.get_write_buffer_size())

    @property
    def accepts_messages(self) -> bool:
        """Whether publications can be written now; pika's `is_open` is true for a moment after the broker's close."""
        return bool(self.is_open) and not self.is_blocked and not self._closing

    @property
    def has_unread(self) -> bool:
        """Whether the broker has sent something that was not read yet: perhaps its close."""
        return has_unread(socket_of(self))

    # ---- overridden parts of pika -----------------------------------------------------------------------------------

    def _proto_connection_made(self, transport: Any) -> None:
        if hasattr(transport, "_MAX_RECV_BYTES"):
            transport._MAX_RECV_BYTES = RECEIVE_BYTES  # noqa: SLF001 - a constant of pika's class, for this socket only
        sock = getattr(transport, "_sock", None)
        self._plain_socket = sock if type(sock) is socket.socket else None
        super()._proto_connection_made(transport)

    def _terminate_stream(self, error: Exception | None) -> None:
        self._closing = True
        super()._terminate_stream(error)

    def _on_data_available(self, data: bytes) -> None:
        self.has_received = True
        self.bytes_received += len(data)
        try:
            events = self.decoder.feed(data)
        except FrameError as error:
            if self.is_open:  # else it is not RabbitMQ, and the user of the connection reports that
                log.error("stream_corrupt", reason=str(error))
            self._terminate_stream(error)
            return
        dispatch(events, self.listeners, self._process_raw_frame)

    def _process_raw_frame(self, raw: RawFrame) -> None:
        _, frame = pika.frame.decode_frame(raw)
        if frame is not None:
            self._process_frame(frame)

    def write(self, data: bytes) -> None:
        """
        Write marshalled frames in one piece, at once if the socket accepts them.

        pika would first ask the poller whether the socket is writable: four system calls and a round of its loop.
        """
        if self.is_closed:
            return
        transport = self._transport
        if transport.get_write_buffer_size() == 0 and self._plain_socket is not None:
            try:
                count = self._plain_socket.send(data)
            except OSError:
                count = 0  # full, or broken: pika finds out which
            self.bytes_sent += count
            if count == len(data):
                return
            data = data[count:]
        self._output_marshaled_frames([data])


def _channel_error(reason: BaseException) -> ChannelError:
    match reason:
        case exceptions.ChannelClosedByBroker():
            return ChannelClosedByBroker(reason.reply_code, reason.reply_text)
        case exceptions.ChannelClosedByClient():
            return ChannelClosedByUs(str(reason))
        case _:
            return ConnectionEnded(str(reason))


def socket_of(connection: PikaConnection | None) -> Any:
    """Return the socket of a connection, `None` if it has none yet."""
    return getattr(getattr(connection, "_transport", None), "_sock", None)


def version_of(connection: PikaConnection) -> tuple[int, ...]:
    """Return the version of the broker of a connection; empty, which counts as the oldest, if it has none."""
    return version_in(connection.server_properties or {})
