"""The app of a user, and its tasks: decorators keep the parameters and the return type of a function."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any, assert_type

from amqpworker import App
from amqpworker.task import AsyncTask, Task

app = App()


@app.task
def welcome(user: int) -> str:
    return str(user)


@app.task(queue="billing", retry=[1, 5], time_limit=60, aliases=["shop.pay"])
def charge(order: str, cents: int = 0, *, currency: str = "EUR") -> float:
    return cents / 100


@app.task
async def fetch(url: str) -> bytes:
    return url.encode()


@app.task(queue="slow", isolated=True)
async def render(page: int, /, *layers: str) -> list[str]:
    return [*layers, str(page)]


@app.task
def forget(user: int) -> None: ...


@app.remote(name="mail.deliver", queue="mail")
def deliver(address: str, text: str) -> bool:
    raise NotImplementedError


def calls_here() -> None:
    assert_type(welcome(5), str)
    assert_type(charge("o-1", 990, currency="USD"), float)
    unawaited: Coroutine[Any, Any, bytes] = fetch("http://localhost")
    assert_type(deliver("a@b.example", text="hello"), bool)
    not_awaited: bytes = fetch("http://localhost")  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]
    welcome("5")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


async def awaits_here() -> None:
    assert_type(await fetch("http://localhost"), bytes)
    assert_type(await render(1), list[str])
    await welcome(5)  # type: ignore[misc]  # pyright: ignore[reportGeneralTypeIssues]


def holds(sync: Task[[int], str], coroutine: AsyncTask[[str], bytes]) -> None: ...


def passes_tasks() -> None:
    holds(welcome, fetch)
    holds(forget, fetch)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


@app.task(queue=5)  # type: ignore[call-overload, untyped-decorator]  # pyright: ignore[reportArgumentType]
def queue_that_is_a_number() -> None: ...


@app.task(nonsense=True)  # type: ignore[call-overload, untyped-decorator]  # pyright: ignore[reportCallIssue, reportUntypedFunctionDecorator]
def unknown_option() -> None: ...


@app.task("welcome")  # type: ignore[call-overload, untyped-decorator]  # pyright: ignore[reportArgumentType, reportCallIssue, reportUntypedFunctionDecorator]
def name_by_position() -> None: ...


@app.remote(queue="mail")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue, reportUntypedFunctionDecorator]
def remote_without_a_name() -> None: ...


class NotFound(LookupError): ...


@app.task(throws=(NotFound,), retry=3)
def find(name: str) -> str:
    return name


def kept_by_throws() -> None:
    assert_type(find.call("a"), str)


def foreign_options() -> None:
    app.task(bind=True)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]
    app.task(max_retries=3, queue="q")  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]
    app.task(throws=NotFound)  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType]
    app.task(throws=(int,))  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
