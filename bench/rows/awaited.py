"""How soon one of a thousand coroutines that wait for results has its result, after the task has ended."""

from __future__ import annotations

import json
from collections.abc import Callable

from bench import declare, stores
from bench.consuming import OURS, Shape
from bench.context import Bench
from bench.places import OWN_PYTHON, run, running
from bench.pool import QueueView
from bench.row import Figures, Limit, Measure, Row
from bench.rows import RESULTS
from bench.stores import DATABASES, POSTGRESQL, REDIS, SQLITE, opened
from bench.watched import Watched

WAITERS = 1_000
LEAST = 200
P50, P99 = "ms p50", "ms p99"
LIMITS = {SQLITE: (10, 50), POSTGRESQL: (5, 30), REDIS: (5, 30)}


def _in(database: str) -> Callable[[Bench], Figures]:
    """Return what measures the waits in a store."""

    def measure(bench: Bench) -> Figures:
        with bench.place() as place, opened(bench.servers, stores.OURS[database]) as store:
            declare.declare(place.url, declare.ours())
            told = {"BENCH_URL": place.url, "BENCH_RESULTS": store.url}
            with running(OURS.commands(Shape()), told, place.folder / "log") as worker, QueueView(place.url) as queue:
                Watched(worker).until(queue.consumers, "a consumer")
                bench.broker.wait_until_idle()
                waiters = bench.count(WAITERS, LEAST)
                printed = run([OWN_PYTHON, "-m", "bench.sides.awaited", "busy", str(waiters)], told)
                worker.check()
        return json.loads(printed)

    return measure


ROW = Row(
    "awaited",
    "Result of a task that has ended: until one of 1,000 waiters has it",
    tuple(Measure(database, "`await sent.aresult()`, one process", _in(database)) for database in DATABASES),
    tuple(
        limit
        for database, (typical, slow) in LIMITS.items()
        for limit in (Limit(P50, at_most=typical, of=database), Limit(P99, at_most=slow, of=database))
    ),
    "From when the task returns, its result not yet encoded or stored, until the coroutine continues; 200 tasks end per second, one "
    "after the other, and 1,000 coroutines wait all the time.",
    section=RESULTS,
)
