"""A worker process that is killed: how soon another one consumes in its place."""

from __future__ import annotations

import os
import signal
import statistics
import time

from bench.context import Bench
from bench.pool import pool
from bench.row import Figures, Limit, Measure, Row
from bench.rows import POOLS

PROCESSES = 5
"""Each is killed once: what dies again and again is started ever more rarely, as it should be."""


def ours(bench: Bench) -> Figures:
    """Kill one process after the other; the clock runs from the kill until the log shows that another one consumes."""
    with bench.place() as place, pool(place, "-p", str(PROCESSES)) as workers:
        first = [line["pid"] for line in workers.wait_for("process_started", PROCESSES)]
        seconds = []
        for number, pid in enumerate(first[: bench.count(PROCESSES, least=2)], 1):
            bench.broker.wait_until_idle()
            start = time.monotonic()
            os.kill(pid, signal.SIGKILL)
            workers.wait_for("process_started", PROCESSES + number)
            seconds.append(time.monotonic() - start)
    return {"s until consuming": statistics.median(seconds), "s until consuming, max": max(seconds)}


ROW = Row(
    "killed",
    "A killed process is replaced, and its successor consumes",
    (Measure("amqpworker", f"median of {PROCESSES} in each run; kill -9, a small app", ours),),
    (Limit("s until consuming", at_most=1.5),),
    "Until `process_started` in the log, which follows the broker's confirmation of the consumer.",
    section=POOLS,
)
