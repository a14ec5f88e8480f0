"""
Rates, times and processor time of what one process does, the same for all sides that are compared by them.

The processor time is that of the whole process, all its threads included, and in the kernel too.
Only the standard library is imported here, because the peers' processes import it too.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager

CONCURRENCY = 100
WARM_UP = 200

Figures = dict[str, float]
"""What one run of one side gave: metric to value."""

Act = Callable[[int], Awaitable[object]]
"""What a coroutine does with the number of a message: it sends it, or calls with it and checks the reply."""


@contextmanager
def measured(what: str, count: int) -> Iterator[Figures]:
    """Measure what is done inside: how many per second, and the processor time of each. `what` is such as "message"."""
    figures: Figures = {}
    processor, start = time.process_time(), time.perf_counter()
    yield figures
    seconds, used = time.perf_counter() - start, time.process_time() - processor
    figures[f"{what}s/s"] = count / seconds
    figures[cpu(what)] = used / count * 1e6


def cpu(what: str) -> str:
    """Return the metric of the processor time of each."""
    return f"µs CPU per {what}"


async def in_flight(act: Act, what: str, count: int) -> Figures:
    """Measure 100 coroutines, each of which acts again and again."""
    each = count // CONCURRENCY
    await _all(act, max(1, WARM_UP // CONCURRENCY))
    with measured(what, each * CONCURRENCY) as figures:
        await _all(act, each)
    return figures


async def _all(act: Act, each: int) -> None:
    async def one(first: int) -> None:
        for index in range(first, first + each):
            await act(index)

    async with asyncio.TaskGroup() as group:
        for number in range(CONCURRENCY):
            group.create_task(one(number * each))


async def one_by_one(act: Act, what: str, count: int) -> Figures:
    """Measure one coroutine that acts again and again, and how long each takes."""
    for index in range(WARM_UP):
        await act(index)
    times = []
    with measured(what, count) as figures:
        for index in range(count):
            start = time.perf_counter()
            await act(index)
            times.append(time.perf_counter() - start)
    return {"ms p50": statistics.median(times) * 1000, cpu(what): figures[cpu(what)]}


def a_loop_each(act: Act, what: str, count: int) -> Figures:
    """Measure event loops that live for one act each, and how long each takes."""

    async def once(index: int) -> None:
        await act(index)

    asyncio.run(once(0))
    times = []
    with measured(what, count) as figures:
        for index in range(count):
            start = time.perf_counter()
            asyncio.run(once(index))
            times.append(time.perf_counter() - start)
    return {"ms p50": statistics.median(times) * 1000, cpu(what): figures[cpu(what)]}
