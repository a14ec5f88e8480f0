"""Empty tasks with a store that they do not use, and tasks that are tracked in it, beside tasks without a store."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from bench import stores
from bench.consuming import OURS, Shape, consume
from bench.context import Bench
from bench.row import Figures, Measure, Ratio, Row
from bench.rows import RESULTS
from bench.stores import SQLITE, opened

COUNT = 40_000
SHAPE = Shape(processes=1, threads=8, prefetch=256)
WITHOUT, UNUSED, TRACKED = "no store", "result=False", "track=True"


def _none(bench: Bench) -> Figures:
    return {"tasks/s": consume(bench, OURS, "empty", bench.count(COUNT), SHAPE)[0]}


def _with_store(task: str) -> Callable[[Bench], Figures]:
    def measure(bench: Bench) -> Figures:
        with opened(bench.servers, stores.OURS[SQLITE]) as store:
            side = replace(OURS, results=store.url)
            return {"tasks/s": consume(bench, side, task, bench.count(COUNT), SHAPE)[0]}

    return measure


ROW = Row(
    "tracked",
    "Empty tasks beside a store, 1 process × 8 threads, prefetch 256",
    (
        Measure(WITHOUT, "the app has no store", _none),
        Measure(UNUSED, "a SQLite file, which these tasks do not use", _with_store("unstored")),
        Measure(TRACKED, "a SQLite file: each run's start and result are stored", _with_store("tracked")),
    ),
    (
        Ratio(WITHOUT, "tasks/s", at_least=0.95, of=UNUSED),
        Ratio(WITHOUT, "tasks/s", of=TRACKED),
    ),
    "One after the other two times in each run: the rates of one side differ by more than the first two sides do.",
    section=RESULTS,
    rounds=2,
)
