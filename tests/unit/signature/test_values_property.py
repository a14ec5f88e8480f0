"""The rule of values, for any hint and any value: it arrives equal, or it is refused by name."""

from __future__ import annotations

import base64
import dataclasses
import datetime as dt
import enum
import ipaddress
import json
import pathlib
import uuid
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from functools import reduce
from typing import Any, Literal, NamedTuple, Optional

import typing_extensions
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy
from pydantic import BaseModel, ConfigDict, Field, create_model

from amqpworker.errors import ConfigError, InvalidArguments, InvalidResult
from tests.unit.signature.signatures import Colour, Level, Order, Point, returning, taking


class Suit(enum.StrEnum):
    HEARTS = "hearts"


class Access(enum.Flag):
    READ = 1
    WRITE = 2


class Typed(NamedTuple):
    """A hint, and its values."""

    hint: Any
    values: SearchStrategy[Any]
    hashable: bool = True
    as_key: bool = True

    def __repr__(self) -> str:
        return f"{self.hint} {getattr(self.hint, '__annotations__', '')}"


ZONES = st.none() | st.just(dt.UTC) | st.integers(-1439, 1439).map(lambda m: dt.timezone(dt.timedelta(minutes=m)))
PLAIN_TEXT = st.text(st.characters(exclude_categories=["Cs"]))
LOOKALIKES: SearchStrategy[str] = st.one_of(
    st.sampled_from(["red", "hearts", "1", "true", "null", "", "/", "YWJj", "P1D", "NaN", "1e5"]),
    st.uuids().map(str),
    st.dates().map(str),
    st.datetimes(timezones=ZONES).map(dt.datetime.isoformat),
    st.times().map(str),
    st.integers().map(str),
    st.floats(allow_nan=False, allow_infinity=False).map(str),
    st.binary().map(lambda data: base64.urlsafe_b64encode(data).decode()),
    st.ip_addresses().map(str),
)
TEXT = PLAIN_TEXT | LOOKALIKES
FLOATS = st.floats(allow_nan=False, allow_infinity=False)
SCALARS = [
    Typed(int, st.integers()),
    Typed(str, TEXT),
    Typed(bool, st.booleans()),
    Typed(float, FLOATS),
    Typed(bytes, st.binary()),
    Typed(dt.datetime, st.datetimes(timezones=ZONES)),
    Typed(dt.date, st.dates()),
    Typed(dt.time, st.times()),
    Typed(dt.timedelta, st.timedeltas()),
    Typed(uuid.UUID, st.uuids()),
    Typed(Decimal, st.decimals(allow_nan=False, allow_infinity=False)),
    Typed(pathlib.Path, PLAIN_TEXT.map(pathlib.Path)),
    Typed(ipaddress.IPv4Address, st.ip_addresses(v=4)),
    Typed(Colour, st.sampled_from(Colour)),
    Typed(Level, st.sampled_from(Level)),
    Typed(Suit, st.sampled_from(Suit)),
    Typed(Access, st.sampled_from([Access.READ, Access.WRITE, Access.READ | Access.WRITE]), as_key=False),
    Typed(Literal["red", 1], st.sampled_from(["red", 1]), as_key=False),
    Typed(complex, st.complex_numbers(allow_nan=False, allow_infinity=False), as_key=False),
]
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | FLOATS | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
)
FOREIGN = st.recursive(
    st.one_of(*(scalar.values for scalar in SCALARS))
    | st.floats()
    | st.text()
    | st.just(Point(1.0))
    | st.just(Order(orderId=1)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.tuples(inner),
        st.dictionaries(st.none() | st.integers() | TEXT, inner, max_size=3),
        st.frozensets(st.integers() | TEXT, max_size=2),
    ),
    max_leaves=8,
)


def list_of(item: Typed) -> Typed:
    return Typed(list[item.hint], st.lists(item.values, max_size=3), hashable=False, as_key=False)  # type: ignore[name-defined]


def many_of(item: Typed) -> Typed:
    return Typed(tuple[item.hint, ...], st.lists(item.values, max_size=3).map(tuple), item.hashable, as_key=False)  # type: ignore[name-defined]


def pair_of(item: Typed) -> Typed:
    return Typed(tuple[item.hint, int], st.tuples(item.values, st.integers()), item.hashable, as_key=False)  # type: ignore[name-defined]


def set_of(item: Typed) -> Typed:
    if not item.hashable:
        return list_of(item)
    return Typed(set[item.hint], st.sets(item.values, max_size=3), hashable=False, as_key=False)  # type: ignore[name-defined]


def optional(item: Typed) -> Typed:
    return Typed(Optional[item.hint], st.none() | item.values, item.hashable, as_key=False)  # noqa: UP045


def dict_to(item: Typed) -> Typed:
    return Typed(dict[str, item.hint], st.dictionaries(TEXT, item.values, max_size=3), hashable=False, as_key=False)  # type: ignore[name-defined]


