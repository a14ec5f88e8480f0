"""Parameters that a decorator passes to a task: they are not part of its messages."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

from amqpworker import App
from amqpworker.cli.send_command import message
from amqpworker.errors import ConfigError, InvalidArguments
from amqpworker.signature.signature import Signature

if TYPE_CHECKING:
    from somewhere import Session

Function = Callable[..., Any]


def with_session(function: Function) -> Function:
    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return function("s", *args, **kwargs)

    return wrapper


def with_session_by_keyword(function: Function) -> Function:
    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return function(*args, session="s", **kwargs)

    return wrapper


def with_async_session(function: Function) -> Function:
    @functools.wraps(function)
    async def wrapper(*args: Any, **kwargs: Any) -> Any:
        return await function("s", *args, **kwargs)

    return wrapper


@with_session
def first(session: Session, number: int, name: str = "x") -> str:
    return f"{session} {number} {name}"


@with_session
def first_by_position(session: Session, /, number: int, *rest: int, **extra: int) -> str:
    return f"{session} {number} {rest} {extra}"


@with_session_by_keyword
def by_keyword(number: int, *rest: int, session: Session, name: str = "x") -> str:
    return f"{session} {number} {rest} {name}"


@with_session_by_keyword
def in_between(number: int, session: Session, name: str = "x") -> str:
    return f"{session} {number} {name}"


@with_async_session
async def coroutine(session: Session, number: int, name: str = "x") -> str:
    return f"{session} {number} {name}"


def without_a_decorator(number: int, session: Session) -> None: ...


def with_a_default(number: int, session: Callable[[], str] = lambda: "s") -> str:
    return f"{session()} {number}"


def of(function: Function, *inject: str) -> Signature:
    return Signature.of(function, "shop.task", inject or ("session",))


def run(function: Function, *args: Any, **kwargs: Any) -> Any:
    """Call the function by way of a message."""
    signature = of(function)
    call = signature.decode(signature.encode(args, kwargs))
    result = function(*call.args, **call.kwargs)
    return asyncio.run(result) if signature.is_async else result


def test_a_task_is_sent_without_what_its_decorator_passes_and_runs_with_it() -> None:
    assert run(first, 5) == "s 5 x"
    assert run(first, 5, "y") == run(first, number=5, name="y") == "s 5 y"
    assert run(first_by_position, 5, 6, 7, other=8) == "s 5 (6, 7) {'other': 8}"
    assert run(by_keyword, 5, 6, name="y") == "s 5 (6,) y"
    assert run(in_between, 5, "y") == "s 5 y"
    assert run(coroutine, 5, name="y") == "s 5 y"
    assert run(with_a_default, 5) == "s 5"


@pytest.mark.parametrize("function", [first, by_keyword, in_between, coroutine])
def test_an_injected_parameter_is_refused_like_an_unknown_argument(function: Function) -> None:
    signature = of(function)
    with pytest.raises(InvalidArguments, match=r"^Task 'shop\.task': there is no parameter 'session'\.$"):
        signature.encode((5,), {"session": "s"})
    with pytest.raises(InvalidArguments, match=r"^Task 'shop\.task': there is no parameter 'session'\.$"):
        signature.decode(b'{"number": 5, "session": "s"}')
    assert "session" not in signature.hints


def test_an_injected_parameter_cannot_be_sent_among_those_that_have_no_name_of_their_own() -> None:
    @with_session
    def task(session: Session, **extra: int) -> None: ...

    with pytest.raises(InvalidArguments, match="there is no parameter 'session'"):
        of(task).encode((), {"session": 5})
    with pytest.raises(InvalidArguments, match="'session' is given inside 'extra'"):
        of(task).decode(b'{"extra": {"session": 5}}')


@pytest.mark.parametrize("name", ["sesion", "args", "rest", "extra", ""])
def test_a_name_that_is_not_a_parameter_is_refused_at_decoration(name: str) -> None:
    with pytest.raises(
        ConfigError, match=rf"has no parameter '{name}' to inject, it has session, number, rest, extra:"
    ):
        of(first_by_position, "session", name)


def test_a_parameter_that_nothing_passes_is_refused_at_decoration() -> None:
    with pytest.raises(ConfigError, match=r"^Task 'shop\.task': nothing passes the injected parameter 'session'"):
        of(without_a_decorator)


def test_a_decorator_may_pass_what_a_method_calls_self() -> None:
    @with_session
    def task(self, number: int) -> str:  # type: ignore[no-untyped-def]
        return f"{self} {number}"

    call = of(task, "self").decode(b'{"number": 5}')
    assert task(*call.args, **call.kwargs) == "s 5"


def test_names_that_are_one_text_are_refused_and_not_taken_letter_by_letter() -> None:
    app = App("amqp://127.0.0.1:1/")
    with pytest.raises(ConfigError, match=r"inject='session'\): give a list of names, such as \['session'\]"):
        app.task(name="shop.task", inject="session")
    assert not app.tasks


def test_the_command_line_sends_what_is_left() -> None:
    app = App("amqp://127.0.0.1:1/")
    app.task(name="shop.task", inject=["session"])(first)
    assert message(app, "shop.task", ["number=5"], None, {}).body == b'{"number":5}'
    with pytest.raises(InvalidArguments, match="there is no parameter 'session'"):
        message(app, "shop.task", ["number=5", "session=s"], None, {})


def clock_between(number: int, clock: Callable[[], float] = lambda: 0.0, *rest: int) -> None: ...
def clock_before(clock: Callable[[], float] = lambda: 0.0, *rest: int) -> None: ...
def clock_by_position(number: int, clock: Callable[[], float] = lambda: 0.0, other: int = 0, /) -> None: ...


@pytest.mark.parametrize("function", [clock_between, clock_before, clock_by_position])
def test_an_injected_parameter_that_an_argument_would_get_into_is_refused(function: Function) -> None:
    with pytest.raises(ConfigError, match="an argument by position would get into the injected parameter 'clock'"):
        of(function, "clock")


def test_names_to_inject_may_be_given_by_any_iterable() -> None:
    app = App("amqp://localhost:1/")
    task = app.task(name="shop.task", inject=iter(["session"]))(with_a_default)
    assert "session" not in task.signature.hints
