"""
Decodes AMQP field tables: the inverse of `table_encode`.

Types are RabbitMQ's own (its rabbit_binary_parser.erl), where they differ from the specification: `s` is a signed
16-bit int, `l` and `L` are both signed 64-bit ints. Reading never fails: what cannot be read is left out and reported as a
problem, and every value that is returned can be encoded again.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from amqpworker.broker.amqp.cache import Cache
from amqpworker.broker.amqp.table_encode import MAX_DEPTH
from amqpworker.model.message import MAX_SHORT_BYTES, Headers, HeaderValue

LAST_SECOND = 253_402_300_799
"""The last that a `datetime` can be: the end of the year 9999."""

TEXT, BYTES, ARRAY, TABLE = ord("S"), ord("x"), ord("A"), ord("F")
VOID, TIME, DECIMAL = ord("V"), ord("T"), ord("D")

Unpack = Callable[[bytes, int], tuple[Any, ...]]


def _unpacker(code: str) -> tuple[Unpack, int]:
    shape = struct.Struct(f">{code}")
    return shape.unpack_from, shape.size


FIXED = {ord(letter): _unpacker(code) for letter, code in zip("tbBsUuIilL", "?bBhhHiIqq", strict=True)}
"""Values of a fixed width that need nothing but unpacking, by their type's letter."""

FLOATS = {ord(letter): _unpacker(letter) for letter in "fd"}

read_length, _ = _unpacker("I")
read_time, _ = _unpacker("Q")
read_decimal, _ = _unpacker("Bi")


class Unreadable(Exception):
    """A value that cannot be read; `resume` is where the next one begins, if that is known."""

    def __init__(self, text: str, resume: int | None = None) -> None:
        super().__init__(text)
        self.resume = resume


def replaced(raw: bytes) -> str:
    """Return what can be read of a short string that is not UTF-8, no longer than a short string may be."""
    return raw.decode("utf-8", "replace").encode()[:MAX_SHORT_BYTES].decode("utf-8", "ignore")


def decode_table(data: bytes, offset: int, end: int) -> tuple[Headers, int, str]:
    """
    Return the table whose length is at `offset`, its end, and what could not be decoded ("" if all could).

    Nothing at or behind `end` is read. A header whose value cannot be read is left out; if it is not known how long
    it is, those behind it are left out too.
    """
    table: Headers = {}
    problem = ""
    if offset + 4 > end:
        return table, end, "the headers are truncated"
    stop = offset + 4 + read_length(data, offset)[0]
    if stop > end:
        stop, problem = end, "the headers claim to be longer than they are"
    offset += 4
    while offset < stop:
        mark = offset + data[offset] + 2
        if mark > stop:
            return table, stop, problem or "the name of a header is truncated"
        name, letter, unpack, width, trouble = KEYS[data[offset:mark]]
        try:
            if unpack is not None:
                value = unpack(data, mark)[0]
                offset = mark + width
            elif letter == TEXT:
                mark += 4
                offset = mark + read_length(data, mark - 4)[0]
                value = data[mark:offset]
                value = value.decode()
            else:
                value, offset = _read_value(data, letter, mark, stop, 0)
        except UnicodeDecodeError:
            pass  # A text that is not UTF-8 stays bytes.
        except struct.error:
            offset = stop + 1
        except Unreadable as error:
            problem = problem or f"header {name!r} {error}"
            offset = stop if error.resume is None else error.resume
            continue
        if offset > stop:
            return table, stop, problem or f"header {name!r} is truncated"
        if trouble:
            problem = problem or trouble
        table[name] = value
    return table, stop, problem


def _read_key(raw: bytes) -> tuple[str, int, Unpack | None, int, str]:
    """Return a header's name, its type's letter, how to unpack it and how wide it is, and what is wrong with the name."""
    unpack, width = FIXED.get(raw[-1], (None, 0))
    try:
        return raw[1:-1].decode(), raw[-1], unpack, width, ""
    except UnicodeDecodeError:
        name = replaced(raw[1:-1])
        return name, raw[-1], unpack, width, f"the name of header {name!r} is not UTF-8"


KEYS: Cache[bytes, tuple[str, int, Unpack | None, int, str]] = Cache(_read_key)


def _read_value(data: bytes, letter: int, offset: int, stop: int, depth: int) -> tuple[HeaderValue, int]:
    """Return a value of any type and its end; raises Unreadable, and struct.error at the end of the data."""
    if letter in FIXED:
        unpack, width = FIXED[letter]
        return unpack(data, offset)[0], offset + width
    if letter in (TEXT, BYTES, ARRAY, TABLE):
        start = offset + 4
        finish = start + read_length(data, offset)[0]
        if finish > stop:
            raise Unreadable("claims to be longer than it is")
        return _read_sized(data, letter, start, finish, depth), finish
    if letter == VOID:
        return None, offset
    if letter == TIME:
        seconds = read_time(data, offset)[0]
        if seconds > LAST_SECOND:
            raise Unreadable(f"is a time beyond the year 9999 ({seconds} s)", offset + 8)
        return datetime.fromtimestamp(seconds, UTC), offset + 8
    if letter in FLOATS:
        unpack, width = FLOATS[letter]
        number = unpack(data, offset)[0]
        if not math.isfinite(number):
            raise Unreadable("is not a finite number", offset + width)
        return number, offset + width
    if letter == DECIMAL:
        decimals, unscaled = read_decimal(data, offset)
        return Decimal(f"{unscaled}E-{decimals}"), offset + 5
    raise Unreadable(f"has a value of unknown type {chr(letter)!r}")


def _read_sized(data: bytes, letter: int, start: int, finish: int, depth: int) -> HeaderValue:
    if letter in (TEXT, BYTES):
        raw = data[start:finish]
        try:
            return raw.decode() if letter == TEXT else raw
        except UnicodeDecodeError:
            return raw
    if depth >= MAX_DEPTH:
        raise Unreadable(f"is nested more than {MAX_DEPTH} deep", finish)
    try:
        return (_read_list if letter == ARRAY else _read_nested)(data, start, finish, depth + 1)
    except Unreadable as error:
        raise Unreadable(str(error), finish) from None
    except struct.error:
        raise Unreadable("is truncated", finish) from None


def _read_list(data: bytes, offset: int, finish: int, depth: int) -> list[HeaderValue]:
    items = []
    while offset < finish:
        item, offset = _read_value(data, data[offset], offset + 1, finish, depth)
        if offset > finish:
            raise Unreadable("is truncated")
        items.append(item)
    return items


def _read_nested(data: bytes, offset: int, finish: int, depth: int) -> Headers:
    table: Headers = {}
    while offset < finish:
        mark = offset + data[offset] + 2
        if mark > finish:
            raise Unreadable("is truncated")
        name, letter, _, _, trouble = KEYS[data[offset:mark]]
        if trouble:
            raise Unreadable("has a key that is not UTF-8")
        value, offset = _read_value(data, letter, mark, finish, depth)
        if offset > finish:
            raise Unreadable("is truncated")
        table[name] = value
    return table
