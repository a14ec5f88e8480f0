"""What comes in: the same events however the stream is cut, and nothing but FrameError for what is not AMQP."""

from __future__ import annotations

import contextlib
import struct
import tracemalloc
from typing import Any

import pika
import pytest
from hypothesis import given, settings
from hypothesis import strategies as some
from pika import frame, spec

from amqpworker.broker.amqp.decode import Confirm, Event, FrameError, RawFrame, ReturnedMessage, StreamDecoder
from amqpworker.broker.amqp.encode import encode_publish
from amqpworker.model.message import Delivery, Properties, Publication
from tests.unit.broker.amqp.wire import (
    FRAME_MAX,
    HEARTBEAT,
    OPEN_OK,
    ORDINARY,
    by_pika,
    content,
    deliveries,
    delivery,
    encode_properties,
    fed,
    method,
    patient,
    returns,
    streams,
)


@settings(patient, max_examples=150)
@given(streams(), some.data())
def test_the_events_are_the_same_however_the_stream_is_cut(frames: list[bytes], data: Any) -> None:
    stream = b"".join(frames)
    whole = fed(stream)
    cuts = data.draw(some.lists(some.integers(0, len(stream)), max_size=12))
    assert fed(stream, cuts) == whole
    assert fed(stream * 2) == whole * 2


@patient
@given(some.lists(deliveries | returns, max_size=5))
def test_ordinary_messages_mean_what_pika_reads_in_them(messages: list[list[bytes]]) -> None:
    for frames in messages:
        (event,) = StreamDecoder(FRAME_MAX).feed(b"".join(frames))
        assert isinstance(event, Delivery | ReturnedMessage)
        start, header, *parts = by_pika(b"".join(frames))
        assert event.body == b"".join(part.fragment for part in parts)
        read = {name: value for name, value in vars(header.properties).items() if value is not None}
        assert event.properties.present() == read
        assert (event.exchange, event.routing_key) == (start.method.exchange, start.method.routing_key)
        if isinstance(event, Delivery):
            assert (event.tag, event.redelivered) == (start.method.delivery_tag, start.method.redelivered)
            assert (event.consumer_tag, event.channel_number) == (start.method.consumer_tag, start.channel_number)
            assert (event.queue, event.problem) == (event.routing_key, "")


@patient
@given(streams(), some.data())
def test_a_damaged_stream_raises_only_frame_error(frames: list[bytes], data: Any) -> None:
    stream = bytearray(b"".join(frames))
    for _ in range(data.draw(some.integers(0, 4))):
        if stream:
            stream[data.draw(some.integers(0, len(stream) - 1))] = data.draw(some.integers(0, 255))
    decoder = StreamDecoder(FRAME_MAX)
    try:
        decoder.feed(bytes(stream))
    except FrameError:
        with pytest.raises(FrameError):
            decoder.feed(HEARTBEAT)


@patient
@given(some.lists(some.tuples(some.sampled_from([1, 2, 3, 8]), some.integers(0, 2), some.binary(max_size=60))))
def test_frames_of_garbage_raise_only_frame_error(frames: list[tuple[int, int, bytes]]) -> None:
    decoder = StreamDecoder(FRAME_MAX)
    try:
        for kind, channel, payload in frames:
            index = b"\x00\x3c\x00\x3c" if kind == 1 else b""
            size = len(index) + len(payload)
            decoder.feed(struct.pack(">BHI", kind, channel, size) + index + payload + b"\xce")
    except FrameError:
        pass


@patient
@given(some.binary(max_size=200), some.lists(some.integers(0, 200), max_size=5))
def test_bytes_of_any_kind_raise_only_frame_error(stream: bytes, cuts: list[int]) -> None:
    with contextlib.suppress(FrameError):
        fed(stream, cuts)


def test_a_delivery_is_whole_with_its_last_byte_and_not_before() -> None:
    stream = b"".join(delivery(1, body=b"b" * 9000))
    decoder = StreamDecoder(FRAME_MAX)
    for position in range(len(stream) - 1):
        assert decoder.feed(stream[position : position + 1]) == []
    (event,) = decoder.feed(stream[-1:])
    assert isinstance(event, Delivery)
    assert event.body == b"b" * 9000


