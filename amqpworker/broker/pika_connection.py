"""
The one place that meets pika's insides: bytes in, bytes out.

`PikaConnection` hands what the socket read to our `StreamDecoder` and only what is no content back to pika, whose
decoder gives up the connection at a property that it cannot read. Where pika looks different from the versions that
this was written for, or where settings say `codec="pika"`, channels go by pika's public methods instead.
"""

from __future__ import annotations

import fcntl
import select
import socket
import struct
import termios
from collections.abc import Mapping, Sequence
from typing import Any

import pika
import pika.channel
import pika.frame
from pika.adapters.select_connection import SelectConnection
from pika.exceptions import NoFreeChannels

from amqpworker.broker.amqp.decode import StreamDecoder
from amqpworker.broker.amqp.events import Confirm, FrameError, GetOk, RawFrame, ReturnedMessage
from amqpworker.log.logger import get_logger
from amqpworker.model.message import Delivery

__all__ = ["ChannelListener", "PikaConnection", "PublicConnection", "connection_class", "socket_of"]

log = get_logger(__name__)

# pika reads 4 KiB at a time: thirteen deliveries, then another system call.
RECEIVE_BYTES = 256 * 1024

read_count = struct.Struct("i").unpack
COUNT_SIZE = 4

SEAM = {
    SelectConnection: ("_on_data_available", "_process_frame", "_output_marshaled_frames", "_terminate_stream"),
    pika.frame: ("decode_frame",),
}


class ChannelListener:
    """Who takes what arrives on one channel; every method runs in the I/O thread."""

    def on_delivery(self, delivery: Delivery) -> None:
        """Take a message."""

    def on_return(self, returned: ReturnedMessage) -> None:
        """Take a message of ours that no queue takes."""

    def on_confirm(self, tag: int, multiple: bool, ack: bool) -> None:
        """Take the broker's word about messages of ours."""

    def on_got(self, got: GetOk) -> None:
        """Take the answer to a get."""


class PublicConnection(SelectConnection):  # type: ignore[misc]
    """A connection that decodes and encodes by pika alone."""

    own_codec = False

    def __init__(self, *arguments: Any, **named: Any) -> None:
        self.sinks: dict[int, ChannelListener] = {}
        self.blocked_now = False
        self._ending = False
        self.heard = False
        self._numbers_in_use: set[int] = set()
        self._last_number = 0
        super().__init__(*arguments, **named)

    def _on_data_available(self, data: bytes) -> None:
        self.heard = True
        super()._on_data_available(data)

    def take_number(self) -> int:
        """
        Return a number for another channel.

        pika takes the lowest that is free, which may be that of a channel which was closed this moment and is about to
        be opened again.

        Raises:
            NoFreeChannels: all numbers are in use.
        """
        limit = self.params.channel_max or pika.channel.MAX_CHANNELS
        for _ in range(limit):
            self._last_number = self._last_number + 1 if self._last_number < limit else 1
            if self._last_number not in self._numbers_in_use:
                self._numbers_in_use.add(self._last_number)
                return self._last_number
        raise NoFreeChannels(limit)

    def give_number(self, number: int) -> None:
        """Take a number back whose channel is closed."""
        self._numbers_in_use.discard(number)

    @property
    def has_part(self) -> bool:
        """Whether a part of something has come whose rest has not."""
        return bool(getattr(self, "_frame_buffer", b""))

    def has_part_of(self, channel: int) -> bool:  # noqa: ARG002 - pika does not tell by channels
        """Tell whether a part of something has come on this channel, as far as that is known."""
        return self.has_part

    @property
    def unsent(self) -> int:
        """How many bytes have been written that the other side's system has not taken yet."""
        sock = socket_of(self)
        if sock is None:
            return 0
        buffered: int = self._transport.get_write_buffer_size()
        try:
            return buffered + int(read_count(fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, bytes(COUNT_SIZE)))[0])
        except OSError:
            return buffered

    @property
    def takes_messages(self) -> bool:
        """Whether publications can be written now; pika calls itself open for a moment after the broker's goodbye."""
        return bool(self.is_open) and not self.blocked_now and not self._ending

    def _terminate_stream(self, error: Exception | None) -> None:
        self._ending = True
        super()._terminate_stream(error)

    @property
    def has_unread(self) -> bool:
        """Whether the broker has sent something that was not read yet: its goodbye, perhaps."""
        sock = socket_of(self)
        if sock is None:
            return False
        poller = select.poll()
        poller.register(sock, select.POLLIN | select.POLLRDHUP)
        return bool(poller.poll(0))


