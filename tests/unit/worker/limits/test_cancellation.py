"""The time limit of a coroutine: it is cancelled until it has ended, and what others cancel is theirs."""

from __future__ import annotations

import asyncio
import math
from typing import Any

import pytest

from amqpworker import TimeLimitExceeded
from amqpworker.worker.limits.cancellation import await_within


def test_a_coroutine_that_swallows_its_cancellation_is_cancelled_again() -> None:
    swallowed: list[int] = []

    async def stubborn() -> None:
        while True:
            try:
                await asyncio.sleep(600)
            except asyncio.CancelledError:
                swallowed.append(1)
                if len(swallowed) == 3:
                    raise

    with pytest.raises(TimeLimitExceeded):
        asyncio.run(await_within(stubborn(), 0.02, 0.02))
    assert len(swallowed) == 3


def test_the_result_or_exception_of_a_coroutine_after_its_cancellation_is_kept() -> None:
    async def careful(error: Exception | None) -> Any:
        try:
            await asyncio.sleep(600)
        except asyncio.CancelledError:
            if error is not None:
                raise error from None
            return "cleaned up", asyncio.current_task()

    async def both() -> None:
        value, task = await await_within(careful(None), 0.01, 60)
        assert value == "cleaned up"
        assert task.cancelling() == 0, "nothing is left of it"
        with pytest.raises(ZeroDivisionError):
            await await_within(careful(ZeroDivisionError()), 0.01, 60)
        assert await await_within(asyncio.sleep(0, 42), math.inf, 60) == 42
        assert await await_within(asyncio.sleep(0, 42), 60, 60) == 42

    asyncio.run(both())


def test_a_cancellation_by_others_is_not_a_time_limit() -> None:
    async def cancelled() -> None:
        task = asyncio.create_task(await_within(asyncio.sleep(600), 60, 60))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(cancelled())


def test_a_timeout_error_that_a_coroutine_raises_is_not_changed() -> None:
    async def late() -> None:
        async with asyncio.timeout(0.01):
            await asyncio.sleep(600)

    with pytest.raises(TimeoutError):
        asyncio.run(await_within(late(), 60, 60))
