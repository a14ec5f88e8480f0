"""A parameter that a decorator passes to a task is not one of the message's: the decorator's own annotation removes it."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from functools import wraps
from typing import Any, Concatenate, ParamSpec, TypeVar, assert_type

from shop import app

from amqpworker import Sent

P = ParamSpec("P")
R = TypeVar("R")


class Session: ...


def with_session(function: Callable[Concatenate[Session, P], R]) -> Callable[P, R]:
    @wraps(function)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> R:
        return function(Session(), *args, **kwargs)

    return wrapper


def with_async_session(
    function: Callable[Concatenate[Session, P], Coroutine[Any, Any, R]],
) -> Callable[P, Coroutine[Any, Any, R]]:
    @wraps(function)
    async def wrapper(*args: P.args, **kwargs: P.kwargs) -> R:
        return await function(Session(), *args, **kwargs)

    return wrapper


@app.task(inject=("session",))
@with_session
def rename(session: Session, user: int, name: str = "") -> str:
    return f"{user} {name}"


@app.task(inject=["session"], queue="users")
@with_async_session
async def delete(session: Session, user: int) -> bool:
    return user > 0


async def uses() -> None:
    assert_type(rename(5), str)
    assert_type(rename.send(5, "Ada"), Sent[str])
    assert_type(rename.call(user=5, name="Ada"), str)
    assert_type(await delete(5), bool)
    assert_type(delete.call(5), bool)
    assert_type(await delete.asend(user=5), Sent[bool])
    rename.send(Session(), 5)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    rename.send(5, session=Session())  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    rename.call("5")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    rename.call()  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    rename(Session(), 5)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await delete.acall(Session(), 5)  # type: ignore[arg-type, call-arg]  # pyright: ignore[reportCallIssue]
    await delete.asend(user="5")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


@app.task(inject=5)  # type: ignore[call-overload, untyped-decorator]  # pyright: ignore[reportArgumentType]
def number_as_names() -> None: ...


@app.task
@with_session  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
def first_parameter_is_not_a_session(user: int) -> None: ...
