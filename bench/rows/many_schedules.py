"""Ten thousand schedules: how soon a scheduler leads after its start, how late its ticks are, and what it takes of a core."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable
from typing import Any

from bench import declare
from bench.arrivals import Arrivals, Tick
from bench.context import Bench
from bench.places import cpu_seconds
from bench.row import Figures, Limit, Measure, Row
from bench.rows import SCHEDULES
from bench.schedulers import scheduler

COUNT = 10_000
LEAST = 500
PERIOD = 60.0
HEARTBEAT = 30
SETTLING = 3.0
SIDES = {"spread over a minute": "spread", "all at once": "at once", "all at once, cron": "cron"}


def measure(timing: str) -> Callable[[Bench], Figures]:
    """Return what measures a period in which each schedule has one tick."""

    def run(bench: Bench) -> Figures:
        count = bench.count(COUNT, LEAST)
        environment = {"BENCH_TIMING": timing, "BENCH_COUNT": str(count), "BENCH_PERIOD": str(PERIOD)}
        with bench.place() as place:
            declare.declare(place.url, declare.ours())
            began = time.time()
            with (
                Arrivals(place.url) as arrivals,
                scheduler(place.url, place.folder / "log", environment, HEARTBEAT) as process,
            ):
                led = process.until(process.led_since, "a leader")
                time.sleep(SETTLING)
                start, taken = time.time(), cpu_seconds(process.pid)
                time.sleep(PERIOD)
                taken = cpu_seconds(process.pid) - taken

                def arrived() -> list[Tick] | None:
                    ticks = [tick for tick in arrivals.ticks if start <= tick.nominal < start + PERIOD]
                    return ticks if len(ticks) >= count else None

                late = sorted(1000 * (tick.arrived - tick.nominal) for tick in process.until(arrived, "all ticks"))
        return {
            "s to start": led - began,
            "ms late": statistics.median(late),
            "ms late p99": late[math.ceil(len(late) * 0.99) - 1],
            "ms late, max": late[-1],
            "% of a core": 100 * taken / PERIOD,
        }

    return run


def _limits(side: str, **late: Any) -> tuple[Limit, ...]:
    return (
        Limit("s to start", at_most=2, of=side),
        Limit("ms late p99", of=side, **late),
        Limit("% of a core", at_most=5, of=side),
    )


ROW = Row(
    "many-schedules",
    "10,000 schedules, one tick each per minute",
    tuple(
        Measure(side, "cron `* * * * *`" if timing == "cron" else "`every=60`", measure(timing))
        for side, timing in SIDES.items()
    ),
    tuple(limit for side in SIDES for limit in _limits(side, at_most=250 if side == "spread over a minute" else 1000)),
    "The start is from the start of the process until `scheduler_leading` in its log. Late is from the tick's time until "
    "the tick has arrived at a raw consumer without acks; all at once means that all are due in the same millisecond. "
    "Processor time of the scheduler over a minute in which each schedule had one tick.",
    section=SCHEDULES,
)
