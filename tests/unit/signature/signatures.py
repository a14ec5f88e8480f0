"""Signatures of any hint, the types they are tried with, and bodies that must not be sent."""

from __future__ import annotations

import dataclasses
import enum
import typing
from collections.abc import Callable
from decimal import Decimal
from typing import Any, Generic, NewType, ParamSpec, TypeVar

import typing_extensions
from pydantic import BaseModel, ConfigDict, Field

from amqpworker.signature.signature import Signature

NAN = float("nan")
INFINITY = float("inf")
T = TypeVar("T")
P = ParamSpec("P")
UserId = NewType("UserId", int)


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Level(enum.IntEnum):
    LOW = 1


class Mixed(enum.Enum):
    RED = "red"
    SECOND = 2


class Odd(enum.Enum):
    HALF = 0.5
    PAIR = (1, 2)


class Order(BaseModel):
    order_id: int = Field(alias="orderId")
    amount: float = 0.0
    note: str | None = None
    parts: list[Order] = []


class Page(BaseModel, Generic[T]):
    items: list[T]


class Packed(BaseModel):
    model_config = ConfigDict(ser_json_bytes="base64", val_json_bytes="base64")
    data: bytes


class Loose(BaseModel):
    anything: Any = None
    data: bytes = b""


@dataclasses.dataclass
class Point:
    x: float
    label: str = ""
    data: bytes = b""
    price: Decimal = Decimal(0)


class Row(typing_extensions.TypedDict):
    key: str
    weight: float
    data: bytes
    more: typing_extensions.NotRequired[Any]


class OldRow(typing.TypedDict):
    key: str


def of(function: Callable[..., Any]) -> Signature:
    return Signature.of(function, "shop.task")


def taking(hint: Any) -> Signature:
    def task(p: Any) -> None: ...

    task.__annotations__ = {"p": hint}
    return of(task)


def returning(hint: Any) -> Signature:
    def task() -> None: ...

    task.__annotations__ = {"return": hint}
    return of(task)


def run(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Call the function by way of a message."""
    signature = of(function)
    call = signature.decode(signature.encode(args, kwargs))
    return function(*call.args, **call.kwargs)


def run_value(hint: Any, value: Any) -> Any:
    signature = taking(hint)
    call = signature.decode(signature.encode((value,), {}))
    assert call.args == ()
    return call.kwargs["p"]


def plain(user_id: int, lang: str = "en") -> str:
    return f"{user_id} {lang}"


BAD_BODIES = {
    "empty": b"",
    "not UTF-8": b'{"p": "\xff"}',
    "not JSON": b"{'p': 1}",
    "not an object": b"[1]",
    "null": b"null",
    "text": b'"p"',
    "a number": b"1",
    "cut off": b'{"p": 1',
    "something after it": b'{"p": 1} x',
    "byte order mark": b'\xef\xbb\xbf{"p": 1}',
    "UTF-16": '{"p": 1}'.encode("utf-16"),
    "nested 10,000 deep": b'{"p": ' + b"[" * 10_000 + b"]" * 10_000 + b"}",
    "nested without end": b"[" * 100_000,
    "objects without end": b'{"p":' * 100_000,
    "NaN": b'{"p": NaN}',
    "Infinity": b'{"p": Infinity}',
    "-Infinity": b'{"p": [-Infinity]}',
    "1e999": b'{"p": 1e999}',
    "1E+999": b'{"p": {"a": [-1E+999]}}',
    "1e00999": b'{"p": 1e00999}',
    "many digits and a point": b'{"p": ' + b"9" * 400 + b".0}",
    "digits and exponent": b'{"p": ' + b"9" * 250 + b"e99}",
    "lone surrogate": b'{"p": "\\ud800"}',
    "lone low surrogate": b'{"p": "\\udc00x"}',
    "lone surrogate in a key": b'{"\\ud800": 1}',
    "1 MB of digits": b'{"p": ' + b"9" * 1_000_000 + b"}",
    "compressed": b"\x1f\x8b\x08\x00",
    "pickle": b"\x80\x04K\x01.",
}
