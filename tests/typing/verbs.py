"""What is done with a task: `send`, `call`, `asend`, `acall`, `message` and `options` take its parameters and know its value."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import assert_type

from shop import charge, deliver, fetch, forget, render, welcome

from amqpworker import Message, Sent, Status


def values() -> None:
    assert_type(welcome.send(5), Sent[str])
    assert_type(welcome.call(5), str)
    assert_type(welcome.message(5), Message[str])
    assert_type(charge.send("o-1", 990), Sent[float])
    assert_type(charge.call("o-1", cents=990), float)
    assert_type(charge.message(order="o-1", currency="USD"), Message[float])
    assert_type(fetch.send("http://localhost"), Sent[bytes])
    assert_type(fetch.call("http://localhost"), bytes)
    assert_type(fetch.message(url="http://localhost"), Message[bytes])
    assert_type(render.call(1, "a", "b"), list[str])
    assert_type(forget.send(5), Sent[None])
    assert_type(deliver.call("a@b.example", "hello"), bool)
    text: str = charge.call("o-1")  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]
    stored: Sent[str] = charge.send("o-1")  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]
    message: Message[str] = fetch.message("http://localhost")  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]


async def awaited_values() -> None:
    assert_type(await welcome.asend(5), Sent[str])
    assert_type(await welcome.acall(5), str)
    assert_type(await fetch.asend("http://localhost"), Sent[bytes])
    assert_type(await fetch.acall(url="http://localhost"), bytes)
    assert_type(await render.acall(1, "a"), list[str])
    assert_type(await deliver.asend("a@b.example", text="hello"), Sent[bool])
    text: str = await charge.acall("o-1")  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]
    forgotten_await: str = welcome.acall(5)  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]
    welcome.asend(5)  # type: ignore[unused-coroutine]  # pyright: ignore[reportUnusedCoroutine]


def results(sent: Sent[float]) -> None:
    assert_type(sent.result(), float)
    assert_type(sent.result(timeout=5), float)
    assert_type(sent.status(), Status)
    assert_type(sent.id, str)
    text: str = sent.result()  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]
    sent.result("5")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


async def awaited_results(sent: Sent[float]) -> None:
    assert_type(await sent.aresult(), float)
    assert_type(await sent.aresult(timeout=timedelta(seconds=5)), float)
    assert_type(await sent.astatus(), Status)
    text: str = await sent.aresult()  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]


def wrong_arguments() -> None:
    charge.send(5)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    charge.send("o-1", cents="much")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    charge.send("o-1", "much")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    charge.send("o-1", 990, "USD")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    charge.send("o-1", delay=5)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    charge.send()  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    charge.send(cents=990)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    charge.message("o-1", order="o-2")  # type: ignore[misc]  # pyright: ignore[reportCallIssue]
    charge.message("o-1", 5, 6)  # type: ignore[arg-type, call-arg]  # pyright: ignore[reportCallIssue]
    charge.call(order=5)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    render.send(page=1)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    render.call(1, 2)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    welcome.call("5")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    welcome.call()  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    fetch.send(b"http://localhost")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    deliver.call("a@b.example")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]


async def wrong_awaited_arguments() -> None:
    await welcome.asend("5")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await welcome.acall()  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    await welcome.acall(5, timeout=2)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    await fetch.asend("http://localhost", delay=5)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    await deliver.acall("a@b.example", 5)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def options() -> None:
    assert_type(charge.options(delay=5).send("o-1"), Sent[float])
    assert_type(charge.options(at=datetime.now(UTC), expires=timedelta(days=1)).message("o-1"), Message[float])
    assert_type(charge.options(resend=False, headers={"tenant": "acme"}).send("o-1", 990), Sent[float])
    assert_type(charge.options(timeout=5).call("o-1"), float)
    assert_type(charge.options(queue="q", id="1").send("o-1"), Sent[float])
    assert_type(charge.options(queue="q", id="1").call("o-1"), float)
    assert_type(fetch.options(timeout=timedelta(seconds=5)).call("http://localhost"), bytes)


async def awaited_options() -> None:
    assert_type(await charge.options(delay=5).asend("o-1"), Sent[float])
    assert_type(await charge.options(timeout=5).acall("o-1"), float)
    assert_type(await fetch.options(id="1").acall("http://localhost"), bytes)
    await charge.options(delay=5).acall("o-1")  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType]
    await charge.options(timeout=5).asend("o-1")  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType]
    await fetch.options(timeout=5).acall(5)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def wrong_options() -> None:
    charge.options(timeout=5).send("o-1")  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType]
    charge.options(timeout=5).message("o-1")  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType]
    charge.options(delay=5).call("o-1")  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType]
    charge.options(expires=5).call("o-1")  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType]
    charge.options(resend=True).call("o-1")  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType]
    charge.options(delay=5, timeout=5)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]
    charge.options(delay="5")  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType]
    charge.options(nonsense=5)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]
    charge.options(delay=5).send(5)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    charge.options(timeout=5).call()  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    charge.options(5)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]
    charge.delay("o-1")  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType]
