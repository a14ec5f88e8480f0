"""Empty tasks against a bare Go consumer, which has no tasks at all: it decodes, notes the time and acknowledges."""

from __future__ import annotations

from bench.consuming import GO, OURS, Shape, rate
from bench.row import Ratio, Row

COUNT = 100_000
SHAPE = Shape(processes=1, threads=8, prefetch=256)

ROW = Row(
    "go",
    "Same against a bare Go consumer, 8 goroutines",
    (rate(OURS, "empty", COUNT, SHAPE), rate(GO, "empty", COUNT, SHAPE)),
    (Ratio("Go", "tasks/s", at_least=0.9),),
)
