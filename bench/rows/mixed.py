"""Empty tasks with a long one among them: it must not hold back the acks of its neighbours."""

from __future__ import annotations

from bench.consuming import OURS, Shape, rate
from bench.row import Ratio, Row

COUNT = 150_000
"""More than elsewhere: the last long task ends after all others, which must not count much."""
SHAPE = Shape(processes=1, threads=8, prefetch=256)
MIXED = "amqpworker, mixed"

ROW = Row(
    "mixed",
    "Same with one 0.1 s task in every 2,000",
    (rate(OURS, "mixed", COUNT, SHAPE, MIXED), rate(OURS, "empty", COUNT, SHAPE)),
    (Ratio("amqpworker", "tasks/s", at_least=0.6, of=MIXED),),
)
