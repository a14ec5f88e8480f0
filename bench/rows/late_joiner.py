"""A process that joins late: how long two processes need for tasks of very different lengths, of which the first had all."""

from __future__ import annotations

import heapq
import json
import time
from collections.abc import Sequence

from amqpworker import App
from amqpworker.model.message import Message, new_id

from bench.context import Bench
from bench.load import QUEUE
from bench.pool import pool
from bench.row import Figures, Limit, Measure, Row
from bench.rows import POOLS
from bench.sides.naps import BEGIN, END, seconds_of

MODULE = "bench.sides.naps"
COUNT = 200
LEAST = 100
THREADS = 4
LATE = 2.0
PATIENCE = 240.0
LOOK = 0.02
RATIO = "× the ideal time"


def _fill(url: str, count: int) -> None:
    with App(url) as app:
        app.queue(QUEUE)
        bodies = (json.dumps({"index": index, "count": count}).encode() for index in range(count))
        app.send_many(Message(f"{MODULE}.nap", QUEUE, body, new_id()) for body in bodies)


def ours(bench: Bench) -> Figures:
    """Return the time from the first begin to the last end, and how it compares with the best that is possible."""
    count = bench.count(COUNT, LEAST)
    size = ("-p", "1", "-t", str(THREADS))
    with bench.place() as place:
        _fill(place.url, count)
        bench.broker.wait_until_idle()
        with pool(place, *size, module=MODULE) as first:
            first.wait_for_lines(1)
            time.sleep(LATE)
            with pool(place, *size, module=MODULE, log="second.log") as second:
                second.until(lambda: second.ledger.count() >= 2 * count, "all tasks", PATIENCE, LOOK)
                lines = second.ledger.lines()
    begins = [when for mark, when in lines if mark == BEGIN]
    ends = [when for mark, when in lines if mark == END]
    took = max(ends) - min(begins)
    lengths = seconds_of(count)
    never_idle = (sum(lengths) + LATE * THREADS) / (2 * THREADS)
    best = ideal(lengths, THREADS, LATE)
    return {
        RATIO: took / best,
        "s": took,
        "s, ideal": best,
        "s, if no thread were idle": never_idle,
        "runs": len(begins),
    }


def ideal(lengths: Sequence[float], threads: int, late: float) -> float:
    """Return how long tasks take in this order if each begins when a thread is free, and as many threads come `late`."""
    free = [0.0] * threads + [late] * threads
    end = 0.0
    for seconds in lengths:
        end = max(end, free[0] + seconds)
        heapq.heapreplace(free, free[0] + seconds)
    return end


ROW = Row(
    "late-joiner",
    f"A process that joins {LATE:g} s late: {COUNT} tasks of 0.2 to 5 s, 2 processes × {THREADS} threads",
    (Measure("amqpworker", "--prefetch auto, two supervisors", ours),),
    (Limit(RATIO, at_most=1.1, worst=True),),
    f"Ideal is that each task, in this order, begins when a thread is free, those of the second process {LATE:g} s after the first "
    "begin. The app has an `async def` task as well. Two supervisors know nothing of each other: what one holds is never left "
    "to the other.",
    section=POOLS,
)
