from __future__ import annotations

import datetime as dt
import json
from decimal import Decimal
from typing import Any

import pytest

from amqpworker.errors import InvalidArguments
from amqpworker.signature.signature import Call, MalformedBody
from tests.unit.signature.signatures import (
    BAD_BODIES,
    INFINITY,
    Loose,
    Order,
    of,
    plain,
    run_value,
    taking,
)


@pytest.mark.parametrize("hint", [Any, int, float, str, Decimal, Order, dt.timedelta, list[float], int | float, Loose])
@pytest.mark.parametrize("body", BAD_BODIES.values(), ids=BAD_BODIES)
def test_a_body_that_is_not_a_json_object_is_malformed(hint: Any, body: bytes) -> None:
    signature = taking(hint)
    with pytest.raises(MalformedBody, match=r"^Task 'shop\.task': The body [^\n]*\.$"):
        signature.decode(body)


def test_nan_is_found_beside_values_that_look_like_it() -> None:
    signature = taking(Any)
    innocent = ["NaN", "Infinity", "1e999", "5e123", "9" * 300, {"NaN": "Infinity"}, 10**300, 1e100, 5e-324]
    body = json.dumps({"p": innocent}).encode()
    assert signature.decode(body).kwargs["p"] == innocent
    with pytest.raises(MalformedBody):
        signature.decode(json.dumps({"p": [*innocent, INFINITY]}).encode())


@pytest.mark.parametrize("field", ["amount", "parts"])
def test_numbers_that_are_none_are_malformed_inside_models(field: str) -> None:
    value = "1e999" if field == "amount" else '[{"orderId": 1, "amount": NaN}]'
    with pytest.raises(MalformedBody):
        taking(Order).decode(f'{{"p": {{"orderId": 1, "{field}": {value}}}}}'.encode())


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b"{}", "parameter 'user_id' is missing"),
        (b'{"user_id": 1, "colour": 2}', "there is no parameter 'colour'"),
        (b'{"user_id": "s3cret"}', "parameter 'user_id': Input should be a valid integer"),
        (b'{"user_id": null}', "parameter 'user_id'"),
        (b'{"user_id": [[[]]]}', "parameter 'user_id'"),
        (b'{"user_id": 1, "lang": 5}', "parameter 'lang': Input should be a valid string"),
        (b'{"user_id": 1.5}', "parameter 'user_id'"),
        (b'{"": 1, "user_id": 1}', "there is no parameter ''"),
        (b'{"user_id": 1, "%s": 2}' % (b"x" * 100_000), "there is no parameter 'xxx"),
        (b'{"user_id": 1, "a\\nb": 2}', "there is no parameter"),
    ],
)
def test_a_wrong_parameter_of_a_body_is_named_and_not_malformed(body: bytes, text: str) -> None:
    with pytest.raises(InvalidArguments, match=text) as caught:
        of(plain).decode(body)
    assert not isinstance(caught.value, MalformedBody)
    assert "s3cret" not in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 300


def test_of_a_key_that_occurs_twice_the_last_counts() -> None:
    assert of(plain).decode(b'{"user_id": 1, "user_id": 2}').kwargs == {"user_id": 2}


def test_a_parameter_cannot_be_given_inside_the_starred_ones() -> None:
    def task(a: int = 1, /, b: int = 2, **more: int) -> tuple[Any, ...]:
        return a, b, more

    with pytest.raises(InvalidArguments, match="'b'"):
        of(task).decode(b'{"more": {"b": 5}}')
    assert of(task).decode(b'{"more": {"a": 5}}') == Call((1,), {"a": 5})


def test_a_hostile_large_body_is_refused_by_its_first_error() -> None:
    many = b",".join(b'"%x": {}' % number for number in range(100_000))
    for body in (b"{%b}" % many, b'{"p": {%b}}' % many, b'{"p": [%b]}' % (b"{}," * 200_000 + b"1")):
        for hint in (dict[str, int], list[int]):
            with pytest.raises(InvalidArguments) as caught:
                taking(hint).decode(body)
            assert len(str(caught.value)) < 300
    with pytest.raises(MalformedBody):
        taking(Any).decode(b"[%b" % (b"1," * 1_000_000))


def test_large_bodies_are_carried() -> None:
    text = "é" * 2_000_000
    assert run_value(str, text) == text
