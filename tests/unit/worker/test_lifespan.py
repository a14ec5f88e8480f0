"""The lifespan of a worker process in an event loop: one asyncio task holds it, and its end is noticed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from amqpworker.worker.lifespan import Lifespan
from amqpworker.worker.middleware import RunCoroutine


@pytest.fixture
def run_coroutine() -> Iterator[RunCoroutine]:
    with asyncio.Runner() as loop:

        def run(coroutine: Coroutine[Any, Any, Any], timeout: float | None) -> Any:
            return loop.run(asyncio.wait_for(coroutine, timeout))

        yield run


async def settle() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


def test_one_asyncio_task_enters_and_exits_a_lifespan(run_coroutine: RunCoroutine) -> None:
    tasks: list[asyncio.Task[Any] | None] = []

    @asynccontextmanager
    async def around() -> AsyncIterator[None]:
        tasks.append(asyncio.current_task())
        yield
        tasks.append(asyncio.current_task())

    lifespan = Lifespan(around(), run_coroutine)
    lifespan.enter()
    assert not lifespan.has_ended
    lifespan.leave(5)
    assert tasks[0] is tasks[1] is not None
    assert not lifespan.has_ended


@pytest.mark.parametrize("error", [OSError, SystemExit])
def test_an_exception_at_the_start_of_a_lifespan_is_raised(
    run_coroutine: RunCoroutine, error: type[BaseException]
) -> None:
    @asynccontextmanager
    async def around() -> AsyncIterator[None]:
        raise error
        yield

    lifespan = Lifespan(around(), run_coroutine)
    with pytest.raises(error):
        lifespan.enter()
    assert not lifespan.has_ended
    lifespan.leave()


def test_a_task_that_cancels_all_asyncio_tasks_does_not_end_the_lifespan(run_coroutine: RunCoroutine) -> None:
    left: list[bool] = []

    @asynccontextmanager
    async def around() -> AsyncIterator[None]:
        try:
            yield
        finally:
            left.append(True)

    async def cancel_all() -> None:
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()
        await settle()

    lifespan = Lifespan(around(), run_coroutine)
    lifespan.enter()
    run_coroutine(cancel_all(), None)
    assert left == []
    lifespan.leave(5)
    assert left == [True]


def test_a_task_group_that_fails_inside_a_lifespan_is_noticed_at_once(run_coroutine: RunCoroutine) -> None:
    lost: list[bool] = []

    async def fail() -> None:
        raise OSError

    @asynccontextmanager
    async def around() -> AsyncIterator[None]:
        async with asyncio.TaskGroup() as group:
            group.create_task(fail())
            yield

    lifespan = Lifespan(around(), run_coroutine, lambda: lost.append(lifespan.has_ended))
    lifespan.enter()
    run_coroutine(settle(), None)
    assert lost == [True]
    lifespan.leave(5)
    assert not lifespan.has_ended


def test_a_lifespan_that_does_not_exit_is_not_waited_for_beyond_the_timeout(run_coroutine: RunCoroutine) -> None:
    @asynccontextmanager
    async def around() -> AsyncIterator[None]:
        yield
        await asyncio.sleep(3600)

    lifespan = Lifespan(around(), run_coroutine)
    lifespan.enter()
    lifespan.leave(0.01)
    assert not lifespan.has_ended
