"""Field tables: pika's bytes where pika can, and a reader that no bytes can stop."""

from __future__ import annotations

import struct
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

import pika.data
import pytest
from hypothesis import given
from hypothesis import strategies as some

from amqpworker.broker.amqp.table_decode import decode_table
from amqpworker.broker.amqp.table_encode import MAX_DEPTH, encode_table
from tests.unit.broker.amqp.wire import patient

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


names = some.text(max_size=60).filter(lambda name: encodable(name) and len(name.encode()) <= 255)
texts = some.text(max_size=80).filter(encodable)
moments = some.datetimes(min_value=EPOCH.replace(tzinfo=None), timezones=some.just(UTC))
decimals = some.builds(
    lambda unscaled, places: Decimal(unscaled).scaleb(-places),
    some.integers(-(2**31), 2**31 - 1),
    some.integers(0, 255),
)
for_pika = some.recursive(
    some.none()
    | some.booleans()
    | some.integers(-(2**63), 2**63 - 1)
    | texts
    | some.binary(max_size=40)
    | moments
    | decimals,
    lambda inner: some.lists(inner, max_size=3) | some.dictionaries(names, inner, max_size=3),
    max_leaves=12,
)
tables_for_pika = some.dictionaries(names, for_pika, max_size=5)
tables = some.dictionaries(
    names,
    for_pika | some.floats(allow_nan=False, allow_infinity=False),
)


def by_pika(table: dict[str, Any]) -> bytes:
    pieces: list[bytes] = []
    pika.data.encode_table(pieces, table)
    return b"".join(pieces)


def read(raw: bytes) -> tuple[dict[str, Any], str]:
    """Read a whole table in the middle of other bytes."""
    table, stop, problem = decode_table(b"\xff" * 7 + raw + b"\xff" * 300, 7, 7 + len(raw))
    assert stop == 7 + len(raw)
    return table, problem


def entry(name: bytes, value: bytes) -> bytes:
    return bytes((len(name),)) + name + value


def table(*entries: bytes) -> bytes:
    joined = b"".join(entries)
    return struct.pack(">I", len(joined)) + joined


def read_one(value: bytes) -> Any:
    found, problem = read(table(entry(b"x", value)))
    assert problem == ""
    return found["x"]


def whole_seconds(value: Any) -> Any:
    """Return what a value is once it has been on the wire."""
    if isinstance(value, datetime):
        return value.replace(microsecond=0)
    if isinstance(value, list):
        return [whole_seconds(item) for item in value]
    if isinstance(value, dict):
        return {name: whole_seconds(item) for name, item in value.items()}
    return value


@patient
@given(tables_for_pika)
def test_what_pika_can_encode_is_the_same_bytes_here(headers: dict[str, Any]) -> None:
    assert encode_table(headers) == by_pika(headers)


@patient
@given(tables)
def test_what_was_encoded_is_read_again(headers: dict[str, Any]) -> None:
    assert read(encode_table(headers)) == (whole_seconds(headers), "")


@patient
@given(some.binary(max_size=200))
def test_no_bytes_stop_the_reader_and_all_that_it_returns_can_be_encoded(raw: bytes) -> None:
    found, stop, _ = decode_table(raw, 0, len(raw))
    assert stop == len(raw) or raw[:4] == struct.pack(">I", stop - 4)
    encode_table(found)


pieces_of_tables = some.lists(
    some.tuples(some.binary(max_size=5), some.sampled_from(list(b"tbBsUuIilLfdDSxATFVZ")), some.binary(max_size=12))
)


@patient
@given(pieces_of_tables)
def test_nearly_right_tables_do_not_stop_the_reader_either(parts: list[tuple[bytes, int, bytes]]) -> None:
    raw = table(*(entry(name, bytes((letter,)) + value) for name, letter, value in parts))
    found, _ = read(raw)
    again, problem = read(encode_table(found))
    assert (again, problem) == (found, "")


