"""Empty tasks with a prefetch that adapts, from one message per thread on, and with one that is large from the start."""

from __future__ import annotations

from bench.consuming import OURS, Shape, rate
from bench.row import Ratio, Row
from bench.rows import POOLS

COUNT = 100_000
FIXED = "prefetch 256"

ROW = Row(
    "auto",
    "Empty tasks with `--prefetch auto`, 1 process × 8 threads",
    (
        rate(OURS, "empty", COUNT, Shape(processes=1, threads=8, prefetch=None)),
        rate(OURS, "empty", COUNT, Shape(processes=1, threads=8, prefetch=256), FIXED),
    ),
    (Ratio(FIXED, "tasks/s", at_least=0.97),),
    "One after the other three times in each run: the rates of one side differ by more than the two sides do.",
    section=POOLS,
    rounds=3,
)
