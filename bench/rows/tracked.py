"""Empty tasks with a store that they do not use, and tasks that are tracked in it, beside tasks without a store."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

from bench import stores
from bench.consuming import OURS, Shape, consume
from bench.context import Bench
from bench.places import SideFailed
from bench.row import Figures, Measure, Ratio, Row
from bench.rows import RESULTS
from bench.stores import SQLITE, opened, wait_until_stored

COUNT = 40_000
SHAPE = Shape(processes=1, threads=8, prefetch=256)
WITHOUT, UNUSED, TRACKED = "no store", "result=False", "track=True"


def _none(bench: Bench) -> Figures:
    return {"tasks/s": consume(bench, OURS, "empty", bench.count(COUNT), SHAPE)[0]}


def _with_store(task: str, stores_results: bool) -> Callable[[Bench], Figures]:
    def measure(bench: Bench) -> Figures:
        count = bench.count(COUNT)
        with opened(bench.servers, stores.OURS[SQLITE]) as store:
            until = partial(wait_until_stored, store, count) if stores_results else None
            rate, _ = consume(bench, replace(OURS, results=store.url), task, count, SHAPE, until)
            if not stores_results and (found := store.count()):
                raise SideFailed(f"{found} results are stored")
            return {"tasks/s": rate}

    return measure


ROW = Row(
    "tracked",
    "Empty tasks beside a store, 1 process × 8 threads, prefetch 256",
    (
        Measure(WITHOUT, "the app has no store", _none),
        Measure(UNUSED, "a SQLite file, which these tasks do not use", _with_store("unstored", stores_results=False)),
        Measure(
            TRACKED,
            "a SQLite file: each run's start and result are stored",
            _with_store("tracked", stores_results=True),
        ),
    ),
    (
        Ratio(WITHOUT, "tasks/s", at_least=0.95, of=UNUSED),
        Ratio(WITHOUT, "tasks/s", of=TRACKED),
    ),
    "One after the other two times in each run: the rates of one side differ by more than the first two sides do.",
    section=RESULTS,
    rounds=2,
)
