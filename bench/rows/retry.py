"""Tasks that fail once and succeed a second later: the price of a failure."""

from __future__ import annotations

from bench.consuming import CELERY, DRAMATIQ, OURS, Shape, rate
from bench.row import Ratio, Row

COUNT = 20_000
SHAPE = Shape(processes=1, threads=8, prefetch=256)

ROW = Row(
    "retry",
    "Every task fails once and succeeds a second later",
    tuple(rate(side, "fail_once", COUNT, SHAPE) for side in (OURS, DRAMATIQ, CELERY)),
    (Ratio("Dramatiq", "tasks/s", at_least=4), Ratio("Celery", "tasks/s", at_least=4)),
    "From the first start to the last success; the second of waiting is in it. Dramatiq waits 0.5 to 1 s (its jitter).",
)
