"""What is read of a message's own headers, whatever a stranger wrote there, and how times are written."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as some

from amqpworker.model.headers import (
    EPOCH,
    HARD_LIMIT,
    TIME_LIMIT,
    UnusableHeader,
    count_of,
    limit_of,
    limit_value,
    now_text,
    read_headers,
    time_of,
    time_text,
)
from tests.docs import ROOT, table

MOMENT = 1_795_910_399_123
TIMES = ("aw-eta", "aw-expires", "aw-first-sent", "aw-first-run", "aw-returned", "aw-replayed", "aw-nominal")
PLUS_TWO = timezone(timedelta(hours=2))


@pytest.mark.parametrize(("value", "number"), [(5, 5), (-5, -5), ("5", 5), ("-5", -5), ("007", 7), (2**63, 2**63)])
def test_a_whole_number_is_read_also_as_decimal_text(value: Any, number: int) -> None:
    assert count_of(value) == number


@pytest.mark.parametrize("value", ["--5", "5-", "-", "", " 5", "5\n", "٣", "1_0", "9" * 19, 1.5, True, None, b"5", [5]])
def test_anything_else_is_not_a_number(value: Any) -> None:
    assert count_of(value) is None


@pytest.mark.parametrize(
    ("value", "limit"),
    [
        (5, 5000),
        (0.25, 250),
        ("5", 5000),
        ("0.25", 250),
        (Decimal("1.5"), 1500),
        (0.0001, 1),
        (5e-324, 1),
        (1e300, 10**12),
        ("9" * 18, 10**12),
    ],
)
def test_a_limit_is_a_number_of_seconds_also_as_decimal_text_read_in_milliseconds(value: Any, limit: int) -> None:
    assert limit_of(value) == limit


@pytest.mark.parametrize(
    "value", [0, -1, "0", "0.0", "-1", "1e3", ".5", "5.", " 5", "", True, None, b"5", [5], float("nan"), float("inf")]
)
def test_what_is_not_above_zero_or_not_a_number_is_not_a_limit(value: Any) -> None:
    assert limit_of(value) is None
    for header in (TIME_LIMIT, HARD_LIMIT):
        with pytest.raises(UnusableHeader, match=f"header '{header}' is .*: it must be a number of seconds above 0"):
            read_headers({header: value})


@given(some.floats(min_value=0.001, max_value=1e9))
def test_a_limit_that_is_written_reads_back_to_the_millisecond(seconds: float) -> None:
    assert abs((limit_of(limit_value(seconds)) or 0) / 1000 - seconds) <= 0.0005 + 1e-6


@pytest.mark.parametrize(
    ("seconds", "written"), [(60.0, 60), (1.1, "1.1"), (0.25, "0.25"), (90.125, "90.125"), (0.0001, "0.001")]
)
def test_a_limit_is_written_as_a_whole_number_or_as_text_but_never_as_a_double(seconds: float, written: Any) -> None:
    assert (limit_value(seconds), type(limit_value(seconds))) == (written, type(written))


@given(some.text(max_size=25) | some.text("-0123456789", max_size=25))
def test_any_text_is_the_number_that_it_spells_or_none(value: str) -> None:
    number = count_of(value)
    assert number is None or number == int(value)


@pytest.mark.parametrize(
    ("value", "milliseconds"),
    [
        ("2026-11-28T23:59:59.123Z", MOMENT),
        ("2026-11-28T23:59:59.123+00:00", MOMENT),
        ("2026-11-29T01:59:59.123+02:00", MOMENT),
        ("2026-11-28 23:59:59.123456Z", MOMENT),
        ("20261128T235959.123Z", MOMENT),
        ("2026-11-28T23:59:59Z", MOMENT - 123),
        ("2026-11-28T23:59Z", MOMENT - 59_123),
        (MOMENT, MOMENT),
        (str(MOMENT), MOMENT),
        (-1, -1),
        ("0", 0),
        (2**63 - 1, 2**63 - 1),
        (datetime(2026, 11, 28, 23, 59, 59, tzinfo=UTC), MOMENT - 123),
        (datetime(2026, 11, 29, 1, 59, 59, 123_999, tzinfo=PLUS_TWO), MOMENT),
    ],
)
def test_a_time_is_read_in_each_of_its_forms(value: Any, milliseconds: int) -> None:
    assert time_of(value) == milliseconds


@pytest.mark.parametrize(
    "value",
    [
        "2026-11-28T23:59:59.123",  # whose time is it?
        "2026-11-28",
        "20261128",
        datetime(2026, 11, 28),  # noqa: DTZ001 - that is the case
        "2026-11-28T23:59:60Z",
        "2026-13-28T23:59:59Z",
        "tomorrow",
        "",
        "9" * 19,
        1.5e12,
        float("nan"),
        True,
        None,
        b"2026-11-28T23:59:59.123Z",
        [MOMENT],
        {},
    ],
)
def test_what_contains_no_time_or_no_zone_is_none(value: Any) -> None:
    assert time_of(value) is None


@given(some.datetimes(min_value=datetime(1, 1, 2), max_value=datetime(9999, 12, 30), timezones=some.timezones()))  # noqa: DTZ001
def test_what_is_written_reads_back_to_the_millisecond(moment: datetime) -> None:
    milliseconds = (moment - EPOCH) // timedelta(milliseconds=1)
    text = time_text(milliseconds)
    assert len(text) == len("2026-11-28T23:59:59.123Z")
    assert time_of(text) == milliseconds
    assert time_of(moment.isoformat()) == milliseconds or moment.utcoffset() != moment.astimezone(UTC).utcoffset()


@given(some.integers(-(2**70), 2**70))
def test_any_number_is_written_as_some_time(milliseconds: int) -> None:
    assert time_of(time_text(milliseconds)) is not None


def test_a_time_is_written_in_utc_with_milliseconds() -> None:
    assert time_text(MOMENT) == "2026-11-28T23:59:59.123Z"
    assert now_text(MOMENT / 1000) == "2026-11-28T23:59:59.123Z"
    assert time_text(0) == "1970-01-01T00:00:00.000Z"


def test_headers_of_ours_are_read_and_all_others_left_alone() -> None:
    headers = {
        **dict.fromkeys(TIMES, "2026-11-28T23:59:59.123Z"),
        "aw-attempt": "3",
        "aw-crashes": 0,
        "aw-wait-03": "whatever",
        "aw-of-a-newer-version": object(),
        "shop": None,
    }
    assert read_headers(headers) == {**dict.fromkeys(TIMES, MOMENT), "aw-attempt": 3, "aw-crashes": 0}


@pytest.mark.parametrize("name", [*TIMES, "aw-attempt", "aw-crashes"])
@pytest.mark.parametrize("value", ["soon", None, True, 1.5, b"5", "", {}])
def test_a_value_that_means_nothing_is_reported_with_its_header(name: str, value: Any) -> None:
    with pytest.raises(UnusableHeader, match=name):
        read_headers({name: value})


@pytest.mark.parametrize(("name", "value"), [("aw-attempt", 0), ("aw-attempt", "-1"), ("aw-crashes", -1)])
def test_a_count_below_its_first_means_nothing(name: str, value: Any) -> None:
    with pytest.raises(UnusableHeader, match=name):
        read_headers({name: value})


def test_the_vectors_of_the_wire_contract_are_read_as_it_states() -> None:
    rows = table((ROOT / "docs/wire.md").read_text(), "| a header's value | read as |")
    assert len(rows) > 10
    for value, told in rows:
        expected = None if told == "`malformed`" else time_text(time_of(told.strip("`")) or 0)
        kind, _, text = value.partition(" `")
        given_value: Any = text.rstrip("`")
        if kind == "number":
            given_value = float(given_value) if "." in given_value else int(given_value)
        elif kind == "timestamp":
            given_value = datetime.fromtimestamp(int(given_value), UTC)
        milliseconds = time_of(given_value)
        assert (None if milliseconds is None else time_text(milliseconds)) == expected, value


@given(some.integers(-(10**14), 10**14))
def test_a_whole_number_is_read_as_milliseconds_as_text_too_unless_it_may_be_a_date(milliseconds: int) -> None:
    expected = None if len(str(milliseconds)) == 8 else milliseconds
    assert time_of(str(milliseconds)) == expected
    assert time_of(milliseconds) == milliseconds


def test_a_whole_number_that_python_would_take_for_a_date_is_milliseconds() -> None:
    assert time_of("1796013071000") == 1_796_013_071_000
