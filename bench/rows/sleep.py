"""Tasks that wait for 10 ms: how busy the threads are kept."""

from __future__ import annotations

from bench.consuming import CELERY, DRAMATIQ, OURS, Shape, rate
from bench.row import Limit, Row

COUNT = 19_200
SHAPE = Shape(processes=1, threads=64, prefetch=256)
POSSIBLE = 6_400

ROW = Row(
    "sleep",
    "10 ms of sleep × 64 threads (possible: 6,400/s)",
    tuple(rate(side, "sleep", COUNT, SHAPE) for side in (OURS, DRAMATIQ, CELERY)),
    (Limit("tasks/s", at_least=0.95 * POSSIBLE),),
)