class PikaConnection(PublicConnection):
    """A connection that decodes contents and confirms by our codec, and leaves all else to pika."""

    own_codec = True

    def __init__(self, *arguments: Any, **named: Any) -> None:
        self.decoder = StreamDecoder()
        self._plain_socket: socket.socket | None = None
        super().__init__(*arguments, **named)

    @property
    def has_part(self) -> bool:
        """Whether a part of something has come whose rest has not."""
        return self.decoder.has_part

    def has_part_of(self, channel: int) -> bool:
        """Tell whether a part of something has come on this channel."""
        return self.decoder.has_part_of(channel)

    def _proto_connection_made(self, transport: Any) -> None:
        if hasattr(transport, "_MAX_RECV_BYTES"):
            transport._MAX_RECV_BYTES = RECEIVE_BYTES  # noqa: SLF001 - a constant of pika's class, for this socket only
        sock = getattr(transport, "_sock", None)
        self._plain_socket = sock if type(sock) is socket.socket else None
        super()._proto_connection_made(transport)

    def _on_data_available(self, data: bytes) -> None:
        self.heard = True
        self.bytes_received += len(data)
        try:
            events = self.decoder.feed(data)
        except FrameError as error:
            if self.is_open:  # else it is no RabbitMQ, and whoever connects tells so
                log.error("stream_corrupt", problem=str(error))
            self._terminate_stream(error)
            return
        sinks = self.sinks
        for event in events:
            # By exact type, deliveries first: this loop is run for every message.
            if type(event) is Delivery:
                if sink := sinks.get(event.channel_number):
                    sink.on_delivery(event)
            elif type(event) is Confirm:
                if sink := sinks.get(event.channel):
                    sink.on_confirm(event.tag, event.multiple, event.ack)
            elif type(event) is RawFrame:
                self._hand_to_pika(event)
            elif type(event) is ReturnedMessage:
                if sink := sinks.get(event.channel):
                    sink.on_return(event)
            elif type(event) is GetOk and (sink := sinks.get(event.channel)):
                sink.on_got(event)

    def _hand_to_pika(self, raw: bytes) -> None:
        _, frame = pika.frame.decode_frame(raw)
        if frame is not None:
            self._process_frame(frame)

    def write(self, data: bytes) -> None:
        """
        Put marshalled frames on the wire, all in one write, and now where the socket takes them.

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


def connection_class(codec: str) -> type[PublicConnection]:
    """Return the connection to use: ours where pika has the seam that it was written for, and it is wanted."""
    if codec != "own":
        return PublicConnection
    missing = missing_parts(SEAM)
    if missing:
        log.warning("pika_seam_missing", missing=missing, pika=pika.__version__, effect="slower: pika's own codec")
        return PublicConnection
    return PikaConnection


def socket_of(connection: PublicConnection) -> Any:
    """Return the socket of a connection, `None` where there is none yet."""
    return getattr(getattr(connection, "_transport", None), "_sock", None)


def missing_parts(seam: Mapping[Any, Sequence[str]]) -> list[str]:
    """Return the private parts of pika that are not there."""
    return [name for owner, names in seam.items() for name in names if not callable(getattr(owner, name, None))]
