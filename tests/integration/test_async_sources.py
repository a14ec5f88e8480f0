"""Asynchronous sources of `asend_each`: an outcome does not wait for the next message, and one task reads all messages."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import aclosing, suppress
from contextvars import ContextVar
from dataclasses import replace
from typing import Any

import pytest

from amqpworker import App, InvalidArguments, Message, SendError, Sent, Unroutable
from amqpworker.task import RemoteTask
from tests.faults.test_event_loops import run_program
from tests.integration.tasks import QUEUE, echo_of, messages
from tests.support import Broker

Echo = RemoteTask[[str], str]
Run = Callable[[Coroutine[Any, Any, Any]], Any]

LIMIT = 30.0

number_of_caller: ContextVar[int] = ContextVar("number_of_caller")


@pytest.fixture
def echo(app: App) -> Echo:
    """A task whose messages are only sent."""
    return echo_of(app)


@pytest.fixture(params=[False, True], ids=["by the thread", "entered"])
def run(request: pytest.FixtureRequest, app: App, echo: Echo) -> Run:
    """Run a coroutine in a loop that has entered the app, or that has not; fail if it hangs, or leaves a task behind."""

    async def watch(coroutine: Coroutine[Any, Any, Any]) -> Any:
        await echo.asend("makes the exchanges")
        before = asyncio.all_tasks()
        async with asyncio.timeout(LIMIT):
            result = await coroutine
        assert asyncio.all_tasks() == before
        return result

    async def enter(coroutine: Coroutine[Any, Any, Any]) -> Any:
        async with app:
            return await watch(coroutine)

    return lambda coroutine: asyncio.run(enter(coroutine) if request.param else watch(coroutine))


def test_each_outcome_is_yielded_while_the_source_is_idle(app: App, echo: Echo, run: Run) -> None:
    got = asyncio.Event()
    batch = [(echo.options(queue="nowhere") if number % 3 == 0 else echo).message("x") for number in range(50)]

    async def source() -> AsyncIterator[Message[str]]:
        for message in batch:
            yield message
            await got.wait()
            got.clear()

    async def collect() -> list[Sent[str] | SendError]:
        outcomes = []
        async for outcome in app.asend_each(source()):
            outcomes.append(outcome)
            got.set()
        return outcomes

    outcomes = run(collect())
    assert [type(one) for one in outcomes] == [Unroutable if number % 3 == 0 else Sent for number in range(50)]
    assert [one.id if isinstance(one, Sent) else one.message.id for one in outcomes] == [one.id for one in batch]


def test_outcomes_of_messages_that_were_read_together_are_yielded_while_the_source_is_idle(
    app: App, echo: Echo, run: Run
) -> None:
    batch = list(messages(echo, 1000))
    all_came = asyncio.Event()

    async def source() -> AsyncIterator[Message[str]]:
        for message in batch:
            yield message
        await all_came.wait()

    async def collect() -> list[str]:
        ids = []
        async for outcome in app.asend_each(source()):
            assert isinstance(outcome, Sent)
            ids.append(outcome.id)
            if len(ids) == len(batch):
                all_came.set()
        return ids

    assert run(collect()) == [message.id for message in batch]


def test_a_message_that_cannot_be_published_is_reported_while_the_source_is_idle(
    app: App, echo: Echo, run: Run
) -> None:
    got = asyncio.Event()

    async def source() -> AsyncIterator[Message[str]]:
        yield replace(echo.message("x"), queue="q" * 300)
        await got.wait()
        yield echo.message("x")

    async def collect() -> list[type]:
        outcomes = []
        async for outcome in app.asend_each(source()):
            outcomes.append(type(outcome))
            got.set()
        return outcomes

    assert run(collect()) == [SendError, Sent]


def test_what_a_source_raises_comes_after_the_outcomes_before_it(app: App, echo: Echo, run: Run) -> None:

    async def source(end: Exception | object) -> AsyncIterator[Any]:
        for _ in range(3):
            yield echo.message("x")
        if isinstance(end, Exception):
            raise end
        yield end

    async def collect(end: Exception | object) -> list[Any]:
        outcomes: list[Any] = []
        try:
            async for outcome in app.asend_each(source(end)):
                outcomes.append(type(outcome))  # noqa: PERF401 - the error comes after them
        except (LookupError, InvalidArguments) as error:
            outcomes.append(type(error))
        return outcomes

    assert run(collect(LookupError("on purpose"))) == [Sent, Sent, Sent, LookupError]
    assert run(collect("not a message")) == [Sent, Sent, Sent, InvalidArguments]


def test_a_source_that_is_cancelled_cancels_the_caller(app: App, echo: Echo, run: Run) -> None:
    async def source() -> AsyncIterator[Message[str]]:
        yield echo.message("x")
        raise asyncio.CancelledError

    async def collect() -> None:
        with pytest.raises(asyncio.CancelledError):
            await app.asend_many(source())

    run(collect())


def test_a_source_may_hold_a_timeout_and_tasks_open_across_messages(app: App, echo: Echo, run: Run) -> None:
    tasks: set[asyncio.Task[Any] | None] = set()

    async def source() -> AsyncIterator[Message[str]]:
        tasks.add(asyncio.current_task())
        async with asyncio.timeout(LIMIT), asyncio.TaskGroup() as group:
            for number in range(20):
                yield await group.create_task(asyncio.sleep(0, echo.message(str(number))))
                tasks.add(asyncio.current_task())

    async def send_in_several_tasks() -> int:
        ends = app.asend_each(source())
        return len([await asyncio.create_task(anext(ends)) for _ in range(20)]) + len([one async for one in ends])

    assert run(send_in_several_tasks()) == 20
    assert len(tasks) == 1


@pytest.mark.parametrize("is_idle", [False, True])
def test_a_timeout_of_the_source_is_raised_by_the_source(app: App, echo: Echo, run: Run, is_idle: bool) -> None:
    late: list[str] = []

    async def source() -> AsyncIterator[Message[str]]:
        try:
            async with asyncio.timeout(None) as limit:
                yield echo.message("x")
                limit.reschedule(asyncio.get_running_loop().time())
                if is_idle:
                    await asyncio.Event().wait()
                while True:
                    yield echo.message("y")
        except TimeoutError:
            late.append("late")
            raise

    async def collect() -> list[str]:
        outcomes = []
        try:
            async for outcome in app.asend_each(source()):
                outcomes.append(outcome.task if isinstance(outcome, Sent) else "")
                await asyncio.sleep(0)  # the timeout passes
        except TimeoutError:
            outcomes.append("late")
        return outcomes

    outcomes = run(collect())
    assert (set(outcomes[:-1]), outcomes[-1], late) == ({"test.echo"}, "late", ["late"])


@pytest.mark.parametrize("is_idle", [False, True])
def test_a_caller_that_leaves_early_ends_the_source_in_its_own_task(
    app: App, echo: Echo, run: Run, vhost: Broker, is_idle: bool
) -> None:
    read: list[str] = []
    ended: list[bool] = []

    async def source() -> AsyncIterator[Message[str]]:
        own = asyncio.current_task()
        try:
            async with asyncio.timeout(LIMIT), asyncio.TaskGroup() as group:
                group.create_task(asyncio.Event().wait())
                while True:
                    message = echo.message("x")
                    read.append(message.id)
                    yield message
                    if is_idle:
                        await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            ended.append(asyncio.current_task() is own)

    async def leave() -> None:
        async with aclosing(app.asend_each(source())) as ends:
            async for _ in ends:
                break
        assert ended == [True]
        async with app:  # the exit waits for confirms
            pass

    run(leave())
    vhost.wait_for_count(QUEUE, 1 + len(read))
    assert set(read) < set(vhost.ids(QUEUE))


@pytest.mark.parametrize("is_idle", [False, True])
def test_a_caller_that_is_cancelled_ends_the_source_and_waits_for_that(
    app: App, echo: Echo, run: Run, is_idle: bool
) -> None:
    reads = asyncio.Event()
    may_end = asyncio.Event()
    ended: list[str] = []

    async def source() -> AsyncIterator[Message[str]]:
        try:
            while True:
                yield echo.message("x")
                reads.set()
                await (asyncio.Event().wait() if is_idle else asyncio.sleep(0))
        finally:
            await may_end.wait()
            ended.append("ended")

    async def cancel() -> None:
        sending = asyncio.create_task(app.asend_many(source()))
        await reads.wait()
        for _ in range(3):
            sending.cancel()
            await asyncio.sleep(0)
        assert not sending.done()
        may_end.set()
        with pytest.raises(asyncio.CancelledError):
            await sending
        assert ended == ["ended"]

    run(cancel())


def test_a_source_that_continues_when_it_is_cancelled_is_ended(app: App, echo: Echo, run: Run) -> None:
    ended: list[str] = []

    async def source() -> AsyncIterator[Message[str]]:
        try:
            for _ in range(2):
                with suppress(asyncio.CancelledError):
                    yield echo.message("x")
                    await asyncio.Event().wait()
            yield echo.message("y")
        finally:
            ended.append("ended")

    async def leave() -> None:
        async with aclosing(app.asend_each(source())) as ends:
            await anext(ends)
            await asyncio.sleep(0)
        assert ended == ["ended"]

    run(leave())


def test_what_a_source_raises_when_it_is_ended_reaches_the_caller(app: App, echo: Echo, run: Run) -> None:
    async def source() -> AsyncIterator[Message[str]]:
        try:
            yield echo.message("x")
            await asyncio.Event().wait()
        finally:
            raise LookupError("on purpose")

    async def leave() -> None:
        ends = app.asend_each(source())
        await anext(ends)
        with pytest.raises(LookupError, match="on purpose"):
            await ends.aclose()

    run(leave())


def test_a_source_that_is_not_a_generator_is_left_open(app: App, echo: Echo, run: Run) -> None:
    class Source:
        def __init__(self) -> None:
            self.read = 0

        def __aiter__(self) -> Source:
            return self

        async def __anext__(self) -> Message[str]:
            await asyncio.sleep(0)
            self.read += 1
            return echo.message("x")

        async def aclose(self) -> None:
            raise AssertionError("it belongs to the caller")

    source = Source()

    async def leave() -> None:
        for _ in range(3):
            before = source.read
            async with aclosing(app.asend_each(source)) as ends:
                assert isinstance(await anext(ends), Sent)
            assert source.read > before

    run(leave())


def test_a_source_sees_the_context_of_the_caller(app: App, echo: Echo, run: Run) -> None:
    async def source() -> AsyncIterator[Message[str]]:
        yield echo.options(id=f"id-{number_of_caller.get()}").message("x")

    async def send() -> str:
        number_of_caller.set(5)
        return (await app.asend_many(source()))[0].id

    assert run(send()) == "id-5"


def test_nothing_is_read_while_the_caller_does_not_wait(app: App, echo: Echo, run: Run) -> None:
    read = 0

    async def source() -> AsyncIterator[Message[str]]:
        nonlocal read
        while True:
            read += 1
            yield echo.message("x")
            await asyncio.sleep(0)

    async def pause() -> None:
        async with aclosing(app.asend_each(source())) as ends:
            await anext(ends)
            await asyncio.sleep(0)  # the message that was being read
            await asyncio.sleep(0)
            before = read
            for _ in range(100):
                await asyncio.sleep(0)
            assert read == before

    run(pause())


PROGRAM = """
import asyncio, gc, sys
from amqpworker import App

