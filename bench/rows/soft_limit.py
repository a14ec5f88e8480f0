"""Tasks over their soft limit in a loop of Python: how soon after it the exception is there."""

from __future__ import annotations

import statistics

from bench.context import Bench
from bench.pool import pool, send
from bench.row import Figures, Limit, Measure, Row
from bench.rows import POOLS

COUNT = 20
LEAST = 4
AT_ONCE = "8 at once"


def _of(side: str, note: str, threads: int) -> Measure:
    """Return the measure of tasks on so many threads of one process, all of which turn in their loops."""

    def measure(bench: Bench) -> Figures:
        count = bench.count(COUNT, LEAST)
        with bench.place() as place, pool(place, "-p", "1", "-t", str(threads)) as workers:
            workers.wait_for("process_started")
            send(place.url, "spin", range(count))
            late = [seconds * 1000 for _, seconds in workers.wait_for_lines(count)]
        return {"ms late": statistics.median(late), "ms late, max": max(late)}

    return Measure(side, note, measure)


ROW = Row(
    "soft-limit",
    "Soft limit of 0.3 s in a loop of Python: until the exception",
    (
        _of("amqpworker", f"{COUNT} in each run, one after the other, 1 thread", 1),
        _of(AT_ONCE, f"{COUNT} in each run on 8 threads, which share one interpreter", 8),
    ),
    (Limit("ms late", at_most=100), Limit("ms late, max", at_most=100, worst=True)),
    "From the limit to the first line of the `except` clause. No requirement for eight at once.",
    section=POOLS,
)
