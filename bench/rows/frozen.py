"""A broker that is frozen, and continues later: how soon that is noticed, and how soon tasks run again afterwards."""

from __future__ import annotations

import os
import signal
import statistics
import time

from bench.context import Bench
from bench.places import SideSkipped
from bench.pool import Pool, pool, send
from bench.row import Figures, Limit, Measure, Row
from bench.rows import POOLS

TIMES = 3
LEAST = 1


def _frozen(workers: Pool, broker: int, number: int) -> float:
    """Stop the broker's process until the worker has noticed; return the seconds that it took."""
    start = time.monotonic()
    os.kill(broker, signal.SIGSTOP)
    try:
        workers.wait_for("broker_unresponsive", number)
        return time.monotonic() - start
    finally:
        os.kill(broker, signal.SIGCONT)


def ours(bench: Bench) -> Figures:
    """Freeze the node some times, each time until that is noticed."""
    if bench.broker.pid is None:
        raise SideSkipped("the broker's process is not known: it can be frozen only where it runs here (--pid)")
    noticed, again = [], []
    with bench.place() as place, pool(place, "-p", "1") as workers:
        workers.wait_for("process_started")
        for number in range(1, bench.count(TIMES, LEAST) + 1):
            send(place.url, "step", [number])
            workers.wait_for_lines(2 * number - 1)
            noticed.append(_frozen(workers, bench.broker.pid, number))
            thawed = time.monotonic()
            send(place.url, "step", [number])
            (_, ended) = workers.wait_for_lines(2 * number)[-1]
            again.append(ended - thawed)
    return {
        "s until noticed": statistics.median(noticed),
        "s until noticed, max": max(noticed),
        "s until a task ran": statistics.median(again),
        "s until a task ran, max": max(again),
    }


ROW = Row(
    "frozen",
    "A broker that is frozen (SIGSTOP), and continues once that was noticed",
    (Measure("amqpworker", f"{TIMES} in each run, heartbeat of 300 s", ours),),
    (
        Limit("s until noticed, max", at_most=10, worst=True),
        Limit("s until a task ran, max", at_most=10, worst=True),
    ),
    "Until `broker_unresponsive` in the log; then from when the broker continues until a task has run that was sent after that. "
    "The heartbeat is so long that it notices nothing.",
    section=POOLS,
)
