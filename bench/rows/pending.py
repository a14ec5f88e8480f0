"""A hundred thousand delayed tasks: how long a list of them takes, what memory, and what it costs tasks of other levels."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager

from amqpworker.routing.delay import route
from amqpworker.routing.topology import Names

from bench import declare
from bench.consuming import OURS, Shape
from bench.context import Bench, Slot
from bench.pending_tasks import HOUR, fill, listed
from bench.places import OWN_PYTHON, Running, SideFailed, run, running
from bench.row import Figures, Limit, Measure, Ratio, Row
from bench.rows import OPERATING
from bench.tally import Tally

COUNT = 100_000
FEW = 10_000
LEAST = 2 * FEW
WARM = 500
"""Tasks that run before the worker's memory is first measured."""
SETTLING = 1.0
PER_SECOND = 200
STEADY = 40 * PER_SECOND
STEADY_LEAST = 10 * PER_SECOND
SHORTEST, LONGEST = 1.0, 4.0
PATIENCE = 60.0
MIB = 1 << 20
FLAT = 8
LATE = "ms late p99"
ALONE, WALKED, LISTED = "no walk", "its level walked all the time", "all levels listed all the time"


def ours(bench: Bench) -> Figures:
    """List some that wait, then ten times as many, while a worker runs."""
    few, count = FEW, bench.count(COUNT, LEAST)
    with bench.place() as place:
        tally = Tally.create(place.folder / "tally", WARM)
        with _worker(place, tally) as worker:
            run([OWN_PYTHON, "-m", "bench.sides.fill", OURS.module, "empty", str(WARM)], {"BENCH_URL": place.url})
            if not tally.wait(PATIENCE, worker.check):
                raise SideFailed(f"the worker ran no task:\n{worker.tail()}")
            fill(place, 0, few)
            bench.broker.wait_until_idle()
            small = listed(place, few)
            fill(place, few, count - few)
            bench.broker.wait_until_idle()
            time.sleep(SETTLING)
            before = worker.memory()
            large = listed(place, count)
            worker.check()
            grown = worker.memory() - before
    return {
        "s": large.seconds,
        "s, longest walk": large.longest_walk(),
        "MiB of client": large.peak / MIB,
        "MiB more of client": (large.peak - small.peak) / MIB,
        "MiB more of worker": grown / MIB,
    }


def _worker(place: Slot, tally: Tally) -> AbstractContextManager[Running]:
    told = {"BENCH_URL": place.url, "BENCH_TALLY": str(tally.path)}
    return running(OURS.commands(Shape(prefetch=None)), told, place.folder / "log")


def lateness(reading: Callable[[Slot, Callable[[], bool]], list[float]]) -> Callable[[Bench], Figures]:
    """Return what measures how late tasks are that are due in 1 to 4 s, while as many wait for an hour, and are read."""

    def measure(bench: Bench) -> Figures:
        count = bench.count(STEADY, STEADY_LEAST)
        with bench.place() as place, ThreadPoolExecutor(1) as beside:
            tally = Tally.create(place.folder / "tally", count + 1)
            told = {"BENCH_URL": place.url, "BENCH_TALLY": str(tally.path)}
            sides = [str(count), str(PER_SECOND), str(SHORTEST), str(LONGEST)]
            fill(place, count + 1, bench.count(COUNT, LEAST))
            bench.broker.wait_until_idle()
            with _worker(place, tally) as worker:
                sending = beside.submit(run, [OWN_PYTHON, "-m", "bench.sides.steady", *sides], told)
                walks = reading(place, sending.done)
                printed = sending.result()
                if not tally.wait(PATIENCE, worker.check):
                    raise SideFailed(f"{tally.unfinished()} of {count} tasks never ran:\n{worker.tail()}")
            begun = [cell / 1e9 for cell in tally.ended.tolist()]
        late = sorted((when - due) * 1000 for when, (_, due) in zip(begun, json.loads(printed), strict=False))
        return {
            "ms late p50": late[len(late) // 2],
            LATE: late[math.ceil(len(late) * 0.99) - 1],
            "ms late max": late[-1],
            "walks": len(walks),
            "s, longest walk": max(walks, default=0.0),
        }

    return measure


def _not_read(_: Slot, is_over: Callable[[], bool]) -> list[float]:
    while not is_over():
        time.sleep(0.1)
    return []


def _listed(place: Slot, is_over: Callable[[], bool]) -> list[float]:
    """List all that waits again and again, until it is over; return the longest walk of each."""
    walks = []
    while not is_over():
        walks.append(listed(place, 0).longest_walk())
    return walks


def _walked(place: Slot, is_over: Callable[[], bool]) -> list[float]:
    """Walk the level in which tasks wait for an hour; return how long each walk was."""
    level = route(Names(declare.NAMESPACE), HOUR).exchange
    command = [OWN_PYTHON, "-m", "bench.sides.walks", level]
    with running([command], {"BENCH_URL": place.url}, place.folder / "walks") as walker:
        _not_read(place, is_over)
        walker.check()
        return [float(line) for line in walker.lines()]


SIDES = (
    (ALONE, "no one reads what waits", _not_read),
    (WALKED, "the level of those that wait for an hour, by one connection", _walked),
    (LISTED, "`pending list --json`, one after the other: levels in which the tasks move, too", _listed),
)
ROW = Row(
    "pending",
    "100,000 pending tasks: list them, while others are due",
    (
        Measure("amqpworker", "`pending list --json`, beside a worker, 1 process × 8 threads", ours),
        *(Measure(side, note, lateness(reading)) for side, note, reading in SIDES),
    ),
    (
        Limit("s", at_most=10, worst=True),
        Limit("MiB more of client", at_most=FLAT, worst=True),
        Limit("MiB more of worker", at_most=2, worst=True),
        Ratio(ALONE, LATE, at_most=2, of=WALKED),
    ),
    f"The client's memory is the most that is resident, and how much more that is than for {FEW:,} tasks. Late are tasks that "
    f"are due in {SHORTEST:g} to {LONGEST:g} s, of which {PER_SECOND} a second are sent, while 100,000 wait for an hour.",
    section=OPERATING,
)