def test_contents_of_different_channels_may_come_between_each_other() -> None:
    one, two = delivery(1, body=b"1" * 9000, channel=1), delivery(2, body=b"2" * 9000, channel=2)
    mixed = [part for pair in zip(one, two, strict=True) for part in pair]
    first, second = StreamDecoder(FRAME_MAX).feed(b"".join(mixed))
    assert isinstance(first, Delivery)
    assert isinstance(second, Delivery)
    assert (first.tag, first.body) == (1, b"1" * 9000)
    assert (second.tag, second.body) == (2, b"2" * 9000)


def test_a_return_is_read_without_a_body_too() -> None:
    start = method(4, spec.Basic.Return(312, "NO_ROUTE", "x", "q"))
    stream = start + b"".join(content(4, ORDINARY, b""))
    assert StreamDecoder().feed(stream) == [ReturnedMessage(4, 312, "NO_ROUTE", "x", "q", ORDINARY, b"")]


def test_confirms_are_read_and_everything_else_goes_to_pika_as_it_came() -> None:
    stream = OPEN_OK + method(3, spec.Basic.Ack(5, True)) + HEARTBEAT + method(3, spec.Basic.Nack(6, False))
    events = StreamDecoder().feed(stream)
    assert events == [OPEN_OK, Confirm(3, 5, True, True), HEARTBEAT, Confirm(3, 6, False, False)]
    assert [type(event) for event in events] == [RawFrame, Confirm, RawFrame, Confirm]
    assert frame.decode_frame(events[0])[0] == len(OPEN_OK)  # type: ignore[arg-type]


def test_a_confirm_in_the_middle_of_a_message_is_an_error_on_its_own_channel_only() -> None:
    begun = b"".join(delivery(1)[:2])
    events = StreamDecoder().feed(begun + method(2, spec.Basic.Ack(5, True)))
    assert events == [Confirm(2, 5, True, True)]
    with pytest.raises(FrameError, match="a method in the middle of a message on channel 1"):
        StreamDecoder().feed(begun + method(1, spec.Basic.Ack(5, True)))


def test_a_hostile_property_is_a_problem_of_one_delivery() -> None:
    hostile = b"".join(delivery(2)).replace(b"\x0aaw-attemptI", b"\x0aaw-attemptZ")
    stream = b"".join(delivery(1)) + hostile + b"".join(delivery(3))
    for cuts in ([], list(range(0, len(stream), 7))):
        problems = [event[Delivery.__slots__.index("problem")] for event in fed(stream, cuts)]
        assert problems == ["", "header 'aw-attempt' has a value of unknown type 'Z'", ""]


def test_a_timestamp_of_any_size_does_not_end_the_connection() -> None:
    raw = encode_properties(Properties(timestamp=2**64 - 1, headers={"x": True}))
    raw = raw.replace(b"\x00\x00\x00\x04\x01xt\x01", b"\x00\x00\x00\x0b\x01xT" + struct.pack(">Q", 2**62))
    header = struct.pack(">BHIHHQ", 2, 1, 12 + len(raw), 60, 0, 0) + raw + b"\xce"
    (event,) = StreamDecoder().feed(delivery(1)[0] + header)
    assert isinstance(event, Delivery)
    assert event.properties == Properties(timestamp=2**64 - 1, headers={})
    assert event.problem == f"header 'x' is a time beyond the year 9999 ({2**62} s)"


@pytest.mark.parametrize("times", [1, 3])
def test_a_route_that_is_not_utf8_is_reported_and_replaced(times: int) -> None:
    good = b"".join(delivery(1))
    events = StreamDecoder().feed(good + good.replace(b"emails", b"email\xff") * times)
    for event in events[1:]:
        assert isinstance(event, Delivery)
        assert (event.routing_key, event.problem) == ("email\ufffd", "the routing key is not UTF-8")


def test_a_consumer_tag_that_is_not_utf8_is_reported_and_replaced() -> None:
    stream = b"".join(delivery(1)).replace(b"c-1", b"c-\xff")
    for event in StreamDecoder().feed(stream * 3):
        assert isinstance(event, Delivery)
        assert (event.consumer_tag, event.problem) == ("c-\ufffd", "the consumer tag is not UTF-8")


