"""How soon one of a thousand coroutines that wait for results has its result, after the task has ended."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Callable, Iterable, Sequence

from bench import declare, stores
from bench.consuming import Shape, ours
from bench.context import Bench
from bench.ledger import VARIABLE, Ledger
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
            ledger = Ledger(place.folder / "ledger")
            environment = {"BENCH_URL": place.url, "BENCH_RESULTS": store.url, VARIABLE: str(ledger.path)}
            command = ours(Shape(), "bench.sides.committing:app")
            with running(command, environment, place.folder / "log") as worker, QueueView(place.url) as queue:
                Watched(worker).until(queue.consumers, "a consumer")
                bench.broker.wait_until_idle()
                waiters = bench.count(WAITERS, LEAST)
                printed = run([OWN_PYTHON, "-m", "bench.sides.awaited", "busy", str(waiters)], environment)
                worker.check()
            return figures(json.loads(printed), dict(ledger.lines()))

    return measure


def figures(awaited: Sequence[tuple[str, float, float]], committed: dict[str, float]) -> Figures:
    """Return how late results were, of which the id, the end of the task and the end of the wait are given."""
    ends = [ended for _, ended, _ in awaited]
    return {
        **_late(had - ended for _, ended, had in awaited),
        **{
            f"{name} after its commit": late
            for name, late in _late(had - committed[one] for one, _, had in awaited).items()
        },
        "tasks/s": (len(ends) - 1) / (max(ends) - min(ends)),
    }


def _late(seconds: Iterable[float]) -> Figures:
    late = sorted(1000 * one for one in seconds)
    return {P50: statistics.median(late), P99: late[math.ceil(len(late) * 0.99) - 1]}


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
    "after the other, and 1,000 coroutines wait all the time. After its commit: from when the worker knows that it is stored.",
    section=RESULTS,
)
