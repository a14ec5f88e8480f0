"""Event loops that have not entered the app: the thread of the publisher wakes them, and none is blocked."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable

import pytest

from amqpworker import (
    App,
    BatchFailed,
    Message,
    SendError,
    Unroutable,
)
from tests.integration.tasks import QUEUE, echo_of, messages
from tests.support import Broker

MakeApp = Callable[..., App]


@pytest.mark.parametrize("entered", [False, True])
def test_many_messages_may_be_read_from_an_asynchronous_source(app: App, vhost: Broker, entered: bool) -> None:
    echo = echo_of(app)

    async def source() -> AsyncIterator[Message[str]]:
        for number in range(300):
            await asyncio.sleep(0)
            yield (echo.options(queue="nowhere") if number % 3 == 0 else echo).message("x")

    async def run() -> None:
        await app.asend(echo.message("makes the exchanges"))
        outcomes = [outcome async for outcome in app.asend_each(source())]
        assert [isinstance(one, Unroutable) for one in outcomes] == [number % 3 == 0 for number in range(300)]
        with pytest.raises(BatchFailed) as failed:
            await app.asend_many(source())
        assert (len(failed.value.exceptions), len(failed.value.sent)) == (100, 200)
        assert len(await app.asend_many(messages(echo, 5000))) == 5000

    async def enter() -> None:
        async with app:
            await run()

    asyncio.run(enter() if entered else run())
    vhost.wait_for_count(QUEUE, 5401)


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
