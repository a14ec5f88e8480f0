"""What a broker would put on the wire, made by pika: frames, whole messages, and streams of them for hypothesis."""

from __future__ import annotations

import itertools
import struct
from collections.abc import Iterator
from typing import Any

from hypothesis import settings
from hypothesis import strategies as some
from pika import frame, spec

from amqpworker.broker.amqp.decode import Event, StreamDecoder
from amqpworker.broker.amqp.properties import property_values
from amqpworker.model.message import Delivery, Properties

patient = settings(deadline=None)
"""No deadline: a busy machine is not a failure."""

FRAME_MAX = 4096
OPEN_OK = frame.Method(0, spec.Connection.OpenOk()).marshal()
HEARTBEAT = frame.Heartbeat().marshal()
ORDINARY = Properties(
    content_type="application/json",
    headers={"aw-attempt": 1, "aw-first-sent": 1_790_000_000_000},
    delivery_mode=2,
    message_id="0199a0de-8000-7000-8000-000000000001",
    timestamp=1_790_000_000,
    type="shop.send_welcome",
    app_id="shop",
)


def encode_properties(properties: Properties) -> bytes:
    """Return the properties as a content header carries them: flags, then values."""
    flags, values = property_values(properties)
    return struct.pack(">H", flags) + values


def method(channel: int, what: Any) -> bytes:
    return bytes(frame.Method(channel, what).marshal())


def content(channel: int, properties: Properties, body: bytes, most: int = FRAME_MAX - 8) -> list[bytes]:
    """Return the frames of a content, one by one."""
    values = encode_properties(properties)
    header = struct.pack(">BHIHHQ", 2, channel, 12 + len(values), 60, 0, len(body)) + values + b"\xce"
    return [
        header,
        *(frame.Body(channel, body[start : start + most]).marshal() for start in range(0, len(body), most)),
    ]


def delivery(
    tag: int, properties: Properties = ORDINARY, body: bytes = b"{}", channel: int = 1, consumer: str = "c-1"
) -> list[bytes]:
    """Return the frames of a delivery, one by one."""
    what = spec.Basic.Deliver(consumer, tag, False, "amqpworker.tasks", "emails")
    return [method(channel, what), *content(channel, properties, body)]


OF_ITS_CHANNEL = {"channel", "arrived", "is_suspect"}


def fields(event: Event) -> Any:
    """Return what two events that mean the same have in common."""
    if isinstance(event, Delivery):
        return tuple(getattr(event, name) for name in Delivery.__slots__ if name not in OF_ITS_CHANNEL)
    return type(event), event


def fed(stream: bytes, cuts: list[int] | None = None) -> list[Any]:
    """Return the fields of all events of a stream that is fed in pieces."""
    decoder = StreamDecoder(FRAME_MAX)
    edges = [0, *sorted(cuts or []), len(stream)]
    return [fields(e) for start, end in itertools.pairwise(edges) for e in decoder.feed(stream[start:end])]


def by_pika(stream: bytes) -> Iterator[Any]:
    while stream:
        used, what = frame.decode_frame(stream)
        yield what
        stream = stream[used:]


names = some.text(max_size=40).filter(lambda text: text.isprintable() and len(text.encode()) <= 255)
some_properties = some.builds(
    Properties,
    content_type=some.none() | some.just("application/json"),
    headers=some.none() | some.dictionaries(names, some.booleans() | some.integers(0, 2**40) | names, max_size=3),
    delivery_mode=some.none() | some.just(2),
    priority=some.none() | some.integers(0, 9),
    correlation_id=some.none() | names,
    message_id=some.none() | names,
    type=some.none() | names,
)
bodies = some.binary(max_size=60) | some.integers(4080, 13_000).map(lambda size: b"b" * size)
deliveries = some.builds(
    lambda channel, consumer, tag, again, route, properties, body: [
        method(channel, spec.Basic.Deliver(consumer, tag, again, *route)),
        *content(channel, properties, body),
    ],
    some.integers(1, 3),
    some.sampled_from(["c-1", "c-2", "another consumer", ""]),
    some.integers(0, 2**64 - 1),
    some.booleans(),
    some.tuples(names, names),
    some_properties,
    bodies,
)
returns = some.builds(
    lambda channel, properties, body: [
        method(channel, spec.Basic.Return(312, "NO_ROUTE", "x", "q")),
        *content(channel, properties, body),
    ],
    some.integers(1, 3),
    some_properties,
    bodies,
)
others = some.sampled_from(
    [
        [HEARTBEAT],
        [OPEN_OK],
        [method(1, spec.Basic.ConsumeOk("c-1"))],
        [method(1, spec.Basic.Ack(5, True))],
        [method(2, spec.Basic.Nack(6, False))],
        [method(0, spec.Connection.Blocked("low on memory"))],
    ]
)


@some.composite
def streams(draw: Any) -> list[bytes]:
    """Return frames of several messages: each channel's in order, those of different channels between each other."""
    waiting = draw(some.lists(deliveries | returns | others, max_size=8))
    mixed: list[bytes] = []
    lanes: dict[int, list[bytes]] = {}
    for frames in waiting:
        lanes.setdefault(int.from_bytes(frames[0][1:3]), []).extend(frames)
    while lanes:
        channel = draw(some.sampled_from(sorted(lanes)))
        many = draw(some.integers(1, 6))
        mixed += lanes[channel][:many]
        del lanes[channel][:many]
        if not lanes[channel]:
            del lanes[channel]
    return mixed