@pytest.mark.parametrize(
    ("value", "meaning"),
    [
        (b"t\x07", True),
        (b"t\x00", False),
        (b"b\xff", -1),
        (b"B\xff", 255),
        (b"s\xff\xfe", -2),
        (b"U\xff\xfe", -2),
        (b"u\xff\xfe", 65534),
        (b"I\xff\xff\xff\xff", -1),
        (b"i\xff\xff\xff\xff", 2**32 - 1),
        (b"l" + b"\xff" * 8, -1),
        (b"L" + b"\xff" * 8, -1),
        (b"f" + struct.pack(">f", 1.5), 1.5),
        (b"d" + struct.pack(">d", 0.1), 0.1),
        (b"D\x02\x00\x00\x00\xff", Decimal("2.55")),
        (b"S\x00\x00\x00\x02\xc3\xa9", "é"),
        (b"x\x00\x00\x00\x02\xc3\xa9", b"\xc3\xa9"),
        (b"A\x00\x00\x00\x03Vt\x01", [None, True]),
        (b"T" + struct.pack(">Q", 0), EPOCH),
        (b"F\x00\x00\x00\x03\x01aV", {"a": None}),
        (b"V", None),
    ],
)
def test_each_type_is_read_as_rabbitmq_reads_it(value: bytes, meaning: Any) -> None:
    found = read_one(value)
    assert found == meaning
    assert type(found) is type(meaning)


@pytest.mark.parametrize("seconds", [253402300800, 2**62, 2**64 - 1])
def test_a_timestamp_beyond_any_calendar_is_left_out_and_reported_with_its_number(seconds: int) -> None:
    value = b"T" + struct.pack(">Q", seconds)
    raw = table(entry(b"x", value), entry(b"l", b"A\x00\x00\x00\x09" + value), entry(b"y", b"t\x01"))
    assert read(raw) == ({"y": True}, f"header 'x' is a time beyond the year 9999 ({seconds} s)")


def test_text_that_is_not_utf8_stays_bytes() -> None:
    assert read_one(b"S\x00\x00\x00\x02\xff\xfe") == b"\xff\xfe"
    assert read_one(b"A\x00\x00\x00\x07S\x00\x00\x00\x02\xff\xfe") == [b"\xff\xfe"]


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        (b"Z", "header 'x' has a value of unknown type 'Z'"),
        (b"S\xff\xff\xff\xffabc", "header 'x' is truncated"),
        (b"x\xff\xff\xff\xffabc", "header 'x' claims to be longer than it is"),
        (b"S\x00", "header 'x' is truncated"),
        (b"I\x00\x00", "header 'x' is truncated"),
        (b"F\x00\x00\x00\x09\x01aV", "header 'x' claims to be longer than it is"),
    ],
)
def test_a_value_without_an_end_is_reported_and_what_was_before_it_is_kept(value: bytes, problem: str) -> None:
    raw = table(entry(b"a", b"t\x01"), entry(b"x", value))
    assert read(raw) == ({"a": True}, problem)


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        (b"d\x7f\xf8\x00\x00\x00\x00\x00\x00", "header 'x' is not a finite number"),
        (b"f\xff\x80\x00\x00", "header 'x' is not a finite number"),
        (b"A\x00\x00\x00\x01Z", "header 'x' has a value of unknown type 'Z'"),
        (b"A\x00\x00\x00\x02I\x00", "header 'x' is truncated"),
        (b"F\x00\x00\x00\x04\x02\xff\xffV", "header 'x' has a key that is not UTF-8"),
        (b"F\x00\x00\x00\x02\x09a", "header 'x' is truncated"),
    ],
)
def test_a_bad_value_whose_end_is_known_does_not_hide_the_next(value: bytes, problem: str) -> None:
    raw = table(entry(b"x", value), entry(b"z", b"t\x01"))
    assert read(raw) == ({"z": True}, problem)


def test_a_name_that_is_not_utf8_is_reported_and_its_value_kept() -> None:
    found, problem = read(table(entry(b"a\xff", b"t\x01")))
    assert found == {"a\ufffd": True}
    assert problem == "the name of header 'a\ufffd' is not UTF-8"
    assert read(encode_table(read(table(entry(b"\xff" * 255, b"V")))[0]))[1] == ""


