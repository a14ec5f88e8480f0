from __future__ import annotations

import datetime as dt
import json
import uuid
from contextlib import suppress
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter

from amqpworker.errors import InvalidArguments, InvalidResult
from amqpworker.signature.signature import Call
from tests.unit.signature.signatures import (
    BAD_BODIES,
    Order,
    Page,
    Point,
    Row,
    of,
    plain,
    returning,
    run,
    taking,
)


def test_a_body_is_a_compact_object_with_one_key_per_given_parameter() -> None:
    assert of(plain).encode((42,), {}) == b'{"user_id":42}'
    assert of(plain).encode((42, "fr"), {}) == b'{"user_id":42,"lang":"fr"}'
    assert of(plain).encode((), {"lang": "é", "user_id": 1}) == '{"user_id":1,"lang":"é"}'.encode()


def test_what_was_left_out_takes_the_functions_own_default() -> None:
    assert of(plain).decode(b'{"user_id": 42}') == Call((), {"user_id": 42})
    assert run(plain, 42) == "42 en"


def test_args_and_kwargs_travel_under_their_own_names() -> None:
    def task(first: int, *numbers: int, flag: bool = False, **labels: str) -> tuple[Any, ...]:
        return first, numbers, flag, labels

    assert of(task).encode((1, 2, 3), {"flag": True, "a": "x"}) == (
        b'{"first":1,"numbers":[2,3],"flag":true,"labels":{"a":"x"}}'
    )
    assert of(task).encode((1,), {}) == b'{"first":1}'
    assert run(task, 1, 2, 3, flag=True, a="x", labels="y", numbers="z") == (
        1,
        (2, 3),
        True,
        {"a": "x", "labels": "y", "numbers": "z"},
    )
    assert run(task, 1) == (1, (), False, {})


def test_positional_only_and_keyword_only_parameters_are_bound_as_python_binds_them() -> None:
    def task(a: int, b: int = 2, /, c: int = 3, *, d: int = 4, **more: int) -> tuple[Any, ...]:
        return a, b, c, d, more

    assert run(task, 1) == (1, 2, 3, 4, {})
    assert run(task, 1, 5, 6, d=7) == (1, 5, 6, 7, {})
    assert run(task, 1, a=8) == (1, 2, 3, 4, {"a": 8})
    assert of(task).decode(b'{"a": 1, "d": 5}') == Call((1, 2), {"d": 5})


def test_arguments_after_a_parameter_that_was_left_out_are_given_by_position() -> None:
    def task(a: int, b: int = 2, *rest: int) -> tuple[Any, ...]:
        return a, b, rest

    call = of(task).decode(b'{"a": 1, "rest": [3]}')
    assert task(*call.args, **call.kwargs) == (1, 2, (3,))


def test_any_name_that_python_allows_can_be_a_parameters() -> None:
    def task(
        self: int,
        _x: int,
        __y: int,
        model_config: int,
        schema: int,
        copy: int,
        json: int,
        validate: int,
        type: int,  # noqa: A002
    ) -> int:
        return self + _x + __y + model_config + schema + copy + json + validate + type

    def others(default: int, fields: int, metadata: Any, cls: int, args: int, kwargs: int, ref: int) -> int:
        return default + fields + metadata + cls + args + kwargs + ref

    assert run(task, *[1] * 9) == 9
    assert run(others, *[1] * 7) == 7
    with pytest.raises(InvalidArguments, match="metadata"):
        of(others).encode((1, 1, {1}, 1, 1, 1, 1), {})


def test_parameters_without_hints_take_whatever_json_has() -> None:
    def task(a, b=None):  # type: ignore[no-untyped-def]
        return a, b

    value = {"a": [1, 2.5, None, True, "x", {"b": []}]}
    assert run(task, value, b=[1, 2]) == (value, [1, 2])


@pytest.mark.parametrize(
    ("value", "word"),
    [
        ({1}, "set"),
        ((1, 2), "tuple"),
        ({1: 2}, "key"),
        ([{"a": {(1, 2): 3}}], "key"),
        (b"x", "bytes"),
        (dt.date(2020, 1, 1), "date"),
        (Decimal(1), "Decimal"),
        (object(), "object"),
        (Point(1.0), "Point"),
        (Order(orderId=1), "Order"),
        ((n for n in ()), "generator"),
    ],
)
def test_any_refuses_what_json_would_turn_into_something_else(value: object, word: str) -> None:
    for hint, given_value in [(Any, value), (list, [value]), (dict[str, Any], {"k": value}), (object, value)]:
        with pytest.raises(InvalidArguments, match=rf"^Task 'shop\.task': parameter 'p'.*{word}"):
            taking(hint).encode((given_value,), {})
    with pytest.raises(InvalidResult, match=word):
        returning(Any).encode_result(value)


def test_an_async_function_is_marked_as_such() -> None:
    async def task(a: int) -> int:
        return a

    assert of(task).is_async
    assert of(task).decode_result(of(task).encode_result(3)) == 3
    assert not of(plain).is_async


