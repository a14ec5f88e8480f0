"""Empty tasks: what a message costs each library, everything included."""

from __future__ import annotations

from bench.consuming import CELERY, DRAMATIQ, OURS, TASKIQ, Shape, rate
from bench.row import Ratio, Row

COUNT = 60_000
SHAPE = Shape(processes=1, threads=8, prefetch=256)

ROW = Row(
    "empty",
    "Empty tasks, 1 process × 8 threads, prefetch 256",
    tuple(rate(side, "empty", COUNT, SHAPE) for side in (OURS, DRAMATIQ, CELERY, TASKIQ)),
    (
        Ratio("Dramatiq", "tasks/s", at_least=8),
        Ratio("Celery", "tasks/s", at_least=12),
        Ratio("taskiq", "tasks/s", at_least=12),
    ),
)
