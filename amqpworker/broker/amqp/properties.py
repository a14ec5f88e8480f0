"""
The AMQP basic properties, to bytes and back.

Encoding refuses values for which RabbitMQ would close the channel or the connection. Decoding never fails: it returns what
can be decoded, and a problem that names what cannot.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

from amqpworker.broker.amqp.cache import Cache
from amqpworker.broker.amqp.table_decode import decode_table, replaced
from amqpworker.broker.amqp.table_encode import encode_table, reason, short_string
from amqpworker.model.message import Properties

CONTENT_TYPE, CONTENT_ENCODING, HEADERS, DELIVERY_MODE, PRIORITY = 1 << 15, 1 << 14, 1 << 13, 1 << 12, 1 << 11
CORRELATION_ID, REPLY_TO, EXPIRATION, MESSAGE_ID, TIMESTAMP = 1 << 10, 1 << 9, 1 << 8, 1 << 7, 1 << 6
TYPE, USER_ID, APP_ID, CLUSTER_ID = 1 << 5, 1 << 4, 1 << 3, 1 << 2
CONTINUED = 1

UNUSUAL = CONTENT_ENCODING | PRIORITY | EXPIRATION | USER_ID | CLUSTER_ID | 1 << 1 | CONTINUED
"""What our own messages do not have: decoded by `_read_carefully`."""

MAX_EXPIRATION = 0xFFFFFFFF
PROBLEMS = {
    "delivery_mode": "is neither 1 nor 2",
    "priority": "is not a number from 0 to 255",
    "expiration": "is not a number of milliseconds as text",
    "timestamp": "is not a whole number of seconds in 64 bits",
}
"""Values for which RabbitMQ closes the channel (its rabbit_basic.erl), or that do not fit."""

read_flags = struct.Struct(">H").unpack_from
read_timestamp = struct.Struct(">Q").unpack_from
pack_timestamp = struct.Struct(">Q").pack

OCTETS = {number: bytes((number,)) for number in range(256)}
MODES = {number: OCTETS[number] for number in (1, 2)}

SHORT_STRINGS: Cache[str, bytes] = Cache(short_string)
"""Text that repeats, encoded: types, content types, routing keys."""


def property_values(properties: Properties) -> tuple[int, bytes]:  # noqa: C901, PLR0912  # hot path: one `if` a property
    """
    Return the flags and the encoded values.

    Raises a ValueError that names the property which cannot be encoded, or for which RabbitMQ would close the channel.
    """
    flags = 0
    pieces = []
    try:
        if (text := properties.content_type) is not None:
            flags = CONTENT_TYPE
            pieces.append(SHORT_STRINGS[text])
        if (text := properties.content_encoding) is not None:
            flags |= CONTENT_ENCODING
            pieces.append(SHORT_STRINGS[text])
        if (table := properties.headers) is not None:
            flags |= HEADERS
            pieces.append(encode_table(table))
        if (number := properties.delivery_mode) is not None:
            flags |= DELIVERY_MODE
            pieces.append(MODES[number])
        if (number := properties.priority) is not None:
            flags |= PRIORITY
            pieces.append(OCTETS[number])
        if (text := properties.correlation_id) is not None:
            flags |= CORRELATION_ID
            raw = text.encode()
            pieces += OCTETS[len(raw)], raw
        if (text := properties.reply_to) is not None:
            flags |= REPLY_TO
            pieces.append(SHORT_STRINGS[text])
        if (text := properties.expiration) is not None:
            flags |= EXPIRATION
            pieces.append(_encode_expiration(text))
        if (text := properties.message_id) is not None:
            flags |= MESSAGE_ID
            raw = text.encode()
            pieces += OCTETS[len(raw)], raw
        if (number := properties.timestamp) is not None:
            flags |= TIMESTAMP
            pieces.append(pack_timestamp(number))
        if (text := properties.type) is not None:
            flags |= TYPE
            pieces.append(SHORT_STRINGS[text])
        if (text := properties.user_id) is not None:
            flags |= USER_ID
            pieces.append(SHORT_STRINGS[text])
        if (text := properties.app_id) is not None:
            flags |= APP_ID
            pieces.append(SHORT_STRINGS[text])
        return flags, b"".join(pieces)
    except (ValueError, TypeError, LookupError, AttributeError, struct.error) as error:
        raise _refusal(properties, flags, error) from error


def _refusal(properties: Properties, flags: int, cause: Exception) -> ValueError:
    # The lowest flag is that of the property which was encoded last.
    name = next(name for name, flag, _ in FIELDS if flag == flags & -flags)
    value = getattr(properties, name)
    if name == "headers":  # one of them is named by its own error
        return ValueError(
            str(cause) if isinstance(value, dict) else f"headers are {type(value).__name__}, not a dictionary"
        )
    if name in PROBLEMS:
        return ValueError(f"property {name} {PROBLEMS[name]}")
    try:
        short_string(value)
    except ValueError as error:
        cause = error
    return ValueError(f"property {name} {reason(cause)}")


def _encode_expiration(text: str) -> bytes:
    if not (text.isascii() and text.isdigit() and len(text) <= 10 and int(text) <= MAX_EXPIRATION):
        raise ValueError(PROBLEMS["expiration"])
    return short_string(text)


def decode_properties(data: bytes, offset: int, end: int) -> tuple[Properties, str]:
    """Return the properties whose flags are at `offset`, and what could not be decoded ("" if all could)."""
    if offset + 2 > end:
        return Properties(), "the properties are truncated"
    return read_values(data, read_flags(data, offset)[0], offset + 2, end)


def read_values(data: bytes, flags: int, offset: int, end: int) -> tuple[Properties, str]:
    """Return the properties of these flags, and what could not be decoded."""
    if flags & UNUSUAL:
        return _read_carefully(data, flags, offset, end)
    new = make(Properties)
    new.content_encoding = new.priority = new.expiration = new.user_id = None
    new.content_type = new.headers = new.delivery_mode = new.correlation_id = new.reply_to = None
    new.message_id = new.timestamp = new.type = new.app_id = None
    problem = ""
    start = offset
    try:
        if flags & CONTENT_TYPE:
            stop = offset + 1 + data[offset]
            new.content_type = TEXTS[data[offset:stop]]
            offset = stop
        if flags & HEADERS:
            new.headers, offset, problem = decode_table(data, offset, end)
        if flags & DELIVERY_MODE:
            new.delivery_mode = data[offset]
            offset += 1
        if flags & CORRELATION_ID:
            stop = offset + 1 + data[offset]
            new.correlation_id = data[offset + 1 : stop].decode()
            offset = stop
        if flags & REPLY_TO:
            stop = offset + 1 + data[offset]
            new.reply_to = TEXTS[data[offset:stop]]
            offset = stop
        if flags & MESSAGE_ID:
            stop = offset + 1 + data[offset]
            new.message_id = data[offset + 1 : stop].decode()
            offset = stop
        if flags & TIMESTAMP:
            new.timestamp = read_timestamp(data, offset)[0]
            offset += 8
        if flags & TYPE:
            stop = offset + 1 + data[offset]
            new.type = TEXTS[data[offset:stop]]
            offset = stop
        if flags & APP_ID:
            stop = offset + 1 + data[offset]
            new.app_id = TEXTS[data[offset:stop]]
            offset = stop
    except (IndexError, ValueError, struct.error):
        return _read_carefully(data, flags, start, end)
    # Beyond the end are bytes of another frame; offsets only grow, so checking the last one is enough.
    return (new, problem) if offset == end else _read_carefully(data, flags, start, end)


make = object.__new__
TEXTS: Cache[bytes, str] = Cache(lambda raw: raw[1:].decode())
"""Short strings that repeat, by their length byte and their bytes."""


def _read_carefully(data: bytes, flags: int, offset: int, end: int) -> tuple[Properties, str]:
    """Return what can be decoded of any properties, and the first problem."""
    new = Properties()
    problem = ""
    more = flags
    while more & CONTINUED and offset + 2 <= end:
        more = read_flags(data, offset)[0]
        offset += 2
    for name, flag, read in FIELDS:
        if not flags & flag:
            continue
        value, offset, trouble = read(data, offset, end)
        if trouble:
            problem = problem or (trouble if name == "headers" else f"property {name} {trouble}")
        if offset > end:
            return new, problem
        setattr(new, name, value)
    return new, problem


def read_short(data: bytes, offset: int, end: int) -> tuple[str, int, str]:
    """Return a short string, its end, and what is wrong with it."""
    stop = offset + 1 + data[offset] if offset < end else end + 1
    if stop > end:
        return "", end + 1, "is truncated"
    raw = data[offset + 1 : stop]
    try:
        return raw.decode(), stop, ""
    except UnicodeDecodeError:
        return replaced(raw), stop, "is not UTF-8"


def _read_octet(data: bytes, offset: int, end: int) -> tuple[int, int, str]:
    return (data[offset], offset + 1, "") if offset < end else (0, end + 1, "is truncated")


def _read_seconds(data: bytes, offset: int, end: int) -> tuple[int, int, str]:
    return (read_timestamp(data, offset)[0], offset + 8, "") if offset + 8 <= end else (0, end + 1, "is truncated")


Read = Callable[[bytes, int, int], tuple[Any, int, str]]

FIELDS: tuple[tuple[str, int, Read], ...] = (
    ("content_type", CONTENT_TYPE, read_short),
    ("content_encoding", CONTENT_ENCODING, read_short),
    ("headers", HEADERS, decode_table),
    ("delivery_mode", DELIVERY_MODE, _read_octet),
    ("priority", PRIORITY, _read_octet),
    ("correlation_id", CORRELATION_ID, read_short),
    ("reply_to", REPLY_TO, read_short),
    ("expiration", EXPIRATION, read_short),
    ("message_id", MESSAGE_ID, read_short),
    ("timestamp", TIMESTAMP, _read_seconds),
    ("type", TYPE, read_short),
    ("user_id", USER_ID, read_short),
    ("app_id", APP_ID, read_short),
)
"""Every property in the order of the wire: its flag, and how it is read one by one."""