app = App(sys.argv[1])

@app.remote(name="test.echo", queue="work")
def echo(text: str) -> str: ...

async def idle():
    yield echo.message("x")
    await asyncio.Event().wait()

async def endless():
    while True:
        yield echo.message("x")

async def fails():
    yield echo.message("x")
    raise LookupError("the caller has left")

class Kept(Exception):
    pass

async def leave(source):
    async for _ in app.asend_each(source):
        break

async def leave_in_a_cycle(source):
    try:
        ends = app.asend_each(source)
        async for _ in ends:
            raise Kept
    except Kept as error:
        error.kept = error

async def main():
    for source in (idle, endless, fails):
        await leave(source())
        await leave_in_a_cycle(source())
        gc.collect()
        sending = asyncio.create_task(app.asend_many(source()))
        await asyncio.sleep(0.05)
        sending.cancel()
        await asyncio.gather(sending, return_exceptions=True)
        await leave(source())  # the end of the loop ends it

async def enter():
    async with app:
        await main()

asyncio.run(enter() if sys.argv[2] == "entered" else main())
app.close()
gc.collect()
"""


@pytest.mark.parametrize("entered", ["entered", "not"])
def test_a_source_that_is_left_in_any_way_leaves_no_complaint(vhost: Broker, entered: str) -> None:
    ended = run_program(PROGRAM, vhost.url, entered)
    lines = [line for line in ended.stderr.splitlines() if not line.startswith("Executing <")]
    assert (ended.returncode, lines) == (0, [])
