"""Empty tasks with the flight recorder, and with calls to it that do nothing: what it costs to know what runs."""

from __future__ import annotations

from functools import partial

from bench.consuming import OURS, Shape, Side, ours, rate
from bench.places import OWN_PYTHON
from bench.row import Ratio, Row
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

ROW = Row(
    "recorder",
    "Empty tasks with the flight recorder, 1 process × 8 threads, prefetch 256",
    (rate(OURS, "empty", COUNT, SHAPE), rate(UNRECORDED, "empty", COUNT, SHAPE)),
    (Ratio(WITHOUT, "tasks/s", at_least=0.95),),
    "One after the other three times in each run: the rates of one side differ by more than the two sides do.",
    section=POOLS,
    rounds=3,
)
