"""New code under load: four processes are replaced one after the other; nothing is lost, run twice or much slower."""

from __future__ import annotations

import signal
import statistics
import time
from bisect import bisect_left
from collections import Counter
from collections.abc import Sequence

from bench.context import Bench
from bench.places import SideFailed
from bench.pool import Pool, QueueView, pool, send
from bench.row import Figures, Limit, Measure, Row
from bench.rows import POOLS

PROCESSES = 4
THREADS = 8
COUNT = 24_000
"""At any scale: fewer would not last until the reload is over."""
BEFORE = 4.0
WIDTH = 1.0
STRIDE = 0.1
PATIENCE = 120.0
LOOK = 0.05


def rates(ends: Sequence[float], start: float, stop: float) -> list[float]:
    """Return the tasks per second of every window between two times; `ends` are sorted."""
    found = []
    while start + WIDTH <= stop:
        found.append((bisect_left(ends, start + WIDTH) - bisect_left(ends, start)) / WIDTH)
        start += STRIDE
    return found


def _reload(workers: Pool) -> tuple[float, float, float]:
    """Reload under load; return since when all processes were at it, when the reload began, and when it was over."""
    workers.wait_for("process_started", PROCESSES)
    steady = time.monotonic() + WIDTH
    time.sleep(WIDTH + BEFORE)
    begun = time.monotonic()
    workers.signal(signal.SIGHUP)
    workers.wait_for("process_ended", PROCESSES, PATIENCE, LOOK)
    over = time.monotonic()
    if workers.ledger.count() >= COUNT:
        raise SideFailed("all tasks had run before the reload was over: there was no load at its end")
    return steady, begun, over


def ours(bench: Bench) -> Figures:
    """Compare the worst second of the reload with the median second before it, and count how often each task ran."""
    with bench.place() as place:
        send(place.url, "step", range(COUNT))
        bench.broker.wait_until_idle()
        with pool(place, "-p", str(PROCESSES), "-t", str(THREADS)) as workers:
            steady, begun, over = _reload(workers)
            workers.until(lambda: workers.ledger.count() >= COUNT, "all tasks", PATIENCE, LOOK)
        with QueueView(place.url) as queue:
            left = queue.ready()  # the pool is gone: whatever was not acknowledged is back
        lines = workers.ledger.lines()
    runs = Counter(index for index, _ in lines)
    ends = sorted(when for _, when in lines)
    before, worst = statistics.median(rates(ends, steady, begun)), min(rates(ends, begun, over))
    return {
        "lost": COUNT - len(runs),
        "run twice": sum(times > 1 for times in runs.values()) + left,
        "% in the worst second": 100 * worst / before,
        "tasks/s before": before,
        "s of reload": over - begun,
    }


ROW = Row(
    "reload",
    "SIGHUP under load: 4 processes × 8 threads, tasks of 20 ms of sleep",
    (Measure("amqpworker", "quorum queue, acked when done; possible: 1,600/s", ours),),
    (
        Limit("lost", at_most=0, worst=True),
        Limit("run twice", at_most=0, worst=True),
        Limit("% in the worst second", at_least=60),
    ),
    "The tasks wait most of the time, so that two cores do not limit anything while processes start. The worst of all windows of "
    "1 s (one begins every 0.1 s) between the signal and the end of the last old process, against the median window "
    "before it, by when each task had ended. A message that is left in the queue at the end, when its task has run, "
    "counts as run twice.",
    section=POOLS,
)
