"""What an app does with messages: each has the type of its task's value, which sending and calling keep."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from typing import Any, assert_type

from shop import app, charge, fetch, welcome

from amqpworker import Message, SendError, Sent


def sends() -> None:
    assert_type(app.send(welcome.message(5)), Sent[str])
    assert_type(app.send(charge.message("o-1")).result(), float)
    assert_type(app.send(welcome.options(delay=3600).message(5)), Sent[str])
    assert_type(app.call(charge.message("o-1")), float)
    assert_type(app.call(fetch.message("http://localhost"), timeout=5), bytes)
    assert_type(app.send_many([welcome.message(5)]), list[Sent[str]])
    assert_type(app.send_many(welcome.message(number) for number in range(3)), list[Sent[str]])
    assert_type(app.send_each(charge.message(f"o-{n}") for n in range(3)), Iterator[Sent[float] | SendError])
    for outcome in app.send_each([welcome.message(5)]):
        if isinstance(outcome, SendError):
            assert_type(outcome.message, Message[Any] | None)
        else:
            assert_type(outcome.result(), str)


async def asends(numbers: AsyncIterator[int]) -> None:
    assert_type(await app.asend(welcome.message(5)), Sent[str])
    assert_type(await (await app.asend(charge.message("o-1"))).aresult(), float)
    assert_type(await app.acall(fetch.message("http://localhost")), bytes)
    assert_type(await app.acall(welcome.message(5), timeout=2), str)
    assert_type(await app.asend_many([welcome.message(5)]), list[Sent[str]])
    assert_type(await app.asend_many(welcome.message(number) for number in range(3)), list[Sent[str]])
    assert_type(await app.asend_many(welcome.message(number) async for number in numbers), list[Sent[str]])
    assert_type(app.asend_each([charge.message("o-1")]), AsyncGenerator[Sent[float] | SendError, None])
    async for outcome in app.asend_each(welcome.message(number) async for number in numbers):
        assert_type(outcome, Sent[str] | SendError)
    async with app as entered:
        assert_type(await entered.asend(welcome.message(5)), Sent[str])


def messages_of_several_tasks(wider: Message[str | float]) -> None:
    mixed = [welcome.message(5), charge.message("o-1")]
    wide_list: list[Message[str | float]] = [welcome.message(5), charge.message("o-1")]
    of_anything: list[Message[object]] = [welcome.message(5), charge.message("o-1"), fetch.message("x")]
    app.send_many(mixed)
    app.send_many(of_anything)
    assert_type(app.send_many(wide_list), list[Sent[str | float]])
    assert_type(app.call(wider), str | float)
    send_any(welcome.message(5))
    narrower: Message[str] = wider  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]


def send_any(message: Message[object]) -> None:
    app.send(message)


def messages_that_were_stored(row: dict[str, Any], bare: Message) -> None:
    assert_type(Message.load(row), Message[Any])
    assert_type(app.send(bare), Sent[Any])
    assert_type(welcome.message(5).dump(), dict[str, Any])
    text: str = app.call(Message.load(row))


def wrong() -> None:
    value: str = app.call(charge.message("o-1"))  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]
    result: str = app.send(charge.message("o-1")).result()  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]
    sent: list[Sent[str]] = app.send_many([charge.message("o-1")])  # type: ignore[list-item]  # pyright: ignore[reportAssignmentType]
    app.send(welcome)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    app.send(welcome.send(5))  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    app.send([welcome.message(5)])  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    app.send_many(welcome.message(5))  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    app.send_many([5])  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    app.call(welcome.message(5), timeout="5")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    app.call(welcome.message(5), 5)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    for outcome in app.send_each([welcome.message(5)]):
        outcome.result()  # type: ignore[union-attr]  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType]


async def wrong_awaited(numbers: AsyncIterator[int]) -> None:
    value: str = await app.acall(charge.message("o-1"))  # type: ignore[arg-type]  # pyright: ignore[reportAssignmentType]
    sent: list[Sent[float]] = await app.asend_many([welcome.message(5)])  # type: ignore[list-item]  # pyright: ignore[reportAssignmentType]
    await app.asend(5)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await app.asend_many(welcome.message(5))  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await app.asend_many(numbers)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await app.asend_each([welcome.message(5)])  # type: ignore[misc]  # pyright: ignore[reportGeneralTypeIssues]
    app.asend(welcome.message(5))  # type: ignore[unused-coroutine]  # pyright: ignore[reportUnusedCoroutine]
    app.send_many(welcome.message(number) async for number in numbers)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    for outcome in app.asend_each([welcome.message(5)]):  # type: ignore[attr-defined]  # pyright: ignore[reportGeneralTypeIssues, reportUnknownVariableType]
        pass
