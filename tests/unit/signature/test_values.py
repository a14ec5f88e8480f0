from __future__ import annotations

import datetime as dt
import enum
import json
import pathlib
import sys
import uuid
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from typing import Annotated, Any, Literal, Optional, Union

import pytest
from pydantic import AfterValidator, Field

from amqpworker.errors import InvalidArguments, InvalidResult
from amqpworker.signature.signature import MalformedBody
from tests.unit.signature.signatures import (
    INFINITY,
    NAN,
    Colour,
    Level,
    Loose,
    Odd,
    Order,
    Packed,
    Page,
    Point,
    Row,
    UserId,
    of,
    plain,
    returning,
    run_value,
    taking,
)

NOON = dt.datetime(2026, 1, 2, 12, 0, 0, 123456, tzinfo=dt.UTC)
ROUND_TRIPS: list[tuple[Any, Any]] = [
    (int, 2**63),
    (int, -(10**30)),
    (float, 0.1),
    (bool, True),
    (str, 'é\x00\u2028"\\'),
    (bytes, bytes(range(256))),
    (None, None),
    (dt.datetime, NOON),
    (dt.datetime, dt.datetime(2026, 1, 2)),  # noqa: DTZ001
    (dt.date, NOON.date()),
    (dt.time, dt.time(1, 2, 3, 4)),
    (dt.timedelta, dt.timedelta(days=-1, microseconds=3)),
    (uuid.UUID, uuid.UUID(int=7)),
    (Decimal, Decimal("0.10")),
    (pathlib.Path, pathlib.Path("/a b")),
    (Colour, Colour.BLUE),
    (Level, Level.LOW),
    (Literal["a", 1], 1),
    (Literal[Level.LOW], Level.LOW),
    (Odd, Odd.HALF),
    (UserId, UserId(5)),
    (Optional[int], None),  # noqa: UP045
    (Union[int, str], "1"),  # noqa: UP007
    (int | str | None, 1),
    (list[int], [1, 2]),
    (tuple[int, str], (1, "a")),
    (tuple[int, ...], (1, 2)),
    (set[int], {1, 2}),
    (frozenset[str], frozenset({"a"})),
    (Sequence[int], [1, 2]),
    (Mapping[str, int], {"a": 1}),
    (dict[int, bytes], {1: b"\xff"}),
    (dict[uuid.UUID, dt.date], {uuid.UUID(int=7): NOON.date()}),
    (dict[Level, int], {Level.LOW: 1}),
    (dict[Colour, int], {Colour.RED: 1}),
    (Order, Order(orderId=1, note="x", parts=[Order(orderId=2)])),
    (list[Order], [Order(orderId=1)]),
    (Page[int], Page[int](items=[1])),
    (Page[Order], Page[Order](items=[Order(orderId=1)])),
    (Packed, Packed(data=b"\xff\xfe")),
    (Order | Packed, Packed(data=b"\xff\xfe")),
    (Point, Point(1.5, "a", b"\xff\xfe", Decimal("1.10"))),
    (Row, {"key": "a", "weight": 1.5, "data": b"\xff", "more": [1]}),
    (Annotated[int, Field(gt=0)], 5),
    (Any, {"a": [1, None]}),
]


@pytest.mark.parametrize(("hint", "value"), ROUND_TRIPS)
def test_typed_values_arrive_as_they_were_sent(hint: Any, value: Any) -> None:
    arrived = run_value(hint, value)
    assert arrived == value
    assert type(arrived) is type(value)


@pytest.mark.parametrize(("hint", "value"), ROUND_TRIPS)
def test_typed_results_arrive_as_they_were_returned(hint: Any, value: Any) -> None:
    signature = returning(hint)
    data = signature.encode_result(value)
    json.loads(data)
    arrived = signature.decode_result(data)
    assert arrived == value
    assert type(arrived) is type(value)


def test_base64_is_written_url_safe_and_read_in_both_alphabets() -> None:
    signature = taking(bytes)
    assert signature.encode((b"\xff\xfb\xfe",), {}) == b'{"p":"__v-"}'
    for text in (b"__v-", b"//v+"):
        assert signature.decode(b'{"p": "%b"}' % text).kwargs == {"p": b"\xff\xfb\xfe"}


