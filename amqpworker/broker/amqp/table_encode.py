"""
Encodes AMQP field tables, the format of headers; `table_decode` is the inverse.

Types are RabbitMQ's own (its rabbit_binary_parser.erl). The type of each value, and so every byte, is the one that pika
chooses; floats, which pika cannot encode, are doubles. What RabbitMQ would close the connection for is refused here.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from amqpworker.broker.amqp.cache import Cache
from amqpworker.model.message import MAX_SHORT_BYTES, Headers, HeaderValue

MAX_DEPTH = 64
"""Tables and lists inside each other; more is a mistake or an attack, and would end in a RecursionError."""

MAX_DIGITS = 300
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
SECOND = timedelta(seconds=1)

INT, LONG, DOUBLE, DECIMAL = ord("I"), ord("l"), ord("d"), ord("D")
TEXT, BYTES, TIME, ARRAY = ord("S"), ord("x"), ord("T"), ord("A")

pack_length = struct.Struct(">I").pack
pack_sized = struct.Struct(">BI").pack
pack_int = struct.Struct(">Bi").pack
pack_long = struct.Struct(">Bq").pack
pack_time = struct.Struct(">BQ").pack
pack_double = struct.Struct(">Bd").pack
pack_decimal = struct.Struct(">BBi").pack


def short_string(text: str) -> bytes:
    """Return text in UTF-8 behind its length in one byte; raises ValueError beyond 255 bytes, or if UTF-8 cannot hold it."""
    if not isinstance(text, str):
        raise ValueError(f"is {type(text).__name__}, not text")
    raw = text.encode()
    if len(raw) > MAX_SHORT_BYTES:
        raise ValueError(f"is {len(raw)} bytes long, more than {MAX_SHORT_BYTES}")
    return bytes((len(raw),)) + raw


NAMES: Cache[str, bytes] = Cache(short_string)


def encode_table(table: Headers, depth: int = 0) -> bytes:
    """
    Return the table with its length before it; `depth` is how many tables and lists are around it.

    Raises a ValueError that names the header which cannot be encoded.
    """
    pieces = []
    for name, value in table.items():
        try:
            pieces.append(NAMES[name])
            # Nearly every header is one of these two; the rest goes by the table of encoders.
            kind = type(value)
            if kind is str:
                raw = value.encode()
                pieces.append(pack_sized(TEXT, len(raw)))
                pieces.append(raw)
            elif kind is int:
                pieces.append(_encode_int(value, depth))
            else:
                pieces.append(_encode_value(value, depth))
        except (ValueError, TypeError, AttributeError) as error:
            raise ValueError(_named(name, reason(error), depth)) from error
    body = b"".join(pieces)
    return pack_length(len(body)) + body


def _named(name: object, problem: str, depth: int) -> str:
    """Return the problem with the header's name, and with the innermost key if it is nested."""
    if not depth:
        return f"header {name!r:.300} {problem}"
    return problem if problem.startswith("has a key ") else f"has a key {name!r:.300} that {problem}"


def reason(error: Exception) -> str:
    """Return the end of a sentence that begins with what could not be encoded."""
    if isinstance(error, UnicodeEncodeError):
        return "holds a character that UTF-8 cannot carry"
    return str(error) if isinstance(error, ValueError) else f"cannot be encoded: {error}"


def _encode_value(value: HeaderValue, depth: int) -> bytes:
    # By the order of resolution a subclass is found at its nearest: bool before int.
    for kind in type(value).__mro__:
        encode = ENCODERS.get(kind)
        if encode is not None:
            return encode(value, depth)
    raise ValueError(f"is of a type that headers cannot hold: {type(value).__name__}")


def _encode_text(value: str, _depth: int) -> bytes:
    raw = value.encode()
    return pack_sized(TEXT, len(raw)) + raw


def _encode_bytes(value: bytes, _depth: int) -> bytes:
    return pack_sized(BYTES, len(value)) + value


def _encode_int(value: int, _depth: int) -> bytes:
    if -0x80000000 <= value <= 0x7FFFFFFF:
        return pack_int(INT, value)
    if -0x8000000000000000 <= value <= 0x7FFFFFFFFFFFFFFF:
        return pack_long(LONG, value)
    raise ValueError("needs more than 64 bits")


def _encode_float(value: float, _depth: int) -> bytes:
    """Return a double; RabbitMQ's parser fails on NaN and infinities (tried on 3.10.8), so they are refused."""
    if not math.isfinite(value):
        raise ValueError("is not a finite number")
    return pack_double(DOUBLE, value)


def _encode_decimal(value: Decimal, _depth: int) -> bytes:
    """Return the decimal as a 32-bit number and the count of its decimals, never rounded."""
    sign, digits, exponent = value.as_tuple()
    if not isinstance(exponent, int):
        raise ValueError("is not a finite number")
    # Sizes are checked before they are made a number: 1E+999999 must not become an int of a million digits.
    if len(digits) <= MAX_DIGITS:
        while exponent < 0 and digits[-1] == 0 and len(digits) > 1:
            digits, exponent = digits[:-1], exponent + 1
        unscaled = int("".join(map(str, digits))) * (-1 if sign else 1)
        if unscaled == 0:
            exponent = 0
        if -255 <= exponent <= 9:
            unscaled *= 10 ** max(exponent, 0)
            if -0x80000000 <= unscaled <= 0x7FFFFFFF:
                return pack_decimal(DECIMAL, max(-exponent, 0), unscaled)
    raise ValueError("is a decimal of more than 32 bits or more than 255 decimals")


def _encode_datetime(value: datetime, _depth: int) -> bytes:
    if value.utcoffset() is None:
        raise ValueError("is a time without a time zone")
    seconds = (value - EPOCH) // SECOND
    if seconds < 0:
        raise ValueError("is a time before 1970")
    return pack_time(TIME, seconds)


def _encode_list(value: list[HeaderValue], depth: int) -> bytes:
    _check_depth(depth)
    items = b"".join([_encode_value(item, depth + 1) for item in value])
    return pack_sized(ARRAY, len(items)) + items


def _encode_nested(value: Headers, depth: int) -> bytes:
    _check_depth(depth)
    return b"F" + encode_table(value, depth + 1)


def _check_depth(depth: int) -> None:
    """Refuse what is nested too deep, and thus also what contains itself."""
    if depth >= MAX_DEPTH:
        raise ValueError(f"is nested more than {MAX_DEPTH} deep")


ENCODERS: dict[type, Callable[[Any, int], bytes]] = {
    str: _encode_text,
    bytes: _encode_bytes,
    bool: lambda value, _depth: b"t\x01" if value else b"t\x00",
    type(None): lambda _value, _depth: b"V",
    int: _encode_int,
    float: _encode_float,
    Decimal: _encode_decimal,
    datetime: _encode_datetime,
    list: _encode_list,
    tuple: _encode_list,
    dict: _encode_nested,
}
