"""
Coroutines that wait for results: `python -m bench.sides.awaited busy COUNT`, `… idle COUNT SECONDS`.

`busy` prints COUNT results as JSON: the id of the message, when its task has ended, and when a coroutine had its result. COUNT
coroutines wait at any moment: each that has its result waits for another one. `idle` prints the share of a core that COUNT coroutines take while no
task ends.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Sequence
from typing import Any

from bench.sides.ours import app, paced

RATE = 200
LEAD = 3.0
"""Seconds from the sending until the first task ends: all coroutines have to wait by then."""
PATIENCE = 300.0
SETTLING = 2.0

SentTasks = Sequence[Any]
Awaited = tuple[str, float, float]


def send(count: int, first_due: float) -> SentTasks:
    """Send tasks that end one after the other, from a time on."""
    return app.send_many(paced.message(due=first_due + index / RATE) for index in range(count))


async def busy(sents: SentTasks, count: int, first_due: float) -> list[Awaited]:
    """Wait until this many results have arrived; the others are waited for all the same."""
    awaited: list[Awaited] = []
    complete = asyncio.Event()

    async def wait(number: int) -> None:
        for sent in sents[number::count]:
            ended = await sent.aresult(PATIENCE)
            awaited.append((sent.id, ended, time.time()))
            if len(awaited) == count:
                complete.set()

    async with asyncio.TaskGroup() as group:
        waits = [group.create_task(wait(number)) for number in range(count)]
        await asyncio.sleep(0)
        if time.time() > first_due:
            raise SystemExit("the first task has ended before all coroutines waited")
        await asyncio.wait_for(complete.wait(), PATIENCE)
        _cancel(waits)
    return awaited[:count]


async def idle(sents: SentTasks, seconds: float) -> float:
    """Return the share of a core that this process takes while it waits, in percent."""
    async with asyncio.TaskGroup() as group:
        waits = [group.create_task(sent.aresult(PATIENCE)) for sent in sents]
        await asyncio.sleep(SETTLING)
        start, processor = time.perf_counter(), time.process_time()
        await asyncio.sleep(seconds)
        taken = (time.process_time() - processor) / (time.perf_counter() - start)
        if any(wait.done() for wait in waits):
            raise SystemExit("a wait has ended")
        _cancel(waits)
    return 100 * taken


def _cancel(waits: Sequence[asyncio.Task[Any]]) -> None:
    for wait in waits:
        wait.cancel()


def main() -> None:
    mode, count = sys.argv[1], int(sys.argv[2])
    if mode == "busy":
        first_due = time.time() + LEAD
        sents = send(2 * count, first_due)
        found = json.dumps(asyncio.run(busy(sents, count, first_due)))
    else:
        found = str(asyncio.run(idle(send(count, time.time()), float(sys.argv[3]))))
    app.close()
    print(found)


if __name__ == "__main__":
    main()