def test_a_result_is_checked_against_its_hint() -> None:
    signature = of(plain)
    assert signature.encode_result("x") == b'"x"'
    assert signature.decode_result(b'"x"') == "x"
    with pytest.raises(InvalidResult, match=r"^Task 'shop\.task': the return value: Input should be a valid string\.$"):
        signature.encode_result(5)
    with pytest.raises(InvalidResult, match="the return value"):
        signature.decode_result(b"5")


def test_a_task_that_returns_none_has_null_as_its_result() -> None:
    assert returning(None).encode_result(None) == b"null"
    assert returning(None).decode_result(b"null") is None
    with pytest.raises(InvalidResult):
        returning(None).encode_result(1)


def test_a_missing_return_hint_takes_whatever_json_has() -> None:
    def task(a: int):  # type: ignore[no-untyped-def]
        return a

    assert of(task).decode_result(of(task).encode_result({"a": [1]})) == {"a": [1]}


@pytest.mark.parametrize("data", [*BAD_BODIES.values(), b'"x","y"', b'1,"result":2', b"1]"])
def test_a_result_that_does_not_fit_the_hint_is_an_invalid_result(data: bytes) -> None:
    with pytest.raises(InvalidResult):
        returning(dict[str, dict[str, list[float]]]).decode_result(data)


def test_the_error_of_an_unreadable_result_does_not_contain_its_value() -> None:
    with pytest.raises(InvalidResult) as caught:
        returning(int).encode_result("s3cret")
    assert "s3cret" not in str(caught.value)
    assert caught.value.__suppress_context__


def everything(
    number: int,
    text: str = "",
    *rest: float,
    data: bytes = b"",
    when: dt.datetime | None = None,
    tags: frozenset[str] = frozenset(),
    anything: Any = None,
    table: dict[int, tuple[bool, Decimal]] | None = None,
    **more: list[uuid.UUID],
) -> dict[str, Any]:
    return locals()


EVERYTHING = of(everything)
FINITE = st.floats(allow_nan=False, allow_infinity=False)
TEXT = st.text(st.characters(exclude_categories=["Cs"]))
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | FINITE | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=20,
)
NAMES = st.sampled_from(["a", "_b", "model_config", "self", "more", "rest"])
GIVEN = st.fixed_dictionaries(
    {},
    optional={
        "data": st.binary(),
        "when": st.none() | st.datetimes(timezones=st.just(dt.UTC)),
        "tags": st.frozensets(TEXT),
        "anything": JSON,
        "table": st.dictionaries(
            st.integers(), st.tuples(st.booleans(), st.decimals(allow_nan=False, allow_infinity=False))
        ),
    },
)


@given(st.integers(), st.tuples() | st.tuples(TEXT) | st.tuples(TEXT, FINITE, FINITE), GIVEN, st.data())
def test_every_call_arrives_as_it_was_made(
    number: int, more_args: tuple[Any, ...], kwargs: dict[str, Any], data: st.DataObject
) -> None:
    extra = data.draw(st.dictionaries(NAMES, st.lists(st.uuids(), max_size=2)))
    args, kwargs = (number, *more_args), kwargs | extra
    call = EVERYTHING.decode(EVERYTHING.encode(args, kwargs))
    assert everything(*call.args, **call.kwargs) == everything(*args, **kwargs)


SIGNATURES = [EVERYTHING, of(plain), taking(Any), taking(Order), taking(Point), taking(list[float]), taking(Row)]


def decode_or_refuse(body: bytes) -> None:
    for signature in SIGNATURES:
        try:
            call = signature.decode(body)
        except InvalidArguments as error:
            assert "\n" not in str(error)  # noqa: PT017
        else:
            assert isinstance(call, Call)
        with suppress(InvalidResult):
            signature.decode_result(body)


@given(st.binary())
def test_no_bytes_raise_anything_but_the_two_errors(body: bytes) -> None:
    decode_or_refuse(body)


@settings(max_examples=50)
@given(
    st.dictionaries(
        st.sampled_from(["number", "text", "rest", "more", "when", "p", "user_id", "table", "tags", "x"]),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
            lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(["orderId", "x", "parts", "key"]), inner),
        ),
    )
    | JSON
)
def test_no_json_raises_anything_but_the_two_errors(value: Any) -> None:
    decode_or_refuse(json.dumps(value).encode())


@given(st.recursive(st.floats() | st.text() | st.integers(), lambda inner: st.lists(inner) | st.tuples(inner, inner)))
def test_whatever_any_lets_out_it_takes_in(value: Any) -> None:
    signature = taking(Any)
    try:
        body = signature.encode((value,), {})
    except InvalidArguments:
        return
    assert signature.decode(body).kwargs == {"p": value}


def test_the_schema_of_a_model_is_left_as_it_was() -> None:
    taking(Page[Any])
    assert TypeAdapter(Page[Any]).validate_python({"items": [{1}]}).items == [{1}]