@pytest.mark.parametrize(
    ("args", "kwargs", "text"),
    [
        ((), {}, r"parameter 'user_id' is missing\.$"),
        ((1, "fr", 3), {}, "3 positional arguments were given, and it takes at most 2"),
        ((1,), {"user_id": 2}, "parameter 'user_id' was given twice"),
        ((1,), {"colour": 2}, "there is no parameter 'colour'"),
        (("s3cret",), {}, "parameter 'user_id': Input should be a valid integer"),
        ((1, 2), {}, "parameter 'lang': Input should be a valid string"),
        ((1, None), {}, "parameter 'lang'"),
        ((1, "\ud800"), {}, "parameter 'lang'.*surrogate"),
        ((10**5000,), {}, "user_id|number out of range"),
        ((object(),), {}, "parameter 'user_id'"),
    ],
)
def test_a_wrong_argument_fails_where_it_is_sent_and_is_named(
    args: tuple[Any, ...], kwargs: dict[str, Any], text: str
) -> None:
    with pytest.raises(InvalidArguments, match=text) as caught:
        of(plain).encode(args, kwargs)
    told = str(caught.value)
    assert told.startswith("Task 'shop.task': ")
    assert "s3cret" not in told
    assert "pydantic.dev" not in told
    assert "\n" not in told
    assert len(told) < 400


def test_a_name_is_refused_where_only_a_position_is_taken() -> None:
    def task(a: int, /) -> None: ...

    with pytest.raises(InvalidArguments, match="'a' is given by position only"):
        of(task).encode((), {"a": 1})


def test_an_unknown_keyword_is_named_beside_starred_arguments() -> None:
    def task(*numbers: int) -> None: ...

    for name in ("numbers", "other"):
        with pytest.raises(InvalidArguments, match=f"'{name}'"):
            of(task).encode((), {name: [1]})


@pytest.mark.parametrize("value", [NAN, INFINITY, -INFINITY])
@pytest.mark.parametrize(
    ("hint", "wrap"),
    [
        (float, lambda n: n),
        (Any, lambda n: n),
        (Any, lambda n: {"a": [n]}),
        (list[float], lambda n: [n]),
        (dict[float, int], lambda n: {n: 1}),
        (float | None, lambda n: n),
        (int | float, lambda n: n),
        (Sequence[Any], lambda n: [n]),
        (Row, lambda n: {"key": "", "weight": n, "data": b""}),
        (Row, lambda n: {"key": "", "weight": 1, "data": b"", "more": n}),
        (Order, lambda n: Order(orderId=1, amount=n)),
        (Order, lambda n: Order(orderId=1, parts=[Order(orderId=1, amount=n)])),
        (Order, lambda n: {"orderId": 1, "amount": n}),
        (Loose, lambda n: Loose(anything={"a": n})),
        (Loose, lambda n: Loose(anything=Decimal(n))),
        (Point, Point),
        (Point, lambda n: Point(1, price=Decimal(n))),
        (Decimal, Decimal),
        (list[Point], lambda n: [Point(n)]),
        (Page[float], lambda n: Page[float](items=[n])),
        (Annotated[float, AfterValidator(lambda n: n)], lambda n: n),
        (Annotated[int, AfterValidator(lambda _: INFINITY)], lambda _: 1),
    ],
)
def test_nan_and_infinities_are_refused_wherever_they_hide(value: float, hint: Any, wrap: Callable[[Any], Any]) -> None:
    with pytest.raises(InvalidArguments, match="'p'"):
        taking(hint).encode((wrap(value),), {})
    with pytest.raises(InvalidResult, match="the return value"):
        returning(hint).encode_result(wrap(value))


