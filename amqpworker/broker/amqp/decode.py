"""
Decodes a stream of bytes, cut anywhere: to deliveries, returns, confirms and the frames that pika decodes.

A delivery that was read as a whole, as nearly all are, is decoded in one pass, everything else frame by frame.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import NamedTuple, TypeAlias

from amqpworker.broker.amqp.cache import Cache
from amqpworker.broker.amqp.encode import (
    BASIC_ACK,
    BASIC_CLASS,
    BASIC_NACK,
    BODY,
    FRAME_END,
    FRAME_OVERHEAD,
    HEADER,
    HEADER_FIELDS,
    METHOD,
)
from amqpworker.broker.amqp.properties import decode_properties, read_short, read_values
from amqpworker.model.message import Delivery, Properties

FRAME_MAX = 131_072
MAX_BODY = 536_870_912
"""RabbitMQ's limit for a message, independent of its configuration (rabbit.hrl)."""

HEARTBEAT = 8
KINDS = frozenset({METHOD, HEADER, BODY, HEARTBEAT})
CHANNEL_CLOSE, CHANNEL_CLOSE_OK = 0x00140028, 0x00140029
BASIC_RETURN, BASIC_DELIVER = 0x003C0032, 0x003C003C
CONFIRMS = frozenset({BASIC_ACK, BASIC_NACK})
CONFIRM_SIZE = 13
CONFIRM_FRAME = 21
FRAME_HEAD = 7
MAX_HEADS = 1024
GROWN = 4
"""RabbitMQ adds headers (`x-death`, `x-delivery-count`) to a content header that filled its frame, and sends it."""

read_frame = struct.Struct(">BHI").unpack_from
read_index = struct.Struct(">I").unpack_from
read_tag = struct.Struct(">Q").unpack_from
read_confirm = struct.Struct(">BHIIQBB").unpack_from
# From the end byte of the previous frame: this byte, the type of the frame and its channel are compared as one number.
read_header = struct.Struct(">IIIQH").unpack_from
read_body = struct.Struct(">II").unpack_from
HEADER_MARK = 0xCE020000
BODY_MARK = 0xCE030000

make = object.__new__


class FrameError(Exception):
    """The stream is corrupt: the connection must be closed."""


class ReturnedMessage(NamedTuple):
    """A message of ours that was not routed to any queue."""

    channel: int
    reply_code: int
    reply_text: str
    exchange: str
    routing_key: str
    properties: Properties
    body: bytes


class Confirm(NamedTuple):
    """The broker has confirmed a message of ours (`ack`) or nacked it; with all before it if `multiple`."""

    channel: int
    tag: int
    multiple: bool
    ack: bool


class RawFrame(bytes):
    """A whole frame that is neither content nor confirm, for pika."""


Event: TypeAlias = Delivery | ReturnedMessage | Confirm | RawFrame

Build: TypeAlias = Callable[[Properties, bytes, str], Event]
Route: TypeAlias = tuple[bool, str, str]


class Content:
    """A message whose method has arrived, but not yet all of its header and body."""

    __slots__ = ("build", "held", "parts", "problem", "properties", "size")

    def __init__(self, build: Build) -> None:
        self.build = build
        self.size = -1
        self.held = 0
        self.parts: list[bytes] = []
        self.properties = Properties()
        self.problem = ""


class Arguments:
    """The arguments of a method, read one after the other; `problem` names text that is not UTF-8."""

    def __init__(self, data: bytes, offset: int, end: int) -> None:
        self.data = data
        self.offset = offset
        self.end = end
        self.problem = ""

    def text(self, what: str) -> str:
        """Return a short string."""
        text, self.offset, trouble = read_short(self.data, self.offset, self.end)
        if self.offset > self.end:
            raise FrameError("a method is truncated")
        if trouble and not self.problem:
            self.problem = f"the {what} {trouble}"
        return text

    def number(self, width: int) -> int:
        """Return the next argument, an unsigned number of `width` bytes."""
        begin, self.offset = self.offset, self.offset + width
        if self.offset > self.end:
            raise FrameError("a method is truncated")
        return int.from_bytes(self.data[begin : self.offset])

    def finish(self) -> None:
        """Check that no byte is left."""
        if self.offset != self.end:
            raise FrameError("a method has more arguments than it should")


def read_route(raw: bytes) -> Route:
    """Return redelivered, exchange and routing key from the bytes between a delivery's tag and the next frame."""
    arguments = Arguments(raw, 0, len(raw) - 1)
    route = bool(arguments.number(1) & 1), arguments.text("exchange"), arguments.text("routing key")
    arguments.finish()
    if arguments.problem or raw[-1] != FRAME_END:
        raise FrameError(arguments.problem)
    return route