def test_a_message_left_off_by_the_closing_of_its_channel_is_dropped() -> None:
    close = method(1, spec.Channel.Close(406, "delivery acknowledgement timed out", 0, 0))
    events = StreamDecoder(FRAME_MAX).feed(b"".join(delivery(1, body=b"b" * 9000)[:-1]) + close + b"".join(delivery(1)))
    assert isinstance(events[0], RawFrame)
    assert isinstance(events[1], Delivery)
    assert len(events) == 2


def lengthened(one: bytes) -> bytes:
    """Return a frame with another byte at its end."""
    return one[:3] + struct.pack(">I", len(one) - 7) + one[7:-1] + b"\x00\xce"


START = delivery(1)[0]
TOO_MUCH = [START, struct.pack(">BHIHHQH", 2, 1, 14, 60, 0, 2**63, 0) + b"\xce"]
SHORT = struct.pack(">BHIHHQ", 2, 1, 12, 60, 0, 0) + b"\xce"
OTHER_CLASS = [START, struct.pack(">BHIHHQH", 2, 1, 14, 61, 0, 0, 0) + b"\xce"]


@pytest.mark.parametrize(
    ("stream", "problem"),
    [
        (b"AMQP\x00\x00\x09\x01", "does not speak AMQP 0-9-1"),
        (b"HTTP/1.1 400 Bad Request", "no frame begins with b'HTTP/1.1'"),
        (HEARTBEAT[:-1] + b"\x00", "does not end at its size"),
        (b"\x01\x00\x01\x00\x00\x10\x00", "a frame of 4104 bytes, more than the negotiated 4096"),
        (b"\x03\x00\x01\xff\xff\xff\xff", "more than the negotiated 4096"),
        (b"\x01\x00\x01\x00\x00\x00\x02\x00\x00\xce", "a method frame without a method"),
        (b"".join(delivery(1)[1:]), "a content header without its method on channel 1"),
        (delivery(1)[2], "a piece of a body without its header on channel 1"),
        (START + delivery(1)[2], "a piece of a body without its header on channel 1"),
        (START + delivery(1)[1] * 2, "a content header without its method on channel 1"),
        (START * 2, "a method in the middle of a message on channel 1"),
        (b"".join(delivery(1)[:2]) + frame.Body(1, b"abc").marshal(), "a body longer than announced by its header"),
        (START + b"".join(delivery(1)), "a method in the middle of a message on channel 1"),
        (
            b"".join(delivery(1)[:2]) + frame.Body(2, b"{}").marshal(),
            "a piece of a body without its header on channel 2",
        ),
        (START + delivery(1, channel=2)[1] + delivery(1)[2], "a content header without its method on channel 2"),
        (START + SHORT + HEARTBEAT, "a content header of another class, or truncated"),
        (lengthened(START), "a method has more arguments than it should"),
        (lengthened(START) + b"".join(delivery(1)[1:]), "a method has more arguments than it should"),
        (b"".join(TOO_MUCH), "a message of 9223372036854775808 bytes, more than 536870912"),
        (b"".join(OTHER_CLASS), "a content header of another class"),
        (START + b"\x02\x00\x01\x00\x00\x00\x02\x00\x3c\xce", "a content header of another class, or truncated"),
        (b"\x01\x00\x01\x00\x00\x00\x05\x00\x3c\x00\x3c\xff\xce", "a method is truncated"),
        (lengthened(method(1, spec.Basic.Ack(5, True))), "a confirm of the wrong length"),
        (method(1, spec.Basic.Ack(5, True))[:-1] + b"\x00", "does not end at its size"),
        (b"\x01\x00\x01\x00\x00\x00\x04\x00\x3c\x00\x50\xce", "a confirm of the wrong length"),
    ],
)
def test_what_is_not_amqp_ends_the_stream(stream: bytes, problem: str) -> None:
    for before in (b"", b"".join(delivery(7))):
        decoder = StreamDecoder(FRAME_MAX)
        with pytest.raises(FrameError, match=problem):
            decoder.feed(before + stream)
        with pytest.raises(FrameError, match=problem):
            decoder.feed(b"".join(delivery(8)))


def test_a_delivery_larger_than_agreed_raises_also_when_it_is_whole() -> None:
    stream = b"".join(delivery(1)) + delivery(2)[0] + b"".join(content(1, ORDINARY, b"b" * 5000, most=5000))
    with pytest.raises(FrameError, match="more than the negotiated 4096"):
        StreamDecoder(FRAME_MAX).feed(stream)
    assert len(StreamDecoder(0).feed(stream)) == 2


