"""A steady 1,000 delayed tasks a second: how late they begin, and that none begins early."""

from __future__ import annotations

import json

from bench.consuming import OURS, Shape
from bench.context import Bench
from bench.places import OWN_PYTHON, SideFailed, run, running
from bench.row import Figures, Limit, Measure, Row
from bench.tally import Tally

PER_SECOND = 1_000
COUNT = 20 * PER_SECOND
LONGEST = 10.0


def ours(bench: Bench) -> Figures:
    """Send for 20 s at this rate, and compare each beginning with the time that it was due."""
    count = bench.count(COUNT)
    with bench.place() as place:
        tally = Tally.create(place.folder / "tally", count + 1)
        told = {"BENCH_URL": place.url, "BENCH_TALLY": str(tally.path)}
        with running(OURS.commands(Shape(prefetch=None)), told, place.folder / "log") as worker:
            printed = run([OWN_PYTHON, "-m", "bench.sides.steady", str(count), str(PER_SECOND)], told)
            if not tally.wait(LONGEST + 30, worker.check):
                raise SideFailed(f"{tally.unfinished()} of {count} tasks never ran:\n{worker.tail()}")
        begun = [cell / 1e9 for cell in tally.ended.tolist()]
    late, early = [], 0
    for when, (asked, due) in zip(begun, json.loads(printed), strict=False):
        early += when < asked
        late.append((when - due) * 1000)
    late.sort()
    return {
        "early": early,
        "ms late p50": late[len(late) // 2],
        "ms late p99": late[int(len(late) * 0.99)],
        "ms late max": late[-1],
    }


ROW = Row(
    "steady",
    "Steady 1,000 delayed tasks/s, random 0.1–10 s",
    (Measure("amqpworker", "send() from 8 threads, 1 process × 8 threads", ours),),
    (Limit("early", at_most=0, worst=True), Limit("ms late p99", at_most=20)),
    "Late against the due time rounded up to 0.125 s, reckoned from before send() was called.",
)
