"""A process that joins late: how long two processes need for tasks of very different lengths, of which the first had all."""

from __future__ import annotations

import json
import time

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
LEAST = 40
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
    """Return the time from the first begin to the last end, and how it compares with threads that are never idle."""
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
    ideal = (sum(seconds_of(count)) + LATE * THREADS) / (2 * THREADS)
    return {RATIO: took / ideal, "s": took, "s, ideal": ideal, "runs": len(begins)}


ROW = Row(
    "late-joiner",
    f"A process that joins {LATE:g} s late: {COUNT} tasks of 0.2 to 5 s, 2 processes × {THREADS} threads",
    (Measure("amqpworker", "--prefetch auto, two supervisors", ours),),
    (Limit(RATIO, at_most=1.1, worst=True),),
    "Ideal is that no thread of a process is idle from its start to the end. The app has an `async def` task as well. Two "
    "supervisors know nothing of each other: what one holds is never left to the other.",
    section=POOLS,
)
