"""Coroutines that send and call, over the publisher's thread: the promises of `send` and `call`, and a loop that is never blocked."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest

from amqpworker import (
    App,
    BatchFailed,
    CallTimeout,
    InvalidArguments,
    Message,
    ResultTimeout,
    SendError,
    TaskFailed,
    Unroutable,
)
from amqpworker.client.sent import Sent
from amqpworker.testing import running_worker
from tests.integration.tasks import QUEUE, echo_of, messages
from tests.support import Broker

MakeApp = Callable[..., App]


@pytest.fixture
def server(make_app: MakeApp) -> Iterator[App]:
    """A worker with a few tasks."""
    app = make_app()

    @app.task(name="test.echo", queue=QUEUE, retry=None)
    def echo(text: str) -> str:
        return text

    @app.task(name="test.fail", queue=QUEUE, retry=None)
    def fail(text: str) -> str:
        raise LookupError(text)

    with running_worker(app, threads=4):
        yield app


Run = Callable[[App, Coroutine[Any, Any, Any]], Any]


@pytest.fixture(params=["by the thread", "by aio-pika"])
def run(request: pytest.FixtureRequest) -> Run:
    """Run a coroutine in a loop that has entered the app, or that has not; what it leaves waiting fails the test."""

    async def enter(app: App, coroutine: Coroutine[Any, Any, Any]) -> Any:
        async with app:
            result = await coroutine
            carrier = app._async.carriers.current()
            assert len(carrier.calls) == 0
            return result

    def run(app: App, coroutine: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run(enter(app, coroutine) if request.param == "by aio-pika" else coroutine)

    return run


def left(app: App) -> tuple[int, bool]:
    """Return how many calls wait, and whether nothing else does."""
    generation = app.producer._generation
    assert generation.publisher is not None
    return len(generation.calls), generation.publisher.is_idle


def test_a_message_is_in_its_queue_when_asend_returns(run: Run, app: App, vhost: Broker) -> None:
    sent = run(app, echo_of(app).asend("hello"))
    message = vhost.get(QUEUE)
    assert message is not None
    assert message.properties.message_id == sent.id


def test_many_coroutines_send_at_once_and_each_gets_its_own_error(run: Run, app: App, vhost: Broker) -> None:
    echo = echo_of(app)
    nowhere = echo.options(queue="nowhere")

    async def send_all() -> list[Any]:
        return await asyncio.gather(
            *(nowhere.asend("x") if number % 5 == 0 else echo.asend("x") for number in range(500)),
            return_exceptions=True,
        )

    outcomes = run(app, send_all())
    assert [type(one) is Unroutable for one in outcomes] == [number % 5 == 0 for number in range(500)]
    assert all(one.message.queue == "nowhere" for one in outcomes if isinstance(one, Unroutable))
    vhost.wait_for_count(QUEUE, 400)


def test_a_call_returns_the_value_of_the_task(run: Run, server: App) -> None:
    async def call_all() -> list[str]:
        return await asyncio.gather(*(server.tasks["test.echo"].acall(f"hello {n}") for n in range(100)))

    assert run(server, call_all()) == [f"hello {n}" for n in range(100)]


def test_a_call_of_a_message_returns_the_value_too_from_threads_and_coroutines(server: App) -> None:
    message = server.tasks["test.echo"].message("hello")
    assert server.call(message, timeout=5) == "hello"
    assert asyncio.run(server.acall(message, timeout=5)) == "hello"
    with pytest.raises(InvalidArguments, match="delay"):
        server.call(server.tasks["test.echo"].options(delay=5).message("hello"))


def test_a_task_that_failed_raises_its_failure(run: Run, server: App) -> None:
    with pytest.raises(TaskFailed) as failed:
        run(server, server.tasks["test.fail"].acall("no such user"))
    assert (failed.value.error_type, failed.value.text) == ("LookupError", "no such user")


def test_a_call_that_no_worker_serves_ends_in_time_with_the_reason(run: Run, app: App) -> None:
    async def call() -> None:
        await echo_of(app).options(timeout=0.5).acall("x")

    with pytest.raises(CallTimeout, match="has no consumers, so no worker is running its tasks"):
        run(app, call())


def test_a_call_to_a_queue_that_does_not_exist_raises_the_error_of_sending(run: Run, app: App) -> None:
    async def call() -> None:
        await echo_of(app).options(queue="nowhere", timeout=5).acall("x")

    with pytest.raises(Unroutable) as failed:
        run(app, call())
    assert failed.value.message is not None


def test_asend_each_yields_in_input_order_and_asend_many_raises_what_failed(run: Run, app: App, vhost: Broker) -> None:
    echo = echo_of(app)

    async def source() -> AsyncIterator[Message[str]]:
        for number in range(300):
            await asyncio.sleep(0)
            yield (echo.options(queue="nowhere") if number % 3 == 0 else echo).message("x")

    async def collect() -> list[Sent[str] | SendError]:
        return [outcome async for outcome in app.asend_each(source())]

    outcomes = run(app, collect())
    assert [isinstance(one, Unroutable) for one in outcomes] == [number % 3 == 0 for number in range(300)]
    with pytest.raises(BatchFailed) as failed:
        run(app, app.asend_many(source()))
    assert (len(failed.value.exceptions), len(failed.value.sent)) == (100, 200)
    assert len(run(app, app.asend_many(messages(echo, 5000)))) == 5000
    vhost.wait_for_count(QUEUE, 5400)


def test_what_reading_raises_is_raised_after_the_outcomes_before_it(run: Run, app: App) -> None:
    echo = echo_of(app)

    async def source() -> AsyncIterator[Message[str]]:
        yield echo.message("x")
        yield echo.message("y")
        raise LookupError("the file has ended")

    with pytest.raises(LookupError) as failed:
        run(app, app.asend_many(source()))
    assert failed.value.__notes__ == ["asend_many: 2 messages had been sent before, and 0 had failed."]


def test_a_result_is_read_from_the_store_without_blocking_the_loop(make_app: MakeApp, tmp_path: Path) -> None:
    app = make_app(results=f"sqlite:///{tmp_path / 'results.db'}")

    @app.task(name="test.later", queue=QUEUE, retry=None)
    def later(seconds: float) -> str:
        time.sleep(seconds)
        return "done"

    async def run() -> tuple[str, str]:
        sent = await later.asend(0.2)
        assert await sent.astatus() == "pending"
        with pytest.raises(ResultTimeout):
            await sent.aresult(timeout=0.01)
        return await sent.aresult(timeout=10), await sent.astatus()

    with running_worker(app, threads=1):
        assert asyncio.run(run()) == ("done", "done")


def test_one_that_is_not_a_message_is_refused(run: Run, app: App) -> None:
    with pytest.raises(InvalidArguments, match="got a str"):
        run(app, app.asend("x"))  # type: ignore[arg-type]
    with pytest.raises(InvalidArguments, match="got a str"):
        run(app, app.asend_many(["x"]))  # type: ignore[list-item]


def test_cancels_at_random_moments_leave_nothing_behind_and_reach_no_other_message(run: Run, server: App) -> None:
    echo = server.tasks["test.echo"]
    seed = random.randrange(1 << 30)
    chance = random.Random(seed)

    async def cancelled(number: int) -> str:
        kind = number % 3
        if kind == 0:
            task: asyncio.Task[Any] = asyncio.create_task(echo.acall("x"))
        else:
            task = asyncio.create_task((echo.options(queue="nowhere") if kind == 1 else echo.options()).asend("x"))
        await asyncio.sleep(chance.random() * 0.01)
        task.cancel()
        try:
            await task
        except (asyncio.CancelledError, Unroutable) as error:
            return type(error).__name__
        return "done"

    async def kept(number: int) -> bool:
        await asyncio.sleep(chance.random() * 0.05)
        return await echo.acall(str(number)) == str(number)

    async def cancel_some() -> tuple[list[str], list[bool]]:
        return await asyncio.gather(
            asyncio.gather(*(cancelled(number) for number in range(600))),
            asyncio.gather(*(kept(number) for number in range(100))),
        )

    ends, right = run(server, cancel_some())
    assert "CancelledError" in ends, f"seed {seed}"
    assert all(right), f"seed {seed}"


def test_loops_one_after_the_other_in_one_thread_are_each_woken(app: App) -> None:
    echo = echo_of(app)
    for _ in range(5):
        assert asyncio.run(echo.asend("x")).task == "test.echo"


def test_a_loop_that_ends_during_a_send_leaves_nothing_that_waits(app: App) -> None:
    echo = echo_of(app)

    async def leave() -> None:
        asyncio.create_task(echo.asend("x"))  # noqa: RUF006 - it is left on purpose
        await asyncio.sleep(0)

    for _ in range(20):
        asyncio.run(leave())
    app.producer.close(5)


def test_the_loop_runs_on_while_the_broker_is_away(make_app: MakeApp) -> None:
    app = make_app("amqp://127.0.0.1:1", send_timeout=1.0)
    gaps: list[float] = []

    async def tick() -> None:
        last = time.monotonic()
        while True:
            await asyncio.sleep(0.01)
            now = time.monotonic()
            gaps.append(now - last)
            last = now

    async def run() -> None:
        ticking = asyncio.create_task(tick())
        with pytest.raises(SendError):
            await echo_of(app).asend("x")
        ticking.cancel()

    asyncio.run(run())
    assert len(gaps) > 20