def test_a_name_without_an_end_is_reported() -> None:
    assert read(table(entry(b"a", b"t\x01"), b"\x09x")) == ({"a": True}, "the name of a header is truncated")


def test_a_table_that_claims_more_than_there_is_is_read_as_far_as_it_goes() -> None:
    raw = struct.pack(">I", 99) + entry(b"a", b"t\x01")
    assert read(raw) == ({"a": True}, "the headers claim to be longer than they are")


@pytest.mark.parametrize("letter", [b"F", b"A"])
def test_ten_thousand_tables_in_each_other_are_a_problem_and_no_crash(letter: bytes) -> None:
    value = b"V"
    for _ in range(10_000):
        inner = entry(b"k", value) if letter == b"F" else value
        value = letter + struct.pack(">I", len(inner)) + inner
    found, problem = read(table(entry(b"x", value), entry(b"z", b"V")))
    assert found == {"z": None}
    assert problem == f"header 'x' is nested more than {MAX_DEPTH} deep"


def test_what_may_be_read_deep_may_be_encoded_deep() -> None:
    value: Any = {}
    for _ in range(MAX_DEPTH - 1):
        value = {"k": value} if isinstance(value, list) else [value]
    assert read(encode_table({"x": value})) == ({"x": value}, "")
    with pytest.raises(ValueError, match="header 'x' has a key 'k' that is nested more than 64 deep"):
        encode_table({"x": [value]})


itself: list[Any] = []
itself.append(itself)


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (2**63, "header 'x' needs more than 64 bits"),
        (-(2**63) - 1, "header 'x' needs more than 64 bits"),
        (float("nan"), "header 'x' is not a finite number"),
        (float("-inf"), "header 'x' is not a finite number"),
        (Decimal("NaN"), "header 'x' is not a finite number"),
        (Decimal("1E+999999"), "header 'x' is a decimal of more than 32 bits"),
        (Decimal("2147483648"), "header 'x' is a decimal of more than 32 bits"),
        (Decimal("1.0000000000000000000000000000001"), "header 'x' is a decimal of more than 32 bits"),
        (Decimal("1" * 5000), "header 'x' is a decimal of more than 32 bits"),
        (EPOCH.replace(tzinfo=None), "header 'x' is a time without a time zone"),
        (datetime(1969, 12, 31, tzinfo=UTC), "header 'x' is a time before 1970"),
        ("\ud800", "header 'x' holds a character that UTF-8 cannot carry"),
        (object(), "header 'x' is of a type that headers cannot hold: object"),
        ({1, 2}, "header 'x' is of a type that headers cannot hold: set"),
        ({"y": float("inf")}, "header 'x' has a key 'y' that is not a finite number"),
        ({"y": {1: 2}}, "header 'x' has a key 1 that is int, not text"),
        ([object()], "header 'x' is of a type that headers cannot hold: object"),
        (itself, "header 'x' is nested more than 64 deep"),
    ],
)
def test_a_value_that_cannot_be_carried_raises_and_names_its_header(value: Any, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        encode_table({"fine": 1, "x": value})


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("é" * 128, "is 256 bytes long, more than 255"),
        (7, "header 7 is int, not text"),
        ("\ud800", r"header '\\ud800' holds a character that UTF-8 cannot carry"),
    ],
)
def test_a_name_that_cannot_be_carried_raises(name: Any, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        encode_table({name: 1})


def test_subclasses_are_encoded_as_what_they_are() -> None:
    class Colour(str):
        pass

    class Level(int):
        pass

    assert encode_table({"a": Colour("red"), "b": Level(3)}) == encode_table({"a": "red", "b": 3})
    assert encode_table({"a": (1, 2)}) == encode_table({"a": [1, 2]})


def test_a_moment_is_the_same_in_every_time_zone_and_cut_to_its_second() -> None:
    here = datetime(2026, 7, 1, 12, 0, 0, 999_999, tzinfo=timezone(timedelta(hours=2)))
    assert read(encode_table({"x": here})) == ({"x": datetime(2026, 7, 1, 10, tzinfo=UTC)}, "")
    assert read(encode_table({"x": datetime.max.replace(tzinfo=UTC)}))[1] == ""