def _delivered(channel: int, arguments: Arguments) -> Build:
    consumer_tag, tag = arguments.text("consumer tag"), arguments.number(8)
    redelivered = bool(arguments.number(1) & 1)
    exchange, routing_key = arguments.text("exchange"), arguments.text("routing key")
    trouble = arguments.problem

    def build(properties: Properties, body: bytes, problem: str) -> Event:
        problem = trouble or problem
        return Delivery(
            tag, redelivered, exchange, routing_key, properties, body, problem, consumer_tag, channel_number=channel
        )

    return build


def _returned(channel: int, arguments: Arguments) -> Build:
    code, text = arguments.number(2), arguments.text("reply text")
    exchange, routing_key = arguments.text("exchange"), arguments.text("routing key")

    def build(properties: Properties, body: bytes, _problem: str) -> Event:
        return ReturnedMessage(channel, code, text, exchange, routing_key, properties, body)

    return build


BUILDERS: dict[int, Callable[[int, Arguments], Build]] = {
    BASIC_DELIVER: _delivered,
    BASIC_RETURN: _returned,
}
"""By the methods that have a content."""


class StreamDecoder:
    """
    The decoder of one connection's stream; `frame_max` may be set again once it is negotiated, 0 means without a limit.

    Every byte is copied a bounded number of times, however small the pieces that arrive, and no memory is allocated for a
    size that is only announced.
    """

    def __init__(self, frame_max: int = FRAME_MAX, max_body: int = MAX_BODY) -> None:
        self.frame_max = frame_max
        self.max_body = max_body
        self._pieces: list[bytes] = []
        self._held = 0
        self._wanted = 0
        self._contents: dict[int, Content] = {}
        self._heads: dict[bytes, tuple[int, int, str]] = {}
        self._routes: Cache[bytes, Route] = Cache(read_route)
        self._broken = ""

    @property
    def has_partial(self) -> bool:
        """Whether a frame or a message has arrived in part."""
        return bool(self._pieces or self._contents)

    def has_partial_on(self, channel: int) -> bool:
        """Return whether a frame or a message has arrived in part on this channel."""
        if channel in self._contents:
            return True
        return self._held >= FRAME_HEAD and bool(self._pieces) and read_frame(b"".join(self._pieces))[1] == channel

    def feed(self, data: bytes) -> list[Event]:
        """Return the events that this piece completes, in order; once the stream is not AMQP, every call raises FrameError."""
        if self._pieces:
            self._pieces.append(data)
            self._held += len(data)
            if self._held < self._wanted:
                return []
            data = b"".join(self._pieces)
            self._pieces = []
        events: list[Event] = []
        try:
            position = self._take(data, events)
        except FrameError as error:
            self._broken = str(error)
            raise
        if position < len(data):
            self._pieces.append(data[position:])
            self._held = len(data) - position
        return events

    def _take(self, data: bytes, events: list[Event]) -> int:
        """Add the events of all whole frames, and return the start of the first frame that is not whole."""
        if self._broken:
            raise FrameError(self._broken)
        position, following = -1, 0
        while following != position:
            position = following
            if not self._contents:
                position = _confirms(data, self._deliveries(data, position, events), events)
            following = self._frame(data, position, events)
        return position

    def _deliveries(self, data: bytes, position: int, events: list[Event]) -> int:
        """
        Add the deliveries that are whole in the data, and return the start of anything else.

        Anything unusual is left to `_frame`, and so are errors. Up to the tag, a delivery begins with the same bytes as the
        last one to its consumer, and its exchange and routing key repeat too: both are looked up, not decoded.
        """
        heads, routes = self._heads, self._routes
        limit = min(self.frame_max or self.max_body, self.max_body)  # longer ones are decoded frame by frame
        try:
            while True:
                tag_at = position + 12 + data[position + 11]
                head = heads.get(data[position:tag_at])
                if head is None:
                    return position
                length, channel, consumer_tag = head
                header_at = position + length
                route = routes[data[tag_at + 8 : header_at]]
                mark, header_size, class_id, size, flags = read_header(data, header_at - 1)
                stop = end = header_at + 7 + header_size
                if mark != HEADER_MARK | channel or class_id != BASIC_CLASS or header_size < HEADER_FIELDS:
                    return position
                if size:
                    mark, part = read_body(data, end)
                    stop = end + 8 + part
                    if mark != BODY_MARK | channel or part != size:
                        return position
                if data[stop] != FRAME_END or stop - position > limit:
                    return position
                delivery = make(Delivery)
                delivery.tag = read_tag(data, tag_at)[0]
                delivery.redelivered, delivery.exchange, delivery.routing_key = route
                delivery.queue = route[2]
                delivery.properties, delivery.problem = read_values(data, flags, header_at + 21, end)
                delivery.body = data[end + 8 : stop]
                delivery.consumer_tag = consumer_tag
                delivery.channel_number = channel
                events.append(delivery)
                position = stop + 1
        except (IndexError, struct.error, FrameError):
            return position

    def _frame(self, data: bytes, position: int, events: list[Event]) -> int:
        """Decode one frame of any type and return its end, or its start if it is not whole yet."""
        start = position + FRAME_HEAD
        if start > len(data):
            self._wanted = FRAME_HEAD
            return position
        kind, channel, size = read_frame(data, position)
        if kind not in KINDS:
            raise FrameError(_unknown_kind(data[position : position + 8]))
        if self.frame_max and size + FRAME_OVERHEAD > self.frame_max * (GROWN if kind == HEADER else 1):
            raise FrameError(f"a frame of {size + FRAME_OVERHEAD} bytes, more than the negotiated {self.frame_max}")
        end: int = start + size
        if end >= len(data):
            self._wanted = size + FRAME_OVERHEAD
            return position
        if data[end] != FRAME_END:
            raise FrameError(f"a frame of kind {kind} on channel {channel} does not end at its size")
        if kind == METHOD:
            self._method(data, channel, start, end, events)
        elif kind == HEADER:
            self._header(data, channel, start, end, events)
        elif kind == BODY:
            self._body(data[start:end], channel, events)
        else:
            events.append(RawFrame(data[position : end + 1]))
        return end + 1

    def _method(self, data: bytes, channel: int, start: int, end: int, events: list[Event]) -> None:
        """Decode a method: a confirm, the beginning of a content, or one for pika."""
        index = read_index(data, start)[0] if end - start >= 4 else 0
        if channel in self._contents:
            if index not in {CHANNEL_CLOSE, CHANNEL_CLOSE_OK}:
                raise FrameError(f"a method in the middle of a message on channel {channel}")
            del self._contents[channel]
        if index in CONFIRMS:
            if _confirms(data[start - 7 : end + 1], 0, events) == 0:
                raise FrameError("a confirm of the wrong length")
        elif index in BUILDERS:
            arguments = Arguments(data, start + 4, end)
            self._contents[channel] = Content(BUILDERS[index](channel, arguments))
            arguments.finish()
            if index == BASIC_DELIVER and not arguments.problem:
                self._remember(data, channel, start - 7, end + 1)
        elif index:
            events.append(RawFrame(data[start - 7 : end + 1]))
        else:
            raise FrameError("a method frame without a method")

    def _remember(self, data: bytes, channel: int, begin: int, end: int) -> None:
        """Remember the beginning of a delivery to this consumer."""
        tag_at = begin + 12 + data[begin + 11]
        if len(self._heads) >= MAX_HEADS:
            self._heads.clear()
        self._heads[data[begin:tag_at]] = (end - begin, channel, data[begin + 12 : tag_at].decode())

    def _header(self, data: bytes, channel: int, start: int, end: int, events: list[Event]) -> None:
        content = self._contents.get(channel)
        if content is None or content.size >= 0:
            raise FrameError(f"a content header without its method on channel {channel}")
        if end - start < HEADER_FIELDS or read_index(data, start)[0] != BASIC_CLASS:
            raise FrameError(f"a content header of another class, or truncated, on channel {channel}")
        content.size = read_tag(data, start + 4)[0]
        if content.size > self.max_body:
            raise FrameError(f"a message of {content.size} bytes, more than {self.max_body}")
        content.properties, content.problem = decode_properties(data, start + 12, end)
        if not content.size:
            self._finish(channel, content, events)

    def _body(self, part: bytes, channel: int, events: list[Event]) -> None:
        content = self._contents.get(channel)
        if content is None or content.size < 0:
            raise FrameError(f"a piece of a body without its header on channel {channel}")
        content.held += len(part)
        content.parts.append(part)
        if content.held > content.size:
            raise FrameError(f"a body longer than announced by its header on channel {channel}")
        if content.held == content.size:
            self._finish(channel, content, events)

    def _finish(self, channel: int, content: Content, events: list[Event]) -> None:
        del self._contents[channel]
        events.append(content.build(content.properties, b"".join(content.parts), content.problem))


def _confirms(data: bytes, position: int, events: list[Event]) -> int:
    """Add the confirms that are whole in the data, and return the start of anything else."""
    while position + CONFIRM_FRAME <= len(data):
        kind, channel, size, index, tag, bits, end = read_confirm(data, position)
        if index not in CONFIRMS or kind != METHOD or size != CONFIRM_SIZE or end != FRAME_END:
            break
        events.append(Confirm(channel, tag, bits & 1 == 1, index == BASIC_ACK))
        position += CONFIRM_FRAME
    return position


def _unknown_kind(beginning: bytes) -> str:
    if beginning.startswith(b"AMQP"):
        return "the server responded with a protocol header: it does not speak AMQP 0-9-1"
    return f"no frame begins with {beginning!r}"
