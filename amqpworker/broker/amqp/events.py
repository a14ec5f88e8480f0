"""
The events that the decoder of the stream makes of incoming messages, and the decoding of their methods.

`decode` decides which bytes belong to which.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, TypeAlias

from amqpworker.broker.amqp.properties import read_short
from amqpworker.model.message import Delivery, Properties

BASIC_RETURN, BASIC_DELIVER = 0x003C0032, 0x003C003C
END = 0xCE


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
        """Return the next argument, a short string."""
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
    if arguments.problem or raw[-1] != END:
        raise FrameError(arguments.problem)
    return route


def _delivered(channel: int, arguments: Arguments) -> Build:
    """Return a function that makes a delivery from its content."""
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
    """Return a function that makes a returned message from its content."""
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
