"""Empty tasks with the flight recorder, and with calls to it that do nothing: what it costs to know what runs."""

from __future__ import annotations

from functools import partial

from bench.consuming import OURS, Shape, Side, consume, ours
from bench.context import Bench
from bench.places import OWN_PYTHON
from bench.row import Figures, Measure, Ratio, Row
from bench.rows import POOLS

COUNT = 100_000
"""More than elsewhere, as two sides are compared that hardly differ."""
SHAPE = Shape(processes=1, threads=8, prefetch=256)
WITHOUT = "without recorder"
UNRECORDED = Side(
    WITHOUT,
    "the same, its calls to the recorder do nothing",
    OWN_PYTHON,
    OURS.module,
    partial(ours, app="bench.sides.unrecorded:app"),
)


def _of(side: Side) -> Measure:
    """Return the measure of the rate, and of the processor time of it, which other load on the machine changes less."""

    def measure(bench: Bench) -> Figures:
        count = bench.count(COUNT)
        rate, processor_time = consume(bench, side, "empty", count, SHAPE)
        return {"tasks/s": rate, "µs of CPU per task": processor_time / count * 1e6}

    return Measure(side.name, side.note, measure)


ROW = Row(
    "recorder",
    "Empty tasks with the flight recorder, 1 process × 8 threads, prefetch 256",
    (_of(OURS), _of(UNRECORDED)),
    (Ratio(WITHOUT, "tasks/s", at_least=0.95),),
    "One after the other three times in each run: the rates of one side differ by more than the two sides do. "
    "The processor time is that of supervisor and worker process, with their start.",
    section=POOLS,
    rounds=3,
)
