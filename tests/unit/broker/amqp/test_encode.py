"""What goes out: pika's bytes where pika can, and an error in the caller's thread for what cannot be encoded."""

from __future__ import annotations

import tracemalloc
from typing import Any

import pika
import pytest
from hypothesis import given
from hypothesis import strategies as some
from pika import frame, spec

from amqpworker.broker.amqp.encode import encode_ack, encode_nack, encode_publish
from amqpworker.broker.amqp.properties import decode_properties
from amqpworker.model.message import Properties, Publication
from tests.unit.broker.amqp.wire import encode_properties, patient


def fits(text: str) -> bool:
    try:
        return len(text.encode()) <= 255
    except UnicodeEncodeError:
        return False


short_texts = some.text(max_size=120).filter(fits)
headers = some.dictionaries(
    short_texts, some.none() | some.booleans() | some.integers(-(2**63), 2**63 - 1) | short_texts, max_size=4
)
every_property: dict[str, Any] = {
    "content_type": short_texts,
    "content_encoding": short_texts,
    "headers": headers,
    "delivery_mode": some.sampled_from([1, 2]),
    "priority": some.integers(0, 255),
    "correlation_id": short_texts,
    "reply_to": short_texts,
    "expiration": some.integers(0, 2**32 - 1).map(str),
    "message_id": short_texts,
    "timestamp": some.integers(0, 2**64 - 1),
    "type": short_texts,
    "user_id": short_texts,
    "app_id": short_texts,
}
some_properties = some.fixed_dictionaries({}, optional=every_property).map(lambda present: Properties(**present))


def by_pika(publication: Publication, channel: int, frame_max: int) -> bytes:
    """Return what pika puts on the wire for a publish."""
    method = spec.Basic.Publish(
        exchange=publication.exchange, routing_key=publication.routing_key, mandatory=publication.mandatory
    )
    properties = pika.BasicProperties(**publication.properties.present())
    body, most = publication.body, frame_max - 8
    frames = [frame.Method(channel, method), frame.Header(channel, len(body), properties)]
    frames += [frame.Body(channel, body[start : start + most]) for start in range(0, len(body), most)]
    return b"".join(one.marshal() for one in frames)


def read(raw: bytes) -> tuple[Properties, str]:
    """Read properties in the middle of other bytes."""
    return decode_properties(b"a" * 5 + raw + b"a" * 300, 5, 5 + len(raw))


@patient
@given(some_properties)
def test_properties_are_the_bytes_that_pika_makes_and_come_back_the_same(properties: Properties) -> None:
    raw = encode_properties(properties)
    assert raw == b"".join(pika.BasicProperties(**properties.present()).encode())
    assert read(raw) == (properties, "")


@patient
@given(some_properties, short_texts, short_texts, some.binary(max_size=300), some.booleans(), some.integers(100, 5000))
def test_a_publish_is_the_bytes_that_pika_makes(
    properties: Properties, exchange: str, routing_key: str, body: bytes, mandatory: bool, spare: int
) -> None:
    frame_max = len(encode_properties(properties)) + spare
    publication = Publication(exchange, routing_key, properties, body, mandatory)
    assert encode_publish(publication, 7, frame_max) == by_pika(publication, 7, frame_max)


@pytest.mark.parametrize("size", [0, 1, 4087, 4088, 4089, 8176, 8177, 100_000])
def test_a_body_is_cut_where_the_frames_are_full(size: int) -> None:
    publication = Publication("x", "q", Properties(delivery_mode=2), bytes(size))
    assert encode_publish(publication, 1, 4096) == by_pika(publication, 1, 4096)


def test_without_a_limit_a_body_is_one_frame() -> None:
    publication = Publication("x", "q", Properties(), bytes(1_000_000))
    assert encode_publish(publication, 1, 0) == by_pika(publication, 1, 2_000_000)


def test_a_content_header_that_does_not_fit_one_frame_raises() -> None:
    room = 4096 - 8 - 14 - 4 - 2 - 5
    fitting = Publication("x", "q", Properties(headers={"t": "a" * room}), b"{}")
    larger = Publication("x", "q", Properties(headers={"t": "a" * (room + 1)}), b"{}")
    assert encode_publish(fitting, 1, 4096) == by_pika(fitting, 1, 4096)
    with pytest.raises(
        ValueError, match="the properties with their headers take 4075 bytes, and only 4074 are allowed"
    ):
        encode_publish(larger, 1, 4096)


