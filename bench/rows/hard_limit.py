"""A task over its hard limit in a call into C: how soon after it its process does not consume any more."""

from __future__ import annotations

import statistics
import time

from bench.context import Bench
from bench.places import SideFailed
from bench.pool import PATIENCE, Pool, QueueView, pool, send
from bench.row import Figures, Limit, Measure, Row
from bench.rows import POOLS

TASKS = 5
LEAST = 2


def _gone(workers: Pool, queue: QueueView, number: int) -> float:
    """Return the seconds from the limit of the one task that runs until the broker has no consumer."""
    limit = workers.wait_for_lines(number)[-1][1]
    deadline = limit + PATIENCE
    while queue.consumers():
        if time.monotonic() > deadline or len(workers.events("process_started")) > number:
            raise SideFailed(f"the process was never seen without its consumer:\n{workers.processes.tail()}")
    return time.monotonic() - limit


def ours(bench: Bench) -> Figures:
    """Give one process after the other a task that sleeps for ever."""
    seconds = []
    with bench.place() as place, pool(place, "-p", "1", "-t", "2") as workers, QueueView(place.url) as queue:
        for number in range(1, bench.count(TASKS, LEAST) + 1):
            workers.wait_for("process_started", number)
            send(place.url, "stuck", [number])
            seconds.append(_gone(workers, queue, number))
            workers.wait_for("worker_exiting", number)
    return {"ms until gone": statistics.median(seconds) * 1000, "ms until gone, max": max(seconds) * 1000}


ROW = Row(
    "hard-limit",
    "Hard limit of 1 s in a call into C: until its process has stopped consuming",
    (Measure("amqpworker", f"{TASKS} in each run, 1 process × 2 threads", ours),),
    (Limit("ms until gone", at_most=500), Limit("ms until gone, max", at_most=500, worst=True)),
    "Until the broker's own count of the queue's consumers, asked again and again, is 0: one process consumes it, and its "
    "successor takes longer than that to start.",
    section=POOLS,
)
