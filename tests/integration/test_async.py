"""Event loops that have not entered the app: the thread of the publisher wakes them, and none is blocked."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import pytest

from amqpworker import App, SendError
from tests.integration.tasks import echo_of
from tests.leftovers import wait_until_nothing_is_left

MakeApp = Callable[..., App]


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
    wait_until_nothing_is_left(app.producer.publisher)


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