@pytest.mark.parametrize("size", [FRAME_MAX, 3 * FRAME_MAX])
def test_a_content_header_that_the_broker_made_larger_than_agreed_is_read(size: int) -> None:
    """RabbitMQ 3.10.8 adds `x-death` to headers that filled their frame: refused, the message would come for ever."""
    properties = Properties(headers={"large": "x" * size})
    (read,) = StreamDecoder(FRAME_MAX).feed(b"".join(delivery(1, properties)))
    assert isinstance(read, Delivery)
    assert read.properties == properties
    with pytest.raises(FrameError, match="more than the negotiated 4096"):
        StreamDecoder(FRAME_MAX).feed(b"".join(delivery(1, Properties(headers={"large": "x" * 4 * FRAME_MAX}))))


def test_a_body_larger_than_allowed_raises_also_when_it_is_whole() -> None:
    decoder = StreamDecoder(max_body=1000)
    assert len(decoder.feed(b"".join(delivery(1, body=bytes(1000))))) == 1
    with pytest.raises(FrameError, match="a message of 1001 bytes, more than 1000"):
        decoder.feed(b"".join(delivery(2, body=bytes(1001))))


def test_the_agreed_size_may_be_set_later() -> None:
    decoder = StreamDecoder()
    decoder.frame_max = FRAME_MAX
    with pytest.raises(FrameError, match="more than the negotiated 4096"):
        decoder.feed(b"\x03\x00\x01\x00\x00\x10\x00")


def test_nothing_is_allocated_for_a_size_that_is_only_claimed() -> None:
    frames = delivery(1)
    huge = struct.pack(">BHIHHQH", 2, 1, 14, 60, 0, 2**29, 0) + b"\xce" + struct.pack(">BHI", 3, 1, 2**29)
    decoder = StreamDecoder(0)
    tracemalloc.start()
    try:
        assert decoder.feed(frames[0] + huge) == []
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most < 100_000


def test_a_large_body_in_small_pieces_is_not_copied_again_and_again() -> None:
    body = bytes(4_000_000)
    stream = b"".join([START, *content(1, Properties(), body, most=131_064)])
    decoder = StreamDecoder(131_072)
    copied = 0
    take = decoder._take

    def counted(data: bytes, events: list[Event]) -> int:
        nonlocal copied
        copied += len(data)
        return take(data, events)

    decoder._take = counted  # type: ignore[method-assign]
    events = [event for start in range(0, len(stream), 4096) for event in decoder.feed(stream[start : start + 4096])]
    assert copied < 1.1 * len(stream)
    assert isinstance(events[0], Delivery)
    assert events[0].body == body


def test_consumers_that_come_and_go_do_not_fill_the_memory() -> None:
    decoder = StreamDecoder()
    for number in range(5000):
        decoder.feed(b"".join(delivery(number, Properties(type="t"), consumer=f"c-{number}")))
    assert len(decoder._heads) <= 1024


def test_what_our_own_publish_makes_is_read_by_pika() -> None:
    publication = Publication("amqpworker.tasks", "emails", ORDINARY, b"{}")
    start, header, body = by_pika(encode_publish(publication, 3, FRAME_MAX))
    assert (start.method.exchange, start.method.routing_key, start.method.mandatory) == (
        "amqpworker.tasks",
        "emails",
        True,
    )
    assert header.properties == pika.BasicProperties(**ORDINARY.present())
    assert body.fragment == b"{}"


def test_a_part_is_known_by_its_channel_until_its_rest_has_come() -> None:
    decoder = StreamDecoder(FRAME_MAX)
    stream = b"".join(delivery(1, body=b"x" * 1000, channel=3))
    assert not decoder.has_partial
    for cut in (10, 40, len(stream) - 5):  # in its first frame, behind that, and in its last
        decoder = StreamDecoder(FRAME_MAX)
        decoder.feed(stream[:cut])
        assert decoder.has_partial
        assert decoder.has_partial_on(3)
        assert not decoder.has_partial_on(1)
        assert len(decoder.feed(stream[cut:])) == 1
        assert not decoder.has_partial
        assert not decoder.has_partial_on(3)