@pytest.mark.parametrize(
    ("present", "reason"),
    [
        ({"content_type": "é" * 128}, "property content_type is 256 bytes long, more than 255"),
        ({"content_encoding": 5}, "property content_encoding is int, not text"),
        ({"headers": {"x": 2**63}}, "header 'x' needs more than 64 bits"),
        ({"headers": {"x": object()}}, "header 'x' is of a type that headers cannot hold"),
        ({"headers": [1]}, "headers are list, not a dictionary"),
        ({"delivery_mode": 3}, "property delivery_mode is neither 1 nor 2"),
        ({"priority": 256}, "property priority is not a number from 0 to 255"),
        ({"priority": -1}, "property priority is not a number from 0 to 255"),
        ({"priority": [1]}, "property priority is not a number from 0 to 255"),
        ({"correlation_id": "a" * 256}, "property correlation_id is 256 bytes long"),
        ({"reply_to": b"bytes"}, "property reply_to is bytes, not text"),
        ({"expiration": 60_000}, "property expiration is not a number of milliseconds as text"),
        ({"expiration": "1.5"}, "property expiration is not a number of milliseconds as text"),
        ({"expiration": str(2**32)}, "property expiration is not a number of milliseconds as text"),
        ({"expiration": "²"}, "property expiration is not a number of milliseconds as text"),
        ({"message_id": "\ud800"}, "property message_id holds a character that UTF-8 cannot carry"),
        ({"message_id": 12}, "property message_id is int, not text"),
        ({"timestamp": -1}, "property timestamp is not a whole number of seconds in 64 bits"),
        ({"timestamp": 2**64}, "property timestamp is not a whole number of seconds in 64 bits"),
        ({"timestamp": 1.5}, "property timestamp is not a whole number of seconds in 64 bits"),
        ({"type": "a" * 256}, "property type is 256 bytes long"),
        ({"user_id": None, "app_id": "a" * 300}, "property app_id is 300 bytes long"),
    ],
)
def test_a_property_that_cannot_be_carried_raises_and_is_named(present: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        encode_publish(Publication("x", "q", Properties(**present), b"{}"), 1, 131072)


@pytest.mark.parametrize(
    ("exchange", "routing_key", "body", "reason"),
    [
        ("a" * 256, "q", b"", "the exchange is 256 bytes long"),
        ("x", "é" * 128, b"", "the routing key is 256 bytes long"),
        ("x", 5, b"", "the routing key is int, not text"),
        ("x", "\ud800", b"", "the routing key holds a character"),
        ("x", "q", "text", "the body is str, not bytes"),
        ("x", "q", None, "the body is NoneType, not bytes"),
    ],
)
def test_a_route_or_body_that_cannot_be_carried_raises(exchange: Any, routing_key: Any, body: Any, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        encode_publish(Publication(exchange, routing_key, Properties(), body), 1, 131072)


def test_many_reply_addresses_do_not_fill_the_memory() -> None:
    tracemalloc.start()
    try:
        for number in range(5000):
            properties = Properties(message_id=str(number), reply_to=f"reply.{number}")
            encode_publish(Publication("", f"reply.{number}", properties, b"{}"), 1, 131072)
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert held < 2_000_000


@patient
@given(some.integers(0, 65535), some.integers(0, 2**64 - 1), some.booleans(), some.booleans())
def test_acks_and_nacks_are_the_bytes_that_pika_makes(channel: int, tag: int, multiple: bool, requeue: bool) -> None:
    ack = frame.Method(channel, spec.Basic.Ack(tag, multiple)).marshal()
    nack = frame.Method(channel, spec.Basic.Nack(tag, multiple, requeue)).marshal()
    assert encode_ack(channel, tag, multiple) == ack
    assert encode_nack(channel, tag, multiple, requeue) == nack


@patient
@given(some.binary(max_size=120))
def test_no_bytes_stop_the_reader_of_properties(raw: bytes) -> None:
    properties, _ = read(raw)
    if properties.delivery_mode in (None, 1, 2) and properties.expiration is None:
        assert read(encode_properties(properties)) == (properties, "")


@patient
@given(some_properties, some.data())
def test_cut_properties_are_a_problem_and_what_was_before_is_kept(properties: Properties, data: Any) -> None:
    raw = encode_properties(properties)
    cut = data.draw(some.integers(0, len(raw) - 1))
    found, problem = read(raw[:cut])
    assert "truncated" in problem or "longer than" in problem
    assert found.present().keys() <= properties.present().keys()


@pytest.mark.parametrize(
    "name", ["content_type", "correlation_id", "reply_to", "message_id", "type", "app_id", "user_id"]
)
def test_text_that_is_not_utf8_is_reported_and_replaced(name: str) -> None:
    raw = encode_properties(Properties(**{name: "ab", "delivery_mode": 1, "timestamp": 5})).replace(
        b"\x02ab", b"\x02a\xff"
    )
    assert read(raw) == (
        Properties(**{name: "a\ufffd", "delivery_mode": 1, "timestamp": 5}),
        f"property {name} is not UTF-8",
    )


def test_replaced_text_is_short_enough_to_be_sent_again() -> None:
    raw = encode_properties(Properties(type="a" * 255)).replace(b"a", b"\xff")
    found, problem = read(raw)
    assert problem == "property type is not UTF-8"
    assert read(encode_properties(found)) == (found, "")


def test_a_bad_header_leaves_the_other_properties_readable() -> None:
    raw = encode_properties(Properties(headers={"a": 1, "x": True}, message_id="id-1", type="job"))
    found, problem = read(raw.replace(b"\x01xt", b"\x01xZ"))
    assert found == Properties(headers={"a": 1}, message_id="id-1", type="job")
    assert problem == "header 'x' has a value of unknown type 'Z'"


def test_what_the_broker_allows_and_no_library_uses_is_skipped() -> None:
    cluster = pika.BasicProperties(type="job", cluster_id="c")
    assert read(b"".join(cluster.encode())) == (Properties(type="job"), "")
    assert read(b"\x00\x21\x00\x00\x03job") == (Properties(type="job"), "")


@patient
@given(some_properties)
def test_properties_show_what_is_there(properties: Properties) -> None:
    assert Properties(**properties.present()) == properties
    assert all(value is not None for value in properties.present().values())
