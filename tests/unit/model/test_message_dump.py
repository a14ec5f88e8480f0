"""A message that was dumped and loaded is the same message."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from amqpworker.errors import InvalidArguments
from amqpworker.model.message import Message

TEXT = st.text(st.characters(exclude_categories=["Cs"]))
NAMES = st.text(st.characters(codec="ascii"), min_size=1, max_size=20)
ZONES = st.integers(-1439, 1439).map(lambda minutes: timezone(timedelta(minutes=minutes)))
TIMES = st.datetimes(datetime(1900, 1, 1), datetime(2500, 1, 1), timezones=ZONES)  # noqa: DTZ001
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False)
    | TEXT
    | st.binary()
    | TIMES
    | st.builds(Decimal, st.integers(-(2**31), 2**31 - 1)),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(TEXT | st.sampled_from(["$bytes", "$table", "$"]), inner, max_size=3)
    ),
    max_leaves=8,
)
SECONDS = st.floats(0, 1e8) | st.integers(0, 10**8)
MESSAGES = st.builds(
    Message,
    NAMES,
    NAMES,
    TEXT.map(str.encode),
    NAMES,
    st.dictionaries(NAMES, VALUES, max_size=3),
    st.none() | SECONDS,
    st.none() | TIMES,
    st.none() | SECONDS | TIMES,
    st.none() | st.booleans(),
)
SMALL = {"task": "shop.pay", "queue": "q", "body": "{}", "id": "1"}


@given(MESSAGES, st.none() | st.integers(0, 2**50))
def test_a_message_survives_an_outbox_that_stores_json(message: Message, first_sent: int | None) -> None:
    if first_sent is not None:
        message.begin_sending(first_sent)
    loaded = Message.load(json.loads(json.dumps(message.dump(), allow_nan=False)))
    assert loaded == message
    assert loaded.first_sent == first_sent
    assert loaded.dump() == message.dump()


def test_a_dump_has_only_what_the_message_has() -> None:
    assert Message("shop.pay", "q", b"{}", "1").dump() == SMALL
    at = datetime(2026, 1, 2, tzinfo=UTC)
    assert Message("shop.pay", "q", b"{}", "1", {"raw": b"\xff"}, at=at, resend=False).dump() == {
        **SMALL,
        "headers": {"raw": {"$bytes": "/w=="}},
        "at": "2026-01-02T00:00:00+00:00",
        "resend": False,
    }


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"colour": 1}, "'colour' is missing or unknown"),
        ({"queue": ""}, "'queue' is not valid"),
        ({"id": "x" * 256}, "'id' is not valid"),
        ({"body": 5}, "'body' is not valid"),
        ({"headers": [1]}, "'headers' is not valid"),
        ({"headers": {"a": {"$colour": 1}}}, "'headers' is not valid"),
        ({"headers": {"a": {"$decimal": "x"}}}, "'headers' is not valid"),
        ({"delay": "5"}, "'delay' is not valid"),
        ({"at": 5}, "'at' is not valid"),
        ({"expires": "soon"}, "'expires' is not valid"),
        ({"resend": 1}, "'resend' is not valid"),
        ({"first_sent": None}, "'first_sent' is not valid"),
    ],
)
def test_what_is_not_a_dump_is_refused_by_its_key(change: dict[str, Any], text: str) -> None:
    with pytest.raises(InvalidArguments, match=rf"^Message\.load\(\): .*{text}"):
        Message.load(SMALL | change)


def test_a_missing_key_is_named() -> None:
    with pytest.raises(InvalidArguments, match="'body' is missing"):
        Message.load({name: value for name, value in SMALL.items() if name != "body"})
    with pytest.raises(InvalidArguments, match="got a str"):
        Message.load("x")  # type: ignore[arg-type]


def test_what_json_cannot_carry_is_refused_when_it_is_dumped() -> None:
    with pytest.raises(InvalidArguments, match="not UTF-8"):
        Message("t", "q", b"\xff", "1").dump()
    with pytest.raises(InvalidArguments, match="object"):
        Message("t", "q", b"", "1", {"a": object()}).dump()