def keyed_by(item: Typed) -> Typed:
    if not (item.hashable and item.as_key):
        return dict_to(item)
    values = st.dictionaries(item.values, st.booleans(), max_size=3)
    return Typed(Mapping[item.hint, bool], values, hashable=False, as_key=False)  # type: ignore[name-defined]


def sequence_of(item: Typed) -> Typed:
    return Typed(Sequence[item.hint], st.lists(item.values, max_size=3), hashable=False, as_key=False)  # type: ignore[name-defined]


def model_of(item: Typed) -> Typed:
    base = create_model("Made", __config__=ConfigDict(ser_json_bytes="base64", val_json_bytes="base64"))
    made = create_model("Made", __base__=base, part=(item.hint, Field(alias="thePart")), note=(str, ""))
    return Typed(made, st.builds(lambda v, n: made(thePart=v, note=n), item.values, TEXT), hashable=False, as_key=False)


def dataclass_of(item: Typed) -> Typed:
    made = dataclasses.make_dataclass("Row", [("part", item.hint), ("note", str, dataclasses.field(default=""))])
    return Typed(made, st.builds(made, part=item.values, note=TEXT), hashable=False, as_key=False)


def typed_dict_of(item: Typed) -> Typed:
    make: Any = typing_extensions.TypedDict
    made = make("Keyed", {"part": item.hint, "more": typing_extensions.NotRequired[int]})
    values = st.fixed_dictionaries({"part": item.values}, optional={"more": st.integers()})
    return Typed(made, values, hashable=False, as_key=False)


WRAPPERS: list[Callable[[Typed], Typed]] = [
    list_of,
    many_of,
    pair_of,
    set_of,
    optional,
    dict_to,
    keyed_by,
    sequence_of,
    model_of,
    dataclass_of,
    typed_dict_of,
]
TYPED = st.builds(
    lambda scalar, wrappers: reduce(lambda typed, wrap: wrap(typed), wrappers, scalar),
    st.sampled_from(SCALARS),
    st.lists(st.sampled_from(WRAPPERS), max_size=3),
)
SLOW = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much])


def arrive(hint: Any, value: Any) -> list[Any]:
    """Return the value as an argument and as a result that have arrived."""
    task, result = taking(hint), returning(hint)
    return [
        task.decode(task.encode((value,), {})).kwargs["p"],
        result.decode_result(result.encode_result(value)),
    ]


@SLOW
@given(TYPED, st.data())
def test_every_value_of_a_hint_without_unions_arrives_equal(typed: Typed, data: st.DataObject) -> None:
    value = data.draw(typed.values)
    for arrived in arrive(typed.hint, value):
        assert arrived == value
        assert type(arrived) is type(value)


@SLOW
@given(TYPED, TYPED, st.data())
def test_every_value_of_a_union_arrives_equal_unless_the_union_is_refused(
    one: Typed, other: Typed, data: st.DataObject
) -> None:
    try:
        hint = one.hint | other.hint
        taking(hint)
    except ConfigError as error:
        assert "Discriminator" in str(error)  # noqa: PT017
        return
    value = data.draw(one.values | other.values)
    for arrived in arrive(hint, value):
        assert arrived == value


@SLOW
@given(TYPED, FOREIGN)
def test_any_value_for_any_hint_arrives_as_it_was_converted_or_is_refused_by_name(typed: Typed, value: Any) -> None:
    signature = taking(typed.hint)
    try:
        body = signature.encode((value,), {})
    except InvalidArguments as error:
        assert "'p'" in str(error)  # noqa: PT017
        return
    arrived = signature.decode(body).kwargs["p"]
    assert in_any_order(json.loads(signature.encode((arrived,), {}))) == in_any_order(json.loads(body))
    assert arrive(typed.hint, arrived) == [arrived, arrived]


def in_any_order(value: Any) -> Any:
    """Return a value of JSON with each list sorted: the order of equal sets may differ."""
    match value:
        case dict():
            return {name: in_any_order(item) for name, item in value.items()}
        case list():
            return sorted(map(in_any_order, value), key=repr)
    return value


@SLOW
@given(FOREIGN)
def test_what_any_takes_arrives_equal(value: Any) -> None:
    class Loose(BaseModel):
        anything: Any

    for hint, sent in ((Any, value), (Loose, Loose(anything=value)), (list[Any], [value])):
        try:
            arrived = arrive(hint, sent)
        except (InvalidArguments, InvalidResult) as error:
            assert "'p'" in str(error) or "return value" in str(error)  # noqa: PT017
            continue
        assert arrived == [sent, sent]


@SLOW
@given(JSON)
def test_whatever_json_has_is_taken_by_any(value: Any) -> None:
    assert arrive(Any, value) == [value, value]
    assume(value is not None)
    assert arrive(dict[str, Any], {"k": value}) == [{"k": value}] * 2