def nested(depth: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(depth):
        value = [value]
    return value


def endless() -> list[Any]:
    value: list[Any] = []
    value.append(value)
    return value


@pytest.mark.parametrize("value", [nested(10_000), nested(199), endless()], ids=["10000", "199", "endless"])
@pytest.mark.parametrize("hint", [Any, list, Sequence[Any], Loose])
def test_what_is_nested_too_deep_to_be_read_is_refused(hint: Any, value: Any) -> None:
    given_value = Loose(anything=value) if hint is Loose else value
    with pytest.raises(InvalidArguments, match="'p'"):
        taking(hint).encode((given_value,), {})
    with pytest.raises(InvalidResult):
        returning(hint).encode_result(given_value)


def test_deep_values_that_can_be_read_are_carried() -> None:
    value = nested(190)
    assert run_value(Any, value) == value
    signature = returning(Any)
    assert signature.decode_result(signature.encode_result(value)) == value


def test_text_that_is_not_unicode_is_refused() -> None:
    for hint, value in [(str, "\ud800"), (Any, ["\ud800"]), (Any, {"\udfff": 1}), (dict[str, int], {"\ud800": 1})]:
        with pytest.raises(InvalidArguments, match=r"'p'.*surrogate"):
            taking(hint).encode((value,), {})


def test_numbers_with_more_digits_than_can_be_read_are_refused() -> None:
    limit = sys.int_info.default_max_str_digits
    for hint in (int, Any, list[int]):
        value = 10 ** (limit - 1)
        assert run_value(hint, [value] if hint == list[int] else value)
        with pytest.raises(InvalidArguments):
            taking(hint).encode(([value * 10] if hint == list[int] else value * 10,), {})


def test_a_model_that_was_changed_into_something_else_is_refused() -> None:
    order = Order(orderId=1)
    order.note = 5  # type: ignore[assignment]
    with pytest.raises(InvalidArguments, match="'p'"):
        taking(Order).encode((order,), {})


def test_bytes_that_a_model_would_break_are_refused_with_the_remedy() -> None:
    with pytest.raises(InvalidArguments, match=r"'p'.*model_config"):
        taking(Loose).encode((Loose(data=b"\xff"),), {})
    assert run_value(Packed, Packed(data=b"\xff")) == Packed(data=b"\xff")


def test_a_member_of_an_enum_that_could_not_be_read_is_refused() -> None:
    with pytest.raises(InvalidArguments, match="'p'"):
        taking(Odd).encode((Odd.PAIR,), {})


def test_an_error_contains_the_path_to_the_value_but_no_keys_of_a_dict() -> None:
    with pytest.raises(InvalidArguments, match=r"parameter 'p' at \[1\]\.parts\[0\]\.amount: Input should be"):
        taking(list[Order]).encode(([{"orderId": 1}, {"orderId": 1, "parts": [{"orderId": 1, "amount": "x"}]}],), {})
    with pytest.raises(InvalidArguments) as caught:
        taking(dict[str, int]).encode(({"s3cret": "hidden"},), {})
    assert "s3cret" not in str(caught.value)
    assert "hidden" not in str(caught.value)


def test_an_error_counts_what_it_leaves_out() -> None:
    def task(a: int, b: int, c: int, d: int, e: int) -> None: ...

    with pytest.raises(InvalidArguments, match=r"'a' is missing; .*'c' is missing; and 2 more\.$"):
        of(task).encode((), {})


@pytest.mark.parametrize(
    "error", [KeyError("s3cret"), RuntimeError(), MemoryError(), RecursionError(), OverflowError()]
)
def test_everything_that_a_validator_raises_is_reported_as_wrong_arguments(error: Exception) -> None:
    def refuse(value: str) -> str:
        raise error

    signature = taking(Annotated[str, AfterValidator(refuse)])
    with pytest.raises(InvalidArguments, match="'p'") as caught:
        signature.encode(("x",), {})
    assert "s3cret" not in str(caught.value)
    with pytest.raises(InvalidArguments) as caught:
        signature.decode(b'{"p": "x"}')
    assert not isinstance(caught.value, MalformedBody)
    assert "s3cret" not in str(caught.value)


def test_a_validators_own_text_is_shown_unless_it_repeats_the_value() -> None:
    def refuse(value: str) -> str:
        raise ValueError(f"not in stock: {value}" if value.startswith("s3") else "not in stock")

    signature = taking(Annotated[str, AfterValidator(refuse)])
    with pytest.raises(InvalidArguments, match="'p': Value error, not in stock"):
        signature.encode(("x-1",), {})
    with pytest.raises(InvalidArguments, match="refused by its validator") as caught:
        signature.encode(("s3cret",), {})
    assert "s3cret" not in str(caught.value)


def test_an_interrupt_is_not_taken_for_a_wrong_argument() -> None:
    def interrupt(value: str) -> str:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        taking(Annotated[str, AfterValidator(interrupt)]).encode(("x",), {})


@pytest.mark.parametrize(
    "hint", [int, list[int], dict[str, list[int]], int | None, Annotated[int, Field(gt=0)]], ids=str
)
def test_a_member_of_an_enum_is_refused_for_an_int_unless_its_value_is_one(hint: Any) -> None:
    class Number(enum.Enum):
        ONE = 1
        TEXT = "red"
        HALF = 0.5

    def shaped(value: Any) -> Any:
        return {list[int]: [value], dict[str, list[int]]: {"": (value,)}}.get(hint, value)

    assert taking(hint).encode((shaped(Number.ONE),), {})
    for member in (Number.TEXT, Number.HALF):
        with pytest.raises(InvalidArguments, match="'p'"):
            taking(hint).encode((shaped(member),), {})
