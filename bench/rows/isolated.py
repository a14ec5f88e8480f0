"""A task in a process of its own over its hard limit: how soon after it that process is dead."""

from __future__ import annotations

import os
import select
import statistics
import time

from bench.context import Bench
from bench.places import SideFailed
from bench.pool import PATIENCE, pool, send
from bench.row import Figures, Limit, Measure, Row
from bench.rows import POOLS

TASKS = 5
LEAST = 2


def _death_of(pid: int) -> float:
    """Return when a process has ended, by the monotonic clock."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        raise SideFailed(f"process {pid} had ended before it was checked") from None
    try:
        ended, _, _ = select.select([descriptor], [], [], PATIENCE)
    finally:
        os.close(descriptor)
    if not ended:
        raise SideFailed(f"process {pid} lived for {PATIENCE:.0f} s beyond its limit")
    return time.monotonic()


def ours(bench: Bench) -> Figures:
    """Run one task that sleeps for ever after the other; the worker process itself continues."""
    seconds = []
    with bench.place() as place, pool(place, "-p", "1", "-t", "2") as workers:
        workers.wait_for("process_started")
        for number in range(1, bench.count(TASKS, LEAST) + 1):
            send(place.url, "alone", [number])
            pid, limit = workers.wait_for_lines(number)[-1]
            seconds.append(_death_of(int(pid)) - limit)
        if len(workers.events("process_started")) > 1:
            raise SideFailed(f"the worker process was replaced as well:\n{workers.processes.tail()}")
    return {"ms until dead": statistics.median(seconds) * 1000, "ms until dead, max": max(seconds) * 1000}


ROW = Row(
    "isolated",
    "Hard limit of 1 s of an isolated task: until its process is dead",
    (Measure("amqpworker", f"{TASKS} in each run, one after the other; a call into C", ours),),
    (Limit("ms until dead", at_most=500), Limit("ms until dead, max", at_most=500, worst=True)),
    "From the limit, as the task itself sees it, to the end of its process as the kernel reports it.",
    section=POOLS,
)
