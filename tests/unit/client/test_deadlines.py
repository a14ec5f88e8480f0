"""Deadlines of what coroutines wait for: one timer of the event loop for all of them."""

from __future__ import annotations

import asyncio
import time

import pytest

from amqpworker.client import deadlines
from amqpworker.client.deadlines import Deadlines


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deadlines, "CHECK_EVERY", 0.01)


def test_a_wait_ends_with_its_future() -> None:
    async def wait() -> bool:
        future: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        asyncio.get_running_loop().call_soon(future.set_result, True)
        return await Deadlines().wait(future, time.monotonic() + 60)

    assert asyncio.run(wait())


def test_waits_that_are_late_end_and_the_others_continue() -> None:
    async def wait() -> None:
        loop, waits = asyncio.get_running_loop(), Deadlines()
        late, in_time = ([loop.create_future() for _ in range(3)] for _ in range(2))
        tasks = [
            loop.create_task(waits.wait(future, time.monotonic() + seconds))
            for futures, seconds in ((late, 0), (in_time, 60))
            for future in futures
        ]
        assert await asyncio.gather(*tasks[:3]) == [False] * 3
        assert not any(task.done() for task in tasks[3:])
        for future in in_time:
            future.set_result(True)
        assert await asyncio.gather(*tasks[3:]) == [True] * 3

    asyncio.run(wait())


def test_a_wait_that_is_cancelled_leaves_nothing_and_no_timer_stays_without_waits() -> None:
    async def wait() -> None:
        loop, waits = asyncio.get_running_loop(), Deadlines()
        task = loop.create_task(waits.wait(loop.create_future(), time.monotonic() + 60))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert not waits._deadlines
        while waits._is_checking:
            await asyncio.sleep(0)

    asyncio.run(wait())
