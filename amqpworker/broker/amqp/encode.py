"""
Encodes publishes and acknowledgements: values in, bytes out, without a socket or a clock.

What cannot be encoded raises here, in the thread of the caller.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable

from amqpworker.broker.amqp.cache import Cache
from amqpworker.broker.amqp.properties import SHORT_STRINGS, property_values
from amqpworker.broker.amqp.table_encode import reason
from amqpworker.model.message import Publication

METHOD, HEADER, BODY, FRAME_END = 1, 2, 3, 0xCE
BASIC_PUBLISH, BASIC_ACK, BASIC_NACK = 0x003C0028, 0x003C0050, 0x003C0078
BASIC_CLASS = 0x003C0000
FRAME_OVERHEAD = 8
HEADER_FIELDS = 14
END = bytes((FRAME_END,))

pack_method = struct.Struct(">BHIIH").pack
pack_header = struct.Struct(">BHIIQH").pack
pack_body = struct.Struct(">BBHI").pack
pack_frame = struct.Struct(">BHI").pack
pack_settle = struct.Struct(">BHIIQBB").pack


def encode_publish(publication: Publication, channel: int, frame_max: int) -> bytes:
    """
    Return a publish with its content, all frames in one piece; a `frame_max` of 0 means no limit.

    Raises a ValueError that names the property or header which cannot be encoded, or which RabbitMQ would refuse.
    """
    body = publication.body
    if not isinstance(body, bytes):
        raise ValueError(f"the body is {type(body).__name__}, not bytes")
    size = len(body)
    flags, values = property_values(publication.properties)
    length = HEADER_FIELDS + len(values)
    if frame_max and length + FRAME_OVERHEAD > frame_max:
        room = frame_max - FRAME_OVERHEAD - HEADER_FIELDS
        raise ValueError(f"the properties with their headers take {len(values)} bytes, and only {room} are allowed")
    method = METHODS[channel, publication.exchange, publication.routing_key, publication.mandatory]
    header = pack_header(HEADER, channel, length, BASIC_CLASS, size, flags)
    if not size:
        return b"".join((method, header, values, END))
    if size + FRAME_OVERHEAD <= frame_max or not frame_max:
        return b"".join((method, header, values, pack_body(FRAME_END, BODY, channel, size), body, END))
    return b"".join((method, header, values, END, *_split(body, channel, frame_max - FRAME_OVERHEAD)))


def _split(body: bytes, channel: int, most: int) -> Iterable[bytes]:
    for start in range(0, len(body), most):
        part = body[start : start + most]
        yield pack_frame(BODY, channel, len(part))
        yield part
        yield END


def _publish_method(key: tuple[int, str, str, bool]) -> bytes:
    channel, exchange, routing_key, mandatory = key
    named = []
    for what, text in (("exchange", exchange), ("routing key", routing_key)):
        try:
            named.append(SHORT_STRINGS[text])
        except (ValueError, TypeError) as error:
            raise ValueError(f"the {what} {reason(error)}") from error
    arguments = b"".join((*named, b"\x01" if mandatory else b"\x00"))
    return pack_method(METHOD, channel, 6 + len(arguments), BASIC_PUBLISH, 0) + arguments + END


METHODS: Cache[tuple[int, str, str, bool], bytes] = Cache(_publish_method)


def encode_ack(channel: int, tag: int, multiple: bool = False) -> bytes:
    """Return the frame that acknowledges one delivery, or all up to it."""
    return pack_settle(METHOD, channel, 13, BASIC_ACK, tag, multiple, FRAME_END)


def encode_nack(channel: int, tag: int, multiple: bool = False, requeue: bool = True) -> bytes:
    """Return the frame that nacks one delivery, or all up to it."""
    return pack_settle(METHOD, channel, 13, BASIC_NACK, tag, multiple | requeue << 1, FRAME_END)
