"""A supervisor that has nothing to do: what it takes of a core and of the memory beside its four idle processes."""

from __future__ import annotations

import time

from bench.context import Bench
from bench.places import cpu_seconds, resident
from bench.pool import pool
from bench.row import Figures, Limit, Measure, Row
from bench.rows import POOLS

PROCESSES = 4
SECONDS = 40.0
LEAST_SECONDS = 5.0
SETTLING = 3.0
MIB = 2**20


def ours(bench: Bench) -> Figures:
    """Measure the supervisor's own processor time over a while, and its memory at the end of it."""
    with bench.place() as place, pool(place, "-p", str(PROCESSES)) as workers:
        workers.wait_for("process_started", PROCESSES)
        time.sleep(SETTLING)
        before, start = cpu_seconds(workers.pid), time.monotonic()
        time.sleep(max(LEAST_SECONDS, SECONDS * bench.scale))
        taken, elapsed = cpu_seconds(workers.pid) - before, time.monotonic() - start
        workers.processes.check()
        return {"% of a core": 100 * taken / elapsed, "MiB": resident(workers.pid) / MIB}


ROW = Row(
    "idle",
    "Supervisor of 4 idle processes",
    (Measure("amqpworker", f"supervisor alone, over {SECONDS:.0f} s", ours),),
    (Limit("% of a core", at_most=0.2), Limit("MiB", at_most=40, worst=True)),
    "utime + stime of `/proc/PID/stat`, counted by the kernel in hundredths of a second; resident memory of `statm`.",
    section=POOLS,
)
