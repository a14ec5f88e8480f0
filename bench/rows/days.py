"""Simulated days of a supervisor: that what must always hold did hold, and for how long that was tried."""

from __future__ import annotations

import json
import random
import sys

from bench.context import Bench
from bench.places import OWN_PYTHON, run
from bench.row import Figures, Limit, Measure, Row
from bench.rows import POOLS

DAYS = 50
LEAST = 2
PATIENCE = 600.0


def ours(bench: Bench) -> Figures:
    """Simulate days with random seeds."""
    days = bench.count(DAYS, LEAST)
    first = random.randrange(2**32)
    told = json.loads(run([OWN_PYTHON, "-m", "bench.sides.fleet_days", str(days), str(first)], {}, PATIENCE))
    for seed in told["broken"]:
        print(f"Something did not hold; to see what: python -m bench.sides.fleet_days 1 {seed}", file=sys.stderr)
    return {"days": days, "hours": told["hours"], "events": told["events"], "days broken": len(told["broken"])}


ROW = Row(
    "days",
    "Simulated days of deaths, stalls and reloads on a virtual clock",
    (Measure("amqpworker", "the supervisor's decisions alone, no processes; two pools of 3 + 1", ours),),
    (Limit("days broken", at_most=0, worst=True),),
    "The days of `tests/unit/supervisor/test_fleet_days.py`, with other seeds each time. After each event: no process too "
    "many, no orphan, and each process that consumed still does unless it died; at the end all is well again, and a stop "
    "ends all.",
    section=POOLS,
)
