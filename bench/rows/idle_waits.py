"""A process with a thousand coroutines that wait for results, while none arrives: what it takes of a core."""

from __future__ import annotations

from contextlib import ExitStack

from bench import stores
from bench.context import Bench
from bench.places import OWN_PYTHON, running
from bench.row import Figures, Limit, Measure, Row
from bench.rows import RESULTS
from bench.stores import DATABASES, opened

WAITERS = 1_000
LEAST = 200
SECONDS = 20.0
LEAST_SECONDS = 5.0
STARTING = 60.0


def _metric(database: str) -> str:
    return f"% of a core, {database}"


def ours(bench: Bench) -> Figures:
    """Measure a process for each store; all at the same time, as they do nothing."""
    waiters, seconds = bench.count(WAITERS, LEAST), max(LEAST_SECONDS, SECONDS * bench.scale)
    command = [OWN_PYTHON, "-m", "bench.sides.awaited", "idle", str(waiters), str(seconds)]
    with bench.place() as place, ExitStack() as stack:
        processes = {}
        for database in DATABASES:
            store = stack.enter_context(opened(bench.servers, stores.OURS[database]))
            told = {"BENCH_URL": place.url, "BENCH_RESULTS": store.url}
            processes[database] = stack.enter_context(running([command], told, place.folder / database))
        for process in processes.values():
            process.wait(STARTING + seconds)
        return {_metric(database): float(process.lines()[-1]) for database, process in processes.items()}


ROW = Row(
    "idle-waits",
    "1,000 waiters whose tasks do not end",
    (Measure("amqpworker", f"`await sent.aresult()` in one process for each store, over {SECONDS:.0f} s", ours),),
    tuple(Limit(_metric(database), at_most=2) for database in DATABASES),
    "The processor time of the process, all its threads included, and its idle connection to the broker.",
    section=RESULTS,
)
