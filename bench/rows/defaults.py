"""Empty tasks with the defaults of each library: 2 processes, and its default prefetch."""

from __future__ import annotations

from bench.consuming import CELERY, DRAMATIQ, OURS, TASKIQ, Shape, rate
from bench.row import Ratio, Row

COUNT = 60_000
SHAPE = Shape(processes=2, threads=8, prefetch=None)

ROW = Row(
    "defaults",
    "Defaults of each library, 2 processes × 8 threads, own prefetch",
    tuple(rate(side, "empty", COUNT, SHAPE) for side in (OURS, DRAMATIQ, CELERY, TASKIQ)),
    (Ratio("Dramatiq", "tasks/s", at_least=3),),
    "Celery: two workers with a pool of 8 threads each.",
)
