"""An app whose tasks have what is hard to describe: shared classes, tuples, tagged unions, versions, names of all kinds."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from decimal import Decimal
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field

from amqpworker import App

app = App("amqp://guest:hidden@127.0.0.1:1/")
nothing = App()


class Note(BaseModel):
    text: str
    replies: list[Note] = []


class Order(BaseModel):
    """An order."""

    sku: str
    notes: list[Note] = []


class Cat(BaseModel):
    kind: Literal["cat"] = "cat"
    lives: int


class Dog(BaseModel):
    kind: Literal["dog"] = "dog"
    name: str


class Odd:
    """A class that pydantic can read, and not describe."""

    @classmethod
    def __get_pydantic_core_schema__(cls, *_: Any) -> Any:
        from pydantic_core import core_schema

        return core_schema.no_info_plain_validator_function(
            int, serialization=core_schema.plain_serializer_function_ser_schema(int)
        )


def upgrade(_version: int, arguments: dict[str, Any]) -> dict[str, Any]:
    return arguments


@app.task(name="shop.place", queue="orders", aliases=["shop.order"], version=2, upgrade=upgrade)
def place(order: Order, when: datetime | None = None) -> str:
    """Place an order."""
    return order.sku


@app.task(name="shop.list_orders", queue="orders")
def list_orders() -> list[Order]:
    return []


@app.task(name="shop.mixed")
def mixed(
    pair: tuple[int, str],
    pet: Annotated[Cat | Dog, Field(discriminator="kind")],
    *args: int,
    data: bytes = b"x",
    limit: float = float("inf"),
    **more: str,
) -> None:
    return None


@app.task(name="shop.prices")
def prices(amount: Decimal) -> Decimal:
    return amount


@app.task(name="shop.odd/one!")
def odd(value: Odd) -> Any:
    return value


@app.remote(name="billing.charge", queue="billing")
def charge(amount: Decimal, orders: list[Order]) -> bool:
    """Charge a customer."""
    raise NotImplementedError


def calls() -> Iterator[tuple[Any, dict[str, Any], Any]]:
    """Yield calls: a task, arguments for it, and what it could return."""
    order = Order(sku="a", notes=[Note(text="x", replies=[Note(text="y")])])
    yield place, {"order": order}, "a"
    yield place, {"order": order, "when": datetime.fromisoformat("2026-11-28T23:59:59Z")}, "a"
    yield list_orders, {}, [order, order]
    yield mixed, {"pair": (1, "a"), "pet": Cat(lives=9), "data": b"\xff", "extra": "x"}, None
    yield prices, {"amount": Decimal("1.10")}, Decimal("1E+2")
    yield odd, {"value": 5}, [1, "a", None]
    yield charge, {"amount": Decimal("0.5"), "orders": [order]}, True
