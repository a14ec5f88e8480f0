"""Tasks of very different lengths, in an app that has a coroutine as well."""

from __future__ import annotations

import asyncio
import os
import random
import time
from pathlib import Path

from amqpworker import App

from bench.ledger import VARIABLE, Ledger
from bench.load import QUEUE

SHORTEST = 0.2
LONGEST = 5.0
BEGIN = "begin"
END = "end"


def seconds_of(count: int) -> list[float]:
    """Return the lengths of this many tasks, evenly spread and shuffled: the same in each run."""
    lengths = [SHORTEST + (LONGEST - SHORTEST) * index / max(1, count - 1) for index in range(count)]
    random.Random(20261130).shuffle(lengths)
    return lengths


if VARIABLE in os.environ:
    app = App(os.environ["BENCH_URL"])
    ledger = Ledger(Path(os.environ[VARIABLE]))

    @app.task(queue=QUEUE, retry=None)
    def nap(index: int, count: int) -> None:
        ledger.note(BEGIN, time.monotonic())
        time.sleep(seconds_of(count)[index])
        ledger.note(END, time.monotonic())

    @app.task(queue=QUEUE, retry=None)
    async def coroutine() -> None:
        await asyncio.sleep(0)
